"""OpenAI's own Python client: it gets images, events and its own errors from this server."""

import asyncio
import base64
import io
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from PIL import Image

from imagen_jax.serve.api import make_app
from imagen_jax.serve.settings import Settings

TOKEN = "a-token-of-many-letters"
LIMITS = Settings(
    model="tiny", sizes=((8, 8),), max_pixels=2048, max_steps=20, timeout=300.0, tokens=(TOKEN,)
)


def ask(quick: Any, work: Callable[[openai.AsyncOpenAI], Awaitable[Any]], key: str = TOKEN) -> Any:
    async def run() -> Any:
        transport = httpx2.ASGITransport(app=make_app(quick, LIMITS))
        http_client = httpx2.AsyncClient(transport=transport)
        async with openai.AsyncOpenAI(
            api_key=key, base_url="http://localhost/v1", http_client=http_client, max_retries=0
        ) as client:
            return await work(client)

    return asyncio.run(run())


def pixels(text: str | None) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text or ""))))


def test_it_generates_lists_and_streams(quick) -> None:
    async def work(client: openai.AsyncOpenAI) -> None:
        assert [model.id async for model in client.models.list()] == ["tiny"]
        options: dict[str, Any] = {"prompt": "a red circle", "model": "tiny"}
        options["extra_body"] = {"seed": 5, "num_inference_steps": 3}
        found = await client.images.generate(**options, n=2, size="auto")
        assert found.data is not None
        images = [pixels(image.b64_json) for image in found.data]
        assert [image.shape for image in images] == [(8, 8, 3)] * 2
        kinds = []
        async for event in await client.images.generate(**options, stream=True, partial_images=1):
            kinds.append(event.type)
        assert kinds == ["image_generation.partial_image", "image_generation.completed"]
        np.testing.assert_array_equal(pixels(event.b64_json), images[0])

    ask(quick, work)


def test_it_edits(quick) -> None:
    async def work(client: openai.AsyncOpenAI) -> None:
        image = np.full((8, 8, 4), 200, np.uint8)
        image[:, 4:, 3] = 0
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        found = await client.images.edit(
            image=("a.png", file.getvalue()), prompt="a star", extra_body={"seed": 5}
        )
        assert found.data is not None
        assert (pixels(found.data[0].b64_json)[:, 4:].std()) > 1

    ask(quick, work)


@pytest.mark.parametrize(
    ("error", "key", "options"),
    [
        (openai.AuthenticationError, "wrong", {}),
        (openai.NotFoundError, TOKEN, {"model": "dall-e-3"}),
        (openai.BadRequestError, TOKEN, {"n": 99}),
        (openai.UnprocessableEntityError, TOKEN, {"size": "1024x1024"}),
    ],
)
def test_it_raises_its_own_errors(quick, error: type, key: str, options: dict) -> None:
    async def work(client: openai.AsyncOpenAI) -> None:
        with pytest.raises(error):
            await client.images.generate(prompt="a", **options)

    ask(quick, work, key)
