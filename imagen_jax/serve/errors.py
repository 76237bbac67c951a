"""Errors in the shape that OpenAI's API has, and what becomes of the engine's exceptions."""

import dataclasses
from typing import Any

from starlette.responses import JSONResponse

from imagen_jax.config.names import escape_controls
from imagen_jax.config.sentences import bound

KINDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error"}
SERVER, BUSY = "server_error", "rate_limit_error"


@dataclasses.dataclass(eq=False)
class ApiError(Exception):
    """An answer that is none of images; `param` names the field at fault, if it is one."""

    status: int
    message: str
    code: str
    param: str | None = None
    retry_after: int | None = None  # seconds

    def document(self) -> dict[str, Any]:
        """The body, as OpenAI's."""
        kind = KINDS.get(self.status, SERVER if self.status >= 500 else KINDS[400])
        said = escape_controls(bound(self.message))
        return {
            "error": {
                "message": said,
                "type": BUSY if self.status == 429 else kind,
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        """The whole answer."""
        headers = {"cache-control": "no-store"}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return JSONResponse(self.document(), status_code=self.status, headers=headers)


def bad_request(message: str, param: str | None = None) -> ApiError:
    """A request that is none: 400."""
    return ApiError(400, message, "invalid_value", param)


def unprocessable(message: str, param: str | None = None) -> ApiError:
    """A request that this server, or its cascade, can't meet: 422."""
    return ApiError(422, message, "unsupported_value", param)


def too_large(message: str, param: str | None = None) -> ApiError:
    """More bytes or pixels than are taken: 413."""
    return ApiError(413, message, "request_too_large", param)


def unavailable(message: str, code: str, retry_after: int) -> ApiError:
    """Not now: 503."""
    return ApiError(503, message, code, retry_after=retry_after)
