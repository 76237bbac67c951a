"""The server on a socket: many clients, clients that leave, its end; and the command's refusals."""

import asyncio
import base64
import io
import json
import logging
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from command_line import run_imagen
from PIL import Image
from running_server import RunningServer
from served_images import PATIENCE, Waiter, ask

from imagen_jax.serve import access
from imagen_jax.serve.engine import Engine
from imagen_jax.serve.server import JsonFormatter

GENERATE = "/v1/images/generations"


@pytest.fixture
def running(quick: Engine) -> Iterator[RunningServer]:
    found = RunningServer(quick.imagen)
    yield found
    if not found.server.should_exit:
        found.end()


def images(answer: httpx.Response) -> np.ndarray:
    found = [base64.b64decode(data["b64_json"]) for data in answer.json()["data"]]
    return np.stack([np.asarray(Image.open(io.BytesIO(one))) for one in found])


def test_many_clients_each_get_their_own_images(running, quick) -> None:
    async def work() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=running.address, timeout=PATIENCE) as client:
            bodies = [{"prompt": "a star", "seed": seed, "n": 1 + seed % 3} for seed in range(24)]
            return await asyncio.gather(*(client.post(GENERATE, json=body) for body in bodies))

    answers = asyncio.run(work())
    assert {answer.status_code for answer in answers} == {200}
    for seed, answer in enumerate(answers):
        expected = Waiter(quick, ask(seed, "a star", size=(8, 8), count=1 + seed % 3)).images()
        np.testing.assert_array_equal(images(answer), expected)


def test_clients_that_leave_at_any_moment_leave_nothing_behind(running) -> None:
    draw = random.Random(0)
    host, _, port = running.address.removeprefix("http://").partition(":")

    async def leave() -> None:
        _, writer = await asyncio.open_connection(host, int(port))
        stream = draw.random() < 0.5
        body = json.dumps({"prompt": "a", "n": 8, "num_inference_steps": 900, "stream": stream})
        head = f"POST {GENERATE} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        sent = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        writer.write(sent if draw.random() < 0.8 else sent[: draw.randrange(len(sent))])
        await writer.drain()
        await asyncio.sleep(draw.random() * 0.2)
        writer.transport.abort()

    async def work() -> None:
        await asyncio.gather(*(leave() for _ in range(40)))

    asyncio.run(work())
    engine, until = running.engine, time.monotonic() + PATIENCE
    while (len(engine._waiting) or engine._open or not engine.is_idle) and time.monotonic() < until:
        time.sleep(0.01)
    assert not len(engine._waiting)
    assert not engine._open
    assert engine.is_idle
    answer = httpx.post(f"{running.address}{GENERATE}", json={"prompt": "a"}, timeout=PATIENCE)
    assert answer.status_code == 200


def test_requests_that_are_there_are_answered_at_the_end(running) -> None:
    body = {"prompt": "a", "num_inference_steps": 300, "n": 8}
    answers: list[httpx.Response] = []

    def ask_one() -> None:
        answers.append(httpx.post(f"{running.address}{GENERATE}", json=body, timeout=PATIENCE))

    thread = threading.Thread(target=ask_one)
    thread.start()
    while not running.engine._open:
        time.sleep(0.001)
    running.end()
    thread.join(PATIENCE)
    assert [answer.status_code for answer in answers] == [200]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{running.address}/ready")


def test_a_log_line_is_json() -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "request", None, None)
    record.fields = {"status": 200}
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "request"
    assert line["status"] == 200
    assert line["time"].endswith("Z")


def test_a_port_in_use_is_one_sentence(monkeypatch, capsys) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert run_imagen(monkeypatch, "serve", "shapes", "--port", str(port)) == 1
    assert f"port {port} of 127.0.0.1 is in use: end the other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--host", "0.0.0.0"), "--host 0.0.0.0 is for other machines, too: give --token-file"),
        (("--token-file", "short.txt"), "token 1 must be 16 or more"),
        (("--token-file", "empty.txt"), "has no token: write one a line"),
        (("--token-file", "none.txt"), "No such file"),
        (("--host", "256.0.0.1", "--allow-anyone"), "--host 256.0.0.1 --port 8000 can't be"),
        (("--port", "0"), "from 1 to 65535"),
        (("--timeout", "0"), "above 0"),
    ],
)
def test_the_command_refuses(monkeypatch, capsys, tmp_path: Path, options, says: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("short\n")
    (tmp_path / "empty.txt").write_text("# none\n\n")
    assert run_imagen(monkeypatch, "serve", "shapes", *options) == 1
    assert says in capsys.readouterr().err


def test_tokens_are_read(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("# of the laptop\n0123456789abcdef\n\n  fedcba9876543210 \n")
    assert access.read_tokens(tmp_path / "tokens") == ("0123456789abcdef", "fedcba9876543210")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.0.1"])
def test_loopback(host: str) -> None:
    assert access.is_loopback(host)
    assert not access.is_loopback("0.0.0.0")
    assert not access.is_loopback("example.org")
