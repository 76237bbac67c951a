"""Bodies of any kind: no status 500, and no answer that is not a refusal of this server's."""

import asyncio
import json
import os
import string
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from imagen_jax.io.png_metadata import encode_png
from imagen_jax.serve.api import make_app
from imagen_jax.serve.engine import Engine
from imagen_jax.serve.fields import NAMES
from imagen_jax.serve.metrics import Metrics
from imagen_jax.serve.settings import Settings

LIMITS = Settings(model="tiny", sizes=((8, 8),), max_pixels=640, max_steps=9, timeout=0.001)
MANY = int(os.environ.get("FUZZ_INPUTS", "100000"))
STATUSES = {400, 404, 413, 422, 503}  # 503: what is accepted waits for an engine that never runs

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["8x8", "auto", "png", "tiny", "true", "\x00", "../../etc/passwd", "1e400"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
names = st.sampled_from(NAMES) | st.text(max_size=8)
objects = st.fixed_dictionaries({"prompt": st.text(max_size=30) | values}).flatmap(
    lambda first: st.dictionaries(names, values, max_size=5).map(lambda rest: {**rest, **first})
)
PNG = encode_png(Image.new("RGBA", (8, 8)), {"prompt": "a"})


@st.composite
def damaged(draw: Any) -> bytes:
    """A PNG with some bytes changed, or cut short, or no PNG at all."""
    kind = draw(st.sampled_from(["changed", "cut", "other"]))
    if kind == "other":
        return draw(st.binary(max_size=64))
    if kind == "cut":
        return PNG[: draw(st.integers(0, len(PNG)))]
    data = bytearray(PNG)
    for place in draw(st.lists(st.integers(0, len(PNG) - 1), min_size=1, max_size=4)):
        data[place] = draw(st.integers(0, 255))
    return bytes(data)


bodies = st.one_of(
    objects.map(lambda found: json.dumps(found).encode()),
    st.binary(max_size=64),
    st.tuples(objects, st.integers(0, 200)).map(lambda x: json.dumps(x[0]).encode()[: x[1]]),
    st.integers(1, 3000).map(lambda depth: b'{"prompt":' + b"[" * depth),
)
letters = st.text(string.ascii_letters + string.digits, max_size=12)
forms = st.tuples(
    st.dictionaries(names.filter(bool), letters | st.text(max_size=9), max_size=5),
    st.dictionaries(
        st.sampled_from(["image", "mask", "image[]", "prompt", "x"]), damaged(), max_size=3
    ),
)


@pytest.fixture(scope="module")
def app(quick: Engine) -> Any:
    idle = Engine(quick.imagen, batch_size=8, max_queue=8, metrics=Metrics())
    return make_app(idle, LIMITS)


def post(app: Any, path: str, **request: Any) -> None:
    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post(f"/v1/images/{path}", **request)

    answer = asyncio.run(work())
    if answer.headers["content-type"].startswith("text/event-stream"):
        assert '"timeout"' in answer.text
        return
    assert answer.status_code in STATUSES, answer.text
    error = answer.json()["error"]
    assert error["message"]
    assert "Traceback" not in answer.text


def check_body(app: Any, body: bytes) -> None:
    post(app, "generations", content=body, headers={"content-type": "application/json"})


def check_form(app: Any, form: tuple[dict[str, str], dict[str, bytes]]) -> None:
    data, files = form
    post(app, "edits", data=data, files=files if files else {"nothing": b"", **files})


def check_raw_form(app: Any, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    post(app, "edits", content=body.replace(b"|", b"\r\n--x\r\n"), headers=headers)


RAW = st.lists(
    st.sampled_from(
        [
            b"|",
            b"--x",
            b"--x--",
            b"\r\n",
            b"\r\n\r\n",
            b"Content-Disposition: form-data",
            b'; name="image"',
            b'; name="prompt"',
            b'; filename="/etc/passwd"',
            b": ",
            b"\x00",
            b"\xff",
            b"a",
            b"; name*=a",
            PNG,
        ]
    ),
    max_size=14,
).map(b"".join)


@given(body=bodies)
def test_no_body_is_an_error_of_the_server(app: Any, body: bytes) -> None:
    check_body(app, body)


@given(form=forms)
def test_no_form_is_an_error_of_the_server(app: Any, form: Any) -> None:
    check_form(app, form)


@given(body=RAW)
def test_no_parts_of_a_form_are_an_error_of_the_server(app: Any, body: bytes) -> None:
    check_raw_form(app, body)


@pytest.mark.fuzz
@pytest.mark.parametrize("what", ["body", "form", "raw"])
def test_many_more(app: Any, what: str) -> None:
    checks = {
        "body": (check_body, bodies),
        "form": (check_form, forms),
        "raw": (check_raw_form, RAW),
    }
    check, inputs = checks[what]
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

    @settings(
        max_examples=MANY // 3,
        derandomize=False,
        database=None,
        deadline=None,
        suppress_health_check=slow,
    )
    @given(found=inputs)
    def run(found: Any) -> None:
        check(app, found)

    run()
