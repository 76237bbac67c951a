"""Failures of buckets and of their driver, each as an OSError of one sentence with the remedy."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

AGAIN = "give the same command again, which resumes"
SIGN_IN = "sign in with `gcloud auth application-default login`, or give the machine an account"


class Reason(NamedTuple):
    """A driver's failure, in a few words, and what to do."""

    said: str
    remedy: str
    passes: bool = False  # so that it was met again and again
    refuses: bool = False  # for want of rights


class BucketError(OSError):
    """A bucket did not do what it was asked; the sentence names address, reason and remedy."""

    reason: Reason | None = None  # of the driver's failures, for another address to be named

    @classmethod
    def from_reason(cls, reason: Reason, address: str, deed: str) -> "BucketError":
        """Make the error that `address` was not `deed`."""
        said = f"{reason.said}, again and again" if reason.passes else reason.said
        made = cls(f"{address} was not {deed} ({said}): {reason.remedy}")
        made.reason = reason
        return made


class MissingObjectError(BucketError, FileNotFoundError):
    """An object or its bucket is not there."""


_WAIT = f"wait, then {AGAIN}"


_BY_CODE = {
    401: Reason("401, you are not signed in", SIGN_IN, refuses=True),
    403: Reason(
        "403 Forbidden",
        "ask for the role roles/storage.objectUser on this bucket, or sign in",
        refuses=True,
    ),
    408: Reason("408, the request took too long", f"look at the network, then {AGAIN}"),
    429: Reason("429 Too Many Requests", _WAIT, passes=True),
}
_SERVER = "the server's failure"


@contextlib.contextmanager
def explain_failures(address: str, deed: str) -> Iterator[None]:
    """Turn all that the driver raises into an OSError: `address` was not `deed`, why, and a remedy.

    Errors: MissingObjectError for what is not there; FileExistsError as it is, for the caller to
    explain; else BucketError.
    """
    try:
        yield
    except FileExistsError:
        raise
    except BucketError as error:
        if error.reason is None:
            raise
        raise BucketError.from_reason(error.reason, address, deed) from error
    except FileNotFoundError as error:
        raise MissingObjectError(
            f"{address} was not {deed} (404, it is not there): check the names of the bucket and "
            "of what is in it"
        ) from error
    except _kinds() as error:
        raise BucketError.from_reason(find_reason(error), address, deed) from error


def _kinds() -> tuple[type[Exception], ...]:
    """The errors of the driver and of the libraries that it is made of."""
    import aiohttp
    import gcsfs.retry
    import google.auth.exceptions

    return (
        OSError,  # requests' errors and time-outs are some
        ValueError,  # what gcsfs makes of an answer with the word "invalid"
        RuntimeError,  # ... of one without a code, and of a loop that is gone
        gcsfs.retry.HttpError,
        gcsfs.retry.ChecksumError,
        aiohttp.ClientError,
        google.auth.exceptions.GoogleAuthError,
    )


def find_reason(error: Exception) -> Reason:
    """Return the reason of one of the driver's errors."""
    import aiohttp
    import google.auth.exceptions

    text = " ".join(str(error).split()) or type(error).__name__
    code = getattr(error, "code", None)
    if text.startswith("Forbidden"):  # gcsfs keeps no code of it
        code = 403
    if code in _BY_CODE:
        return _BY_CODE[code]
    if isinstance(code, int) and code >= 500:
        return Reason(f"{code}, {_SERVER}", _WAIT, passes=True)
    if type(error).__name__ == "ProxyError":  # what gcsfs makes of 502
        return Reason(f"502, {_SERVER}", _WAIT, passes=True)
    if isinstance(error, google.auth.exceptions.GoogleAuthError):
        return Reason(f"no access: {text}", SIGN_IN)
    if isinstance(error, TimeoutError):
        return Reason("no answer in time", f"look at the network, then {AGAIN}")
    if isinstance(error, aiohttp.ClientPayloadError):
        return Reason("the answer was cut short", f"look at the network, then {AGAIN}")
    return Reason(text, f"check the address and the network, then {AGAIN}")
