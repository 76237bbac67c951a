"""Failures of buckets and of their driver, each as an OSError of one sentence with the remedy."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

AGAIN = "give the same command again, which resumes"
SIGN_IN = "sign in with `gcloud auth application-default login`, or give the machine an account"


class BucketError(OSError):
    """A bucket did not do what it was asked; the sentence names address, reason and remedy."""


class MissingObjectError(BucketError, FileNotFoundError):
    """An object or its bucket is not there."""


class _Reason(NamedTuple):
    said: str
    remedy: str


_BY_CODE = {
    401: _Reason("401, you are not signed in", SIGN_IN),
    403: _Reason(
        "403 Forbidden", "ask for the role roles/storage.objectUser on this bucket, or sign in"
    ),
    408: _Reason("408, the request took too long", f"look at the network, then {AGAIN}"),
    429: _Reason("429 Too Many Requests, again and again", f"wait, then {AGAIN}"),
}
_SERVER = "the server's failure, again and again"


@contextlib.contextmanager
def explain_failures(address: str, deed: str) -> Iterator[None]:
    """Turn all that the driver raises into an OSError: `address` was not `deed`, why, and a remedy.

    Errors: MissingObjectError for what is not there; FileExistsError as it is, for the caller to
    explain; else BucketError.
    """
    try:
        yield
    except (BucketError, FileExistsError):
        raise
    except FileNotFoundError as error:
        raise MissingObjectError(
            f"{address} was not {deed} (404, it is not there): check the names of the bucket and "
            "of what is in it"
        ) from error
    except _kinds() as error:
        reason = _describe(error)
        raise BucketError(f"{address} was not {deed} ({reason.said}): {reason.remedy}") from error


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


def _describe(error: Exception) -> _Reason:
    import aiohttp
    import google.auth.exceptions

    text = " ".join(str(error).split()) or type(error).__name__
    code = getattr(error, "code", None)
    if text.startswith("Forbidden"):  # gcsfs keeps no code of it
        code = 403
    if code in _BY_CODE:
        return _BY_CODE[code]
    if isinstance(code, int) and code >= 500:
        return _Reason(f"{code}, {_SERVER}", f"wait, then {AGAIN}")
    if type(error).__name__ == "ProxyError":  # what gcsfs makes of 502
        return _Reason(f"502, {_SERVER}", f"wait, then {AGAIN}")
    if isinstance(error, google.auth.exceptions.GoogleAuthError):
        return _Reason(f"no access: {text}", SIGN_IN)
    if isinstance(error, TimeoutError):
        return _Reason("no answer in time", f"look at the network, then {AGAIN}")
    if isinstance(error, aiohttp.ClientPayloadError):
        return _Reason("the answer was cut short", f"look at the network, then {AGAIN}")
    return _Reason(text, f"check the address and the network, then {AGAIN}")
