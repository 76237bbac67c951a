"""Bodies of any kind: no status 500, and no answer that is not a refusal of this server's."""

import asyncio
import io
import json
import os
import string
import struct
import sys
import zlib
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
from imagen_jax.serve.settings import JSON_BYTES, Settings

LIMITS = Settings(model="tiny", sizes=((8, 8),), max_pixels=640, max_steps=9, timeout=0.001)
MANY = int(os.environ.get("FUZZ_INPUTS", "100000"))
STATUSES = {400, 404, 413, 422, 503}  # 503: what is accepted waits for an engine that never runs

SECRET = "/etc/passwd"  # a path that clients name
OPENED: list[str] = []  # paths that a request opened


def hear(event: str, arguments: tuple[Any, ...]) -> None:
    """Note each file that Python opens."""
    if event == "open":
        OPENED.append(str(arguments[0]))


sys.addaudithook(hear)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        [
            "8x8",
            "auto",
            "png",
            "tiny",
            "true",
            "\x00",
            "1e400",
            SECRET,
            f"../..{SECRET}",
            f"file://{SECRET}",
        ]
    )
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


def bomb(kind: str) -> bytes:
    """A small file of many pixels, or with a text or a profile of many bytes."""
    if kind == "pixels":
        file = io.BytesIO()
        Image.new("L", (4000, 4000)).save(file, "PNG")
        return file.getvalue()
    name, start = (b"zTXt", b"a\0\0") if kind == "text" else (b"iCCP", b"a\0\0")
    data = name + start + zlib.compress(bytes(1 << 26))
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    return PNG[:33] + chunk + PNG[33:]


def other_format(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    return file.getvalue()


BOMBS = [bomb(kind) for kind in ("pixels", "text", "profile")]
FORMATS = [
    other_format(kind) for kind in ("GIF", "TIFF", "BMP", "ICO", "PPM", "TGA", "PCX", "WEBP")
]
LONG = b'{"prompt": "a", "n": %b}', b'{"prompt": "%b"}', b'{"%b": 1}', b'{"prompt": "a", "n": [%b]}'


@st.composite
def damaged(draw: Any) -> bytes:
    """A PNG with some bytes changed, or cut short, a bomb, another format, or no image at all."""
    kind = draw(st.sampled_from(["changed", "cut", "other", "bomb", "format"]))
    if kind == "bomb":
        return draw(st.sampled_from(BOMBS))
    if kind == "format":
        return draw(st.sampled_from(FORMATS))
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
    st.integers(1, 3000).map(lambda depth: b'{"a":' * depth),
    st.tuples(st.sampled_from(LONG), st.integers(0, 21)).map(lambda x: x[0] % (b"9" * 2 ** x[1])),
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

    OPENED.clear()
    answer = asyncio.run(work())
    assert not [path for path in OPENED if SECRET in path]
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
            f'; filename="{SECRET}"'.encode(),
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


@pytest.mark.parametrize(
    "body",
    [
        b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n' + b"a" * (JSON_BYTES + 1),
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 50,
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n\r\n' * 9,
        b"--x\r\n" + b"a" * 100_000,
        b"--x\r\n" + b"A: b\r\n" * 10_000,
        b"\r\n" * 100_000,
    ],
)
def test_large_forms_are_refused(app: Any, body: bytes) -> None:
    check_raw_form(app, body + b"\r\n--x--\r\n")


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
