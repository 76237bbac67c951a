"""Images that a client waits for: one answer of all, or a stream of events as they come."""

import asyncio
import base64
import io
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from PIL import Image
from starlette.requests import Request

from imagen_jax.io.png_metadata import encode_png
from imagen_jax.serve.engine import Draining, Engine
from imagen_jax.serve.errors import ApiError, unavailable, unprocessable
from imagen_jax.serve.fields import Fields
from imagen_jax.serve.image_request import Event, Failed, Finished, ImageRequest, Partial, Ticket
from imagen_jax.serve.metadata import describe_image
from imagen_jax.serve.settings import Settings
from imagen_jax.serve.waiting_images import QueueFull

QUALITY = 90  # of JPEG and WebP where the client does not say


class Answer:
    """One request's images. `cancel` has to be called in the end, whatever happened."""

    def __init__(self, engine: Engine, limits: Settings, fields: Fields) -> None:
        self._engine, self._limits, self._fields = engine, limits, fields
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._ticket: Ticket | None = None
        self._until = 0.0
        self.created = int(time.time())

    def submit(self, request: ImageRequest, *, client: str) -> None:
        """Hand the request to the engine.

        Errors: ApiError 422 for what the cascade can't make, 429 for a full queue, 503 at the end.
        """
        loop = asyncio.get_running_loop()

        def emit(event: Event) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._events.put_nowait, event)

        try:
            self._ticket = self._engine.submit(request, client=client, emit=emit)
        except QueueFull as full:
            raise ApiError(
                429, f"{full}: try again later", "queue_full", None, self._engine.seconds_to_wait()
            ) from None
        except Draining as draining:
            raise unavailable(str(draining), "shutting_down", 1) from None
        except ValueError as error:
            raise unprocessable(str(error)) from None
        self._until = time.monotonic() + self._limits.timeout

    def cancel(self) -> None:
        """Give up what is not finished."""
        if self._ticket is not None:
            self._engine.cancel(self._ticket)

    async def wait(self, request: Request) -> dict[str, Any] | None:
        """All images as OpenAI's answer; None when the client has left. Errors: ApiError."""
        gone = asyncio.ensure_future(_disconnect(request))
        images: dict[int, np.ndarray] = {}
        try:
            while len(images) < self.request.count:
                event = asyncio.ensure_future(self._next())
                await asyncio.wait((event, gone), return_when=asyncio.FIRST_COMPLETED)
                if not event.done():
                    event.cancel()
                    return None
                if isinstance(found := event.result(), Finished):
                    images[found.index] = found.pixels
        finally:
            gone.cancel()
        data = [await self._encoded(index, images[index]) for index in sorted(images)]
        return self._about() | {"data": data}

    async def events(self, kind: str) -> AsyncIterator[dict[str, str]]:
        """Server-sent events: partial images and finished ones, then one error at most.

        `kind` is the first part of their names, as OpenAI's: image_generation or image_edit.
        """
        left = self.request.count
        try:
            while left:
                found = await self._next()
                about = self._about()
                if isinstance(found, Partial):
                    whole = _enlarge(found.pixels, self.request.size)
                    part = {"partial_image_index": found.number, "progress": round(found.share, 4)}
                    name = f"{kind}.partial_image"
                else:
                    whole, part, name = found.pixels, {}, f"{kind}.completed"
                    left -= 1
                encoded = await self._encoded(found.index, whole)
                created = {"created_at": about.pop("created")}
                yield _event(name, {"type": name, **about, **created, **part, **encoded})
        except ApiError as error:
            yield _event("error", {"type": "error", **error.document()})
        finally:
            self.cancel()

    @property
    def request(self) -> ImageRequest:
        """What was submitted."""
        assert self._ticket is not None
        return self._ticket.request

    async def _next(self) -> Finished | Partial:
        """The next event. Errors: ApiError for a failure, or where the time is over."""
        try:
            async with asyncio.timeout(self._until - time.monotonic()):
                event = await self._events.get()
        except TimeoutError:
            self.cancel()
            raise unavailable(
                f"the images took more than {self._limits.timeout:g} seconds: ask for fewer, or "
                "try again later",
                "timeout",
                self._engine.seconds_to_wait(),
            ) from None
        if not isinstance(event, Failed):
            return event
        if isinstance(event.error, Draining):
            raise unavailable(str(event.error), "shutting_down", 1)
        if isinstance(event.error, ValueError | ArithmeticError):
            raise unprocessable(str(event.error))
        raise unavailable("the devices failed, see the server's log", "devices_failed", 30)

    def _about(self) -> dict[str, Any]:
        height, width = self.request.size
        assert self._ticket is not None
        return {
            "created": self.created,
            "size": f"{width}x{height}",
            "output_format": self._fields.output_format or "png",
            "quality": "auto",
            "background": "opaque",
            "seed": self.request.seed,
            "warnings": list(self._ticket.warnings),
        }

    async def _encoded(self, index: int, pixels: np.ndarray) -> dict[str, Any]:
        image = await asyncio.to_thread(self._encode, index, pixels)
        return {"index": index, "b64_json": base64.b64encode(image).decode()}

    def _encode(self, index: int, pixels: np.ndarray) -> bytes:
        """An image file; a PNG carries what it was made of."""
        image, wanted = Image.fromarray(pixels), self._fields.output_format or "png"
        if wanted == "png":
            return encode_png(
                image,
                describe_image(self._engine.imagen, self._limits.model, self.request, index),
            )
        quality = self._fields.output_compression
        encoded = io.BytesIO()
        image.save(encoded, wanted.upper(), quality=QUALITY if quality is None else quality)
        return encoded.getvalue()


def _event(name: str, data: dict[str, Any]) -> dict[str, str]:
    return {"event": name, "data": json.dumps(data)}


def _enlarge(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A stage's image at the size of the last one's, without smoothing."""
    image = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(image)


async def _disconnect(request: Request) -> None:
    """Return when the client has left; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
