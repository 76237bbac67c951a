"""The HTTP application: OpenAI's images API, what probes and Prometheus ask for, and the page."""

import asyncio
import functools
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagen_jax.serve import access, fields, uploads
from imagen_jax.serve.answers import Answer
from imagen_jax.serve.engine import Engine
from imagen_jax.serve.errors import ApiError
from imagen_jax.serve.fields import Fields
from imagen_jax.serve.image_request import takes_guidance
from imagen_jax.serve.metrics import CONTENT_TYPE
from imagen_jax.serve.openapi import describe_api
from imagen_jax.serve.settings import Settings

LOG = logging.getLogger("imagen_jax.serve")
PAGE = Path(__file__).parent / "page"
FILES = {
    "/": "index.html",
    "/app.js": "app.js",
    "/png.js": "png.js",
    "/mask.js": "mask.js",
    "/style.css": "style.css",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
LEFT = 499  # nginx's status for a client that left before its answer; nobody gets it
GENERATIONS, EDITS, MODELS, METRICS = (
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/models",
    "/metrics",
)
OPEN_PATHS = {*FILES, "/health", "/ready", "/openapi.json"}  # without a token
PATHS = {*OPEN_PATHS, GENERATIONS, EDITS, MODELS, METRICS}  # that figures tell apart
DECODERS = 2  # images of uploads that are decoded at once


def make_app(engine: Engine, limits: Settings) -> ASGIApp:
    """The application that serves an engine, which is started and stopped outside of it."""
    service = Service(engine, limits)
    routes = [
        Route(GENERATIONS, service.generate, methods=["POST"]),
        Route(EDITS, service.edit, methods=["POST"]),
        Route(MODELS, service.list_models),
        Route(MODELS + "/{name:path}", service.show_model),
        Route("/health", service.health),
        Route("/ready", service.ready),
        Route(METRICS, service.metrics),
        Route("/openapi.json", service.openapi),
        *(Route(path, functools.partial(_file, name)) for path, name in FILES.items()),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            ApiError: _refuse,
            HTTPException: _refuse_plain,
            Exception: _refuse_failed,
        },
    )
    return Gate(app, engine, limits)


class Service:
    """The endpoints."""

    def __init__(self, engine: Engine, limits: Settings) -> None:
        self._engine, self._limits = engine, limits
        self._decoders = asyncio.Semaphore(DECODERS)
        self._created = int(time.time())

    async def generate(self, request: Request) -> Response:
        """POST /v1/images/generations."""
        given = fields.read_fields(await uploads.read_json(request))
        return await self._answer(request, given, "image_generation")

    async def edit(self, request: Request) -> Response:
        """POST /v1/images/edits."""
        texts, files = await uploads.read_form(request)
        given = fields.read_form(texts)
        size = fields.read_size(given, self._limits)
        async with self._decoders:
            decoded = await asyncio.to_thread(
                uploads.decode_upload, files, size, self._limits.max_pixels
            )
        return await self._answer(request, given, "image_edit", decoded)

    async def _answer(
        self,
        request: Request,
        given: Fields,
        kind: str,
        images: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    ) -> Response:
        answer = Answer(self._engine, self._limits, given)
        answer.submit(
            fields.make_request(given, self._limits, *images),
            client=request.client.host if request.client else "",
        )
        request.state.images = answer.request.count
        if given.stream:
            return EventSourceResponse(answer.events(kind), headers={"cache-control": "no-store"})
        try:
            found = await answer.wait(request)
        finally:
            answer.cancel()
        return Response(status_code=LEFT) if found is None else JSONResponse(found)

    async def list_models(self, request: Request) -> Response:
        """GET /v1/models."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def show_model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        if request.path_params["name"] != self._limits.model:
            raise ApiError(404, "no such model: GET /v1/models lists them", "model_not_found")
        return JSONResponse(self._model())

    def _model(self) -> dict[str, Any]:
        """OpenAI's fields, and those that the page reads."""
        stages = [trained.stage for trained in self._engine.imagen.stages]
        student = stages[0].distillation
        return {
            "id": self._limits.model,
            "object": "model",
            "created": self._created,
            "owned_by": "imagen_jax",
            "sizes": [f"{width}x{height}" for height, width in self._limits.sizes],
            "steps": stages[0].sampler.steps,
            "max_steps": self._limits.max_steps,
            "fixed_steps": student is not None and student.steps > 0,
            "guidance": max(stage.sampler.guidance_weight for stage in stages),
            "takes_guidance": any(map(takes_guidance, stages)),
            "takes_negative_prompt": any(stage.is_guided for stage in stages),
            "needs_token": bool(self._limits.tokens),
        }

    async def health(self, request: Request) -> Response:
        """GET /health: the process answers."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """GET /ready: requests are taken."""
        is_ready = self._engine.is_ready
        said = {"status": "ready" if is_ready else "not ready"}
        return JSONResponse(said, status_code=200 if is_ready else 503)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(self._engine.metrics.text(), media_type=CONTENT_TYPE)

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        return JSONResponse(describe_api(self._limits))


class Gate:
    """Round the application: who may ask, what is logged and counted, and no traceback outside."""

    def __init__(self, app: ASGIApp, engine: Engine, limits: Settings) -> None:
        self._app, self._engine, self._limits = app, engine, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), LEFT
        request = Request(scope, receive)
        scope.setdefault("state", {})

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._pass(request, note)
        except Exception:
            # What failed has its answer, or has begun one: the client sees that it is cut short.
            LOG.exception("a request failed")
        finally:
            self._log(scope, status, time.monotonic() - began)

    async def _pass(self, request: Request, send: Send) -> None:
        scope, receive = request.scope, request.receive
        try:
            access.check_origin(request, has_tokens=bool(self._limits.tokens))
            if scope["path"] not in OPEN_PATHS:
                access.check_token(request, self._limits.tokens)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        """Never a prompt, a token or a query."""
        path = scope["path"] if scope["path"] in PATHS else "other"
        metrics = self._engine.metrics
        metrics.requests.labels(path, str(status)).inc()
        if path.startswith("/v1/images"):
            metrics.request_seconds.labels(path).observe(seconds)
        about = {
            "method": scope["method"],
            "path": path,
            "status": status,
            "seconds": round(seconds, 4),
            "images": scope["state"].get("images", 0),
            "client": scope["client"][0] if scope.get("client") else "",
        }
        LOG.info("request", extra={"fields": about})


async def _file(name: str, request: Request) -> Response:
    """A file of the page."""
    headers = {
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }
    return FileResponse(PAGE / name, headers=headers)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _refuse_plain(request: Request, error: Exception) -> Response:
    """What the router refuses: an unknown path, or a method that it has not."""
    assert isinstance(error, HTTPException)
    said, code = {
        404: ("no such path: see /openapi.json", "not_found"),
        405: ("that path has no such method", "method_not_allowed"),
    }.get(error.status_code, (error.detail, "invalid_value"))
    return ApiError(error.status_code, said, code).response()


async def _refuse_failed(request: Request, error: Exception) -> Response:
    """What nobody foresaw; the log has it."""
    return ApiError(500, "the server failed, see its log", "internal_error").response()
