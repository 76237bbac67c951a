"""The HTTP API: images, events, every status, and who may ask."""

import asyncio
import base64
import io
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from served_images import Waiter, ask

from imagen_jax.io.png_metadata import read_metadata
from imagen_jax.serve import settings
from imagen_jax.serve.api import PAGE, make_app
from imagen_jax.serve.engine import Engine
from imagen_jax.serve.metrics import Metrics
from imagen_jax.serve.settings import Settings

GENERATE, EDIT = "/v1/images/generations", "/v1/images/edits"
TOKEN = "a-token-of-many-letters"
LIMITS = Settings(
    model="tiny", sizes=((8, 8), (8, 16)), max_pixels=2048, max_steps=20, timeout=300.0
)


def make_limits(**changes: Any) -> Settings:
    return Settings(**{**vars(LIMITS), **changes})


def call(app: Any, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
    """The answers to requests that are made one after the other."""

    async def work() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [await client.request(method, path, **more) for method, path, more in requests]

    return asyncio.run(work())


def one(app: Any, method: str, path: str, **more: Any) -> httpx.Response:
    (found,) = call(app, (method, path, more))
    return found


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def decoded(data: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data["b64_json"]))))


def picture(alpha: bool = False) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 8, 4 if alpha else 3), np.uint8)


@pytest.fixture(scope="module")
def app(quick: Engine) -> Any:
    return make_app(quick, LIMITS)


@pytest.fixture
def idle(quick: Engine) -> Engine:
    """An engine that was not started: what it takes waits for ever."""
    return Engine(quick.imagen, batch_size=8, max_queue=4, metrics=Metrics())


def test_images_are_the_engines_and_carry_what_they_were_made_of(app, quick) -> None:
    body = {"prompt": "a large red circle", "seed": 7, "n": 2, "num_inference_steps": 2}
    answer = one(app, "POST", GENERATE, json=body)
    assert answer.status_code == 200
    found = answer.json()
    expected = Waiter(quick, ask(7, size=(8, 8), count=2, steps=2)).images()
    np.testing.assert_array_equal([decoded(data) for data in found["data"]], expected)
    assert found["size"] == "8x8"
    assert found["seed"] == 7
    metadata = read_metadata(base64.b64decode(found["data"][1]["b64_json"]))
    assert metadata["prompt"] == "a large red circle"
    assert (metadata["seed"], metadata["index"], metadata["cascade"]) == (7, 1, "tiny")
    assert len(metadata["stages"][0]["digest"]) == 16
    assert metadata["num_inference_steps"] == 2


@pytest.mark.parametrize(("kind", "starts"), [("jpeg", b"\xff\xd8\xff"), ("webp", b"RIFF")])
def test_other_formats(app, kind: str, starts: bytes) -> None:
    body = {"prompt": "", "output_format": kind, "output_compression": 40, "size": "16x8"}
    (data,) = one(app, "POST", GENERATE, json=body).json()["data"]
    assert base64.b64decode(data["b64_json"]).startswith(starts)
    assert decoded(data).shape == (8, 16, 3)


def test_without_a_seed_each_request_has_another(app) -> None:
    bodies = [("POST", GENERATE, {"json": {"prompt": "a star"}})] * 2
    first, second = (answer.json() for answer in call(app, *bodies))
    assert first["seed"] != second["seed"]
    assert first["data"][0]["b64_json"] != second["data"][0]["b64_json"]


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in found]


def test_a_stream_has_partial_images_and_then_the_image(app) -> None:
    body = {"prompt": "a star", "seed": 3, "stream": True, "partial_images": 2}
    *partials, last = events(one(app, "POST", GENERATE, json=body))
    assert [p["type"] for p in partials] == ["image_generation.partial_image"] * 2
    assert [p["partial_image_index"] for p in partials] == [0, 1]
    assert all(decoded(p).shape == (8, 8, 3) and decoded(p).std() > 1 for p in partials)
    assert last["type"] == "image_generation.completed"
    (whole,) = one(app, "POST", GENERATE, json={"prompt": "a star", "seed": 3}).json()["data"]
    assert last["b64_json"] == whole["b64_json"]


def test_an_edit_paints_what_is_transparent(app) -> None:
    mask = np.full((8, 8, 4), 255, np.uint8)
    mask[:, 4:, 3] = 0
    files = {"image": encoded(picture()), "mask": encoded(mask)}
    data = {"prompt": "a star", "seed": "3", "n": "1"}
    answer = one(app, "POST", EDIT, files=files, data=data)
    image = decoded(answer.json()["data"][0])
    np.testing.assert_array_equal(image[:, :4], picture()[:, :4])
    assert (image[:, 4:] != picture()[:, 4:]).any()
    clear = np.dstack([picture(), mask[..., 3]])
    alone = one(app, "POST", EDIT, files={"image[]": encoded(clear)}, data=data)
    np.testing.assert_array_equal(decoded(alone.json()["data"][0])[:, 4:], image[:, 4:])
    kept = one(app, "POST", EDIT, files={"image": files["image"]}, data={**data, "strength": "0"})
    np.testing.assert_array_equal(decoded(kept.json()["data"][0]), picture())
    stream = events(one(app, "POST", EDIT, files=files, data={**data, "stream": "true"}))
    assert [event["type"] for event in stream] == ["image_edit.completed"]


JSON = {"headers": {"content-type": "application/json"}}
REFUSED: list[tuple[int, str | None, dict[str, Any]]] = [
    (400, None, {"content": b"{", **JSON}),
    (400, None, {"content": b"[1]", **JSON}),
    (400, None, {"content": b"\xff\xfe\x00", **JSON}),
    (400, None, {"content": b"[" * 100_000, **JSON}),
    (400, None, {"content": b'{"prompt": "a", "prompt": "b"}', **JSON}),
    (400, None, {"content": b'{"prompt": "a"}', "headers": {"content-type": "text/plain"}}),
    (400, "prompt", {"json": {}}),
    (400, "prompt", {"json": {"prompt": 3}}),
    (400, "prompt", {"json": {"prompt": ["a"]}}),
    (400, "prompt", {"content": b'{"prompt": "\\ud800"}', **JSON}),
    (400, "prompt", {"json": {"prompt": "a" * (settings.MOST_PROMPT + 1)}}),
    (400, "promt", {"json": {"prompt": "a", "promt": "b"}}),
    (400, "n", {"json": {"prompt": "a", "n": 0}}),
    (400, "n", {"json": {"prompt": "a", "n": 11}}),
    (400, "n", {"json": {"prompt": "a", "n": "1"}}),
    (400, "n", {"json": {"prompt": "a", "n": True}}),
    (400, "size", {"json": {"prompt": "a", "size": "8"}}),
    (400, "seed", {"json": {"prompt": "a", "seed": 2**32}}),
    (400, "guidance_scale", {"content": b'{"prompt": "a", "guidance_scale": NaN}', **JSON}),
    (400, "guidance_scale", {"content": b'{"prompt": "a", "guidance_scale": 1e999}', **JSON}),
    (400, "response_format", {"json": {"prompt": "a", "response_format": "url"}}),
    (400, "output_format", {"json": {"prompt": "a", "output_format": "gif"}}),
    (400, "output_compression", {"json": {"prompt": "a", "output_compression": 101}}),
    (400, "partial_images", {"json": {"prompt": "a", "stream": True, "partial_images": 4}}),
    (404, "model", {"json": {"prompt": "a", "model": "gpt-image-1"}}),
    (413, None, {"content": b" " * (settings.JSON_BYTES + 1), **JSON}),
    (413, "n", {"json": {"prompt": "a", "size": "16x8", "n": 10}}),
    (422, "size", {"json": {"prompt": "a", "size": "8x16"}}),
    (422, "num_inference_steps", {"json": {"prompt": "a", "num_inference_steps": 21}}),
    (422, "output_compression", {"json": {"prompt": "a", "output_compression": 5}}),
    (422, "partial_images", {"json": {"prompt": "a", "partial_images": 1}}),
    (422, "strength", {"json": {"prompt": "a", "strength": 0.5}}),
]


@pytest.mark.parametrize(("status", "param", "request_of"), REFUSED)
def test_refusals_name_the_field(quick, status: int, param: str | None, request_of: dict) -> None:
    app = make_app(quick, make_limits(max_pixels=1279))
    answer = one(app, "POST", GENERATE, **request_of)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert error["type"] == "invalid_request_error"
    assert 10 < len(error["message"]) < 500


OPAQUE, BOMB = encoded(np.zeros((8, 8, 4), np.uint8) + 255), encoded(np.zeros((64, 64), np.uint8))
EDITS: list[tuple[int, str | None, dict[str, Any], dict[str, Any]]] = [
    (400, "image", {}, {"prompt": "a"}),
    (400, "image", {"image": b"no image"}, {"prompt": "a"}),
    (400, "image", {"image": encoded(picture())[:60]}, {"prompt": "a"}),
    (400, "prompt", {"image": OPAQUE}, {}),
    (400, "n", {"image": OPAQUE}, {"prompt": "a", "n": "one"}),
    (400, "other", {"image": OPAQUE, "other": OPAQUE}, {"prompt": "a"}),
    (400, "mask", {"image": OPAQUE}, {"prompt": "a", "mask": "/etc/passwd"}),
    (413, "image", {"image": BOMB}, {"prompt": "a"}),
    (422, "mask", {"image": OPAQUE, "mask": OPAQUE}, {"prompt": "a"}),
    (
        422,
        "mask",
        {"image": OPAQUE, "mask": encoded(np.zeros((8, 4, 4), np.uint8))},
        {"prompt": "a"},
    ),
]


@pytest.mark.parametrize(("status", "param", "files", "data"), EDITS)
def test_refusals_of_edits(app, status: int, param: str | None, files: dict, data: dict) -> None:
    answer = one(app, "POST", EDIT, files=files or {"x": b""}, data=data)
    if not files:
        assert answer.status_code == 400
        return
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


@pytest.mark.parametrize(
    "body", [b"", b"--x\r\n\r\nno", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--"]
)
def test_broken_forms_are_refused(app, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert one(app, "POST", EDIT, content=body, headers=headers).status_code == 400
    assert (
        one(
            app, "POST", EDIT, content=body, headers={"content-type": "multipart/form-data"}
        ).status_code
        == 400
    )


def test_tokens(quick) -> None:
    guarded = make_app(quick, make_limits(tokens=("another-long-token", TOKEN)))
    for header in (None, "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer \xe9"):
        headers = {} if header is None else {"authorization": header.encode("latin-1")}
        answer = one(guarded, "GET", "/v1/models", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["code"] == "invalid_api_key"
    good = {"headers": {"authorization": f"bearer {TOKEN}"}}
    paths = ("/v1/models", "/metrics", "/v1/models/tiny")
    assert {a.status_code for a in call(guarded, *(("GET", path, good) for path in paths))} == {200}
    open_paths = ("/health", "/ready", "/", "/openapi.json")
    assert {a.status_code for a in call(guarded, *(("GET", p, {}) for p in open_paths))} == {200}


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
        {"host": "["},
        {"origin": "http://["},
    ],
)
def test_pages_of_other_sites_are_refused(app, headers: dict[str, str]) -> None:
    assert one(app, "POST", GENERATE, json={"prompt": "a"}, headers=headers).status_code == 403


def test_another_sites_name_for_this_machine_is_refused(quick) -> None:
    async def ask_for(host: str) -> int:
        scope_server = httpx.ASGITransport(app=make_app(quick, LIMITS))
        async with httpx.AsyncClient(transport=scope_server, base_url="http://127.0.0.1") as client:
            return (await client.get("/v1/models", headers={"host": host})).status_code

    assert asyncio.run(ask_for("evil.example")) == 403
    assert asyncio.run(ask_for("localhost:8000")) == 200


def test_a_full_queue_says_when_to_come_back(idle) -> None:
    app = make_app(idle, LIMITS)
    Waiter(idle, ask(1, size=(8, 8), count=3))
    answer = one(app, "POST", GENERATE, json={"prompt": "a", "n": 2})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert len(idle._waiting) == 3


def test_a_server_that_ends_and_time_that_is_over_give_503(idle) -> None:
    slow = make_app(idle, make_limits(timeout=0.05))
    answer = one(slow, "POST", GENERATE, json={"prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "timeout")
    (event,) = events(one(slow, "POST", GENERATE, json={"prompt": "a", "stream": True}))
    assert event["error"]["code"] == "timeout"
    assert not len(idle._waiting)
    assert one(slow, "GET", "/ready").status_code == 503
    idle.drain()
    answer = one(slow, "POST", GENERATE, json={"prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
    assert "retry-after" in answer.headers


def leave(app: Any, body: dict[str, Any], wait: Callable[[], Awaitable[None]]) -> list[dict]:
    """Send a request and leave when `wait` returns; what was sent to the client."""
    sent: list[dict] = []

    async def work() -> None:
        parts = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

        async def receive() -> dict:
            if parts:
                return parts.pop()
            await wait()
            return {"type": "http.disconnect"}

        async def send(message: dict) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
        scope = {"type": "http", "method": "POST", "path": GENERATE, "headers": headers}
        scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": ""}
        await app(scope, receive, send)

    asyncio.run(work())
    return sent


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_places(idle, stream: bool) -> None:
    async def until_it_waits() -> None:
        while not len(idle._waiting):
            await asyncio.sleep(0.001)

    leave(make_app(idle, LIMITS), {"prompt": "a", "n": 4, "stream": stream}, until_it_waits)
    assert not len(idle._waiting)
    assert not idle._open


def test_the_page_is_told_what_a_student_takes(distilled) -> None:
    engine = Engine(distilled, batch_size=8, max_queue=4, metrics=Metrics())
    (model,) = one(make_app(engine, LIMITS), "GET", "/v1/models").json()["data"]
    assert (model["steps"], model["fixed_steps"]) == (3, True)
    assert (model["guidance"], model["takes_guidance"]) == (1.0, True)
    assert not model["takes_negative_prompt"]


def test_models_health_and_figures(app) -> None:
    (model,) = one(app, "GET", "/v1/models").json()["data"]
    assert (model["id"], model["sizes"]) == ("tiny", ["8x8", "16x8"])
    assert (model["fixed_steps"], model["takes_guidance"]) == (False, True)
    assert model["takes_negative_prompt"]
    assert one(app, "GET", "/v1/models/tiny").json() == model
    assert one(app, "GET", "/v1/models/other").status_code == 404
    assert one(app, "GET", "/health").json() == {"status": "ok"}
    assert one(app, "GET", "/ready").json() == {"status": "ready"}
    assert one(app, "GET", "/nothing").json()["error"]["code"] == "not_found"
    assert one(app, "GET", GENERATE).status_code == 405
    figures = one(app, "GET", "/metrics").text
    for name in ("imagen_queue_seconds_bucket", "imagen_images_total", "imagen_waiting_images 0.0"):
        assert name in figures
    assert 'imagen_requests_total{path="/v1/models",status="200"}' in figures


def test_the_log_has_no_prompt_and_no_token(quick, caplog) -> None:
    guarded = make_app(quick, make_limits(tokens=(TOKEN,)))
    headers = {"authorization": f"Bearer {TOKEN}"}
    with caplog.at_level(logging.INFO, "imagen_jax.serve"):
        body = {"prompt": "a secret star", "n": 2}
        one(guarded, "POST", f"{GENERATE}?key={TOKEN}", json=body, headers=headers)
    (record,) = (r for r in caplog.records if r.getMessage() == "request")
    about = record.fields
    assert (about["path"], about["status"], about["images"]) == (GENERATE, 200, 2)
    assert "secret" not in str(about)
    assert TOKEN not in str(about)


def test_an_unforeseen_error_is_a_sentence_and_a_log_line(quick, caplog, monkeypatch) -> None:
    def fail() -> bytes:
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(quick.metrics, "text", fail)
    answer = one(make_app(quick, LIMITS), "GET", "/metrics")
    assert answer.status_code == 500
    assert "fire" not in answer.text
    assert "disk on fire" in caplog.text


def test_the_page_asks_nobody_else(app) -> None:
    files = sorted(file.name for file in PAGE.iterdir())
    assert files == ["app.js", "index.html", "mask.js", "png.js", "style.css"]
    for name in files:
        answer = one(app, "GET", "/" if name == "index.html" else f"/{name}")
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "http://" not in answer.text
        assert "https://" not in answer.text
