"""fsspec's driver of buckets (`gs://`) as this package uses it: it says when it asks again.

gcsfs asks again without a word, and looks for an account in several ways and once a thread. This
driver has a line for each further try, waits as long as a Retry-After says, and looks once.
"""

import asyncio
import contextvars
import functools
import logging
import os
import random
import re
import urllib.parse
import warnings
from typing import Any

import aiohttp
import fsspec
import gcsfs.core
import gcsfs.retry
import google.auth
import google.auth.exceptions

from imagen_jax.io import further_tries
from imagen_jax.io.bucket_errors import BucketError, find_reason

SILENCE = 30  # seconds without a byte after which the driver asks again
TRIES = 6  # of a request; the waits between them are half a minute
LONGEST = 30.0  # seconds that are waited because a server says so, in all tries of a request
SCOPE = "https://www.googleapis.com/auth/devstorage.full_control"
DEEDS = {"GET": "read", "DELETE": "deleted"}  # other methods write
LOGGERS = ("gcsfs", "google.auth")  # they warn of what is raised as well, or does no harm

_PLACE = re.compile(r"\bb/([^/?]+)(?:/o/([^?]+))?")  # of Google's JSON API: bucket and object
_asked_to_wait = contextvars.ContextVar("seconds of an answer's Retry-After", default=0.0)
_ask_once = gcsfs.core.GCSFileSystem._request.__wrapped__


class BucketDriver(gcsfs.core.GCSFileSystem):
    """gcsfs whose lasting failures are sentences, and that asks in Google's JSON API alone.

    Its default asks Google for a bucket's kind in another protocol, which takes a minute where it
    fails.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(_note_retry_after)
        session = options.pop("session_kwargs", None) or {}
        options = {"token": find_account(), "requests_timeout": patience()} | options
        super().__init__(*arguments, session_kwargs=session | {"trace_configs": [trace]}, **options)

    async def _request(self, method: str, path: str, *args: Any, **options: Any) -> Any:
        """Ask, and again where that helps. Errors: BucketError; of what is no failure, gcsfs's."""
        waited = 0.0
        for number in range(1, TRIES + 1):
            _asked_to_wait.set(0.0)
            try:
                return await _ask_once(self, method, path, *args, **options)
            except Exception as error:
                reason, place = find_reason(error), _address(path, args, options)
                retriable = gcsfs.retry.is_retriable(error)
                if number == TRIES or not retriable:
                    if retriable or reason.refuses:
                        raise BucketError.from_reason(
                            reason, place, DEEDS.get(method, "written")
                        ) from error
                    raise
            asked = min(_asked_to_wait.get(), LONGEST - waited)
            waited += asked
            further_tries.say(place, reason.said, number + 1, TRIES)
            await asyncio.sleep(max(asked, random.random() + 2 ** (number - 1)))

    async def _isdir(self, path: str) -> bool:
        return await self._kind(path) == "directory"

    async def _isfile(self, path: str) -> bool:
        return await self._kind(path) == "file"

    async def _kind(self, path: str) -> str:
        """Return what is there; gcsfs takes every failure for nothing. Errors: BucketError."""
        try:
            return (await self._info(path))["type"]
        except FileNotFoundError:
            return ""


def register() -> None:
    """Make this the driver of `gs://` for fsspec, which epath and so Orbax use, too."""
    for name in ("gs", "gcs"):
        fsspec.register_implementation(name, BucketDriver, clobber=True)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET and "GCSFS_DEBUG" not in os.environ:
            logger.setLevel(logging.CRITICAL)


def patience() -> aiohttp.ClientTimeout:
    """Return the driver's time limits."""
    return aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)


def find_account() -> Any:
    """Return this machine's account on Google Cloud; "anon" where it has none."""
    return "anon" if "STORAGE_EMULATOR_HOST" in os.environ else _find_account()


@functools.cache  # asking takes seconds on machines that are not Google's
def _find_account() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of quotas, which storage has not
            return google.auth.default(scopes=[SCOPE])[0]
    except google.auth.exceptions.GoogleAuthError:
        return "anon"


async def _note_retry_after(
    session: aiohttp.ClientSession, context: Any, answer: aiohttp.TraceRequestEndParams
) -> None:
    """Keep an answer's Retry-After, which Google gives in seconds, for the request's next try."""
    wanted = answer.response.headers.get("Retry-After", "")
    _asked_to_wait.set(float(wanted) if wanted.isascii() and wanted.isdigit() else 0.0)


def _address(path: str, args: tuple[str, ...], options: dict[str, Any]) -> str:
    """Return what a request is about, as far as its address says it."""
    found = _PLACE.search(path.format(*args) if args else urllib.parse.unquote(path))
    if found is None:
        return "gs://"
    bucket, key = found.groups()
    return f"gs://{bucket}/{key or options.get('prefix') or ''}".rstrip("/")
