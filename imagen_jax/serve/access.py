"""Who may ask: bearer tokens, and pages of other sites that a browser asks for."""

import hmac
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import Request

from imagen_jax.config.sentences import shorten
from imagen_jax.io import whole_files
from imagen_jax.serve.errors import ApiError

LEAST = 16  # characters of a token
SCHEME = "bearer "


def read_tokens(file: Path) -> tuple[str, ...]:
    """Read tokens, one a line; empty lines and those that begin with # are left out.

    Errors: OSError; ValueError for a file without any, or a token that is short or no ASCII.
    """
    text = whole_files.read_whole(file).decode("utf-8", "replace")
    lines = (line.strip() for line in text.splitlines())
    found = tuple(line for line in lines if line and not line.startswith("#"))
    if not found:
        raise ValueError(f"--token-file {file} has no token: write one a line")
    for number, token in enumerate(found, 1):
        if len(token) < LEAST or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError(
                f"--token-file {file}: token {number} must be {LEAST} or more letters, digits and "
                "signs of ASCII without spaces: make one with `openssl rand -hex 32`"
            )
    return found


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_token(request: Request, tokens: Sequence[str]) -> None:
    """Refuse a request without one of the tokens, if there are any. Errors: ApiError 401.

    Every token is compared, in a time that does not depend on where they differ.
    """
    if not tokens:
        return
    given = request.headers.get("authorization", "")
    is_bearer = given[: len(SCHEME)].lower() == SCHEME
    token = given[len(SCHEME) :].strip().encode() if is_bearer else b""
    if not sum([hmac.compare_digest(token, one.encode()) for one in tokens]):
        raise ApiError(401, "no valid token: send Authorization: Bearer TOKEN", "invalid_api_key")


def check_origin(request: Request, *, has_tokens: bool) -> None:
    """Refuse what a browser sends for a page of another site. Errors: ApiError 403.

    Without tokens the host has to be this machine's own name, too: another site's name may be made
    to lead here (DNS rebinding).
    """
    host = request.headers.get("host", "")
    origin = request.headers.get("origin")
    if origin is not None and _address(origin) != host:
        raise ApiError(403, f"the origin {shorten(origin)} is not this server", "forbidden_origin")
    server = (request.scope.get("server") or ("", 0))[0] or ""
    if not has_tokens and is_loopback(server) and not is_loopback(_host_name(host)):
        raise ApiError(
            403, f"this server is not {shorten(host)}: ask for localhost", "forbidden_host"
        )


def _address(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:  # of brackets that hold no address
        return ""


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
