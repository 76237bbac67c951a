"""The server on a socket: many clients, clients that leave, its end; and the command's refusals."""

import asyncio
import base64
import contextlib
import gc
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

from imagen_jax.serve import access, settings
from imagen_jax.serve.answers import Answer
from imagen_jax.serve.engine import Engine
from imagen_jax.serve.image_request import Ticket
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


async def leave(address: str, draw: random.Random) -> None:
    """Ask for images, perhaps not to the end, and leave at some moment."""
    host, _, port = address.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    stream = draw.random() < 0.5
    body = json.dumps({"prompt": "a", "n": 8, "num_inference_steps": 900, "stream": stream})
    head = f"POST {GENERATE} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    sent = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    writer.write(sent if draw.random() < 0.8 else sent[: draw.randrange(len(sent))])
    await writer.drain()
    await asyncio.sleep(draw.random() * 0.2)
    writer.transport.abort()


def count_kept() -> int:
    """The requests that somebody holds in memory."""
    gc.collect()
    return sum(isinstance(x, Answer | Ticket) for x in gc.get_objects())


def wait_until_empty(running: RunningServer) -> None:
    """Wait until no connection, task, request and image is left, and the devices are idle."""
    engine, state, until = running.engine, running.server.server_state, time.monotonic() + PATIENCE
    left = [engine._waiting, engine._open, state.tasks, state.connections]
    while any(map(len, left)) or not engine.is_idle:
        assert time.monotonic() < until, f"left behind: {left}, idle: {engine.is_idle}"
        time.sleep(0.01)


@pytest.mark.parametrize("clients", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_clients_that_leave_at_any_moment_leave_nothing_behind(running, clients: int) -> None:
    draw, kept = random.Random(0), count_kept()

    async def work() -> None:
        for start in range(0, clients, 50):
            group = range(start, min(start + 50, clients))
            await asyncio.gather(*(leave(running.address, draw) for _ in group))

    asyncio.run(work())
    wait_until_empty(running)
    assert count_kept() == kept
    answer = httpx.post(f"{running.address}{GENERATE}", json={"prompt": "a"}, timeout=PATIENCE)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"", b""),
        (b"POST / HTTP/1.1\r\nHost: a\r\n", b""),
        (
            b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
            b"Content-Type: application/json\r\n\r\n{",
            b"HTTP/1.1 408",
        ),
    ],
)
def test_clients_that_are_slow_are_left(running, monkeypatch, head: bytes, says: bytes) -> None:
    """Letter by letter, for ever; others are answered."""
    monkeypatch.setattr(settings, "HEADER_SECONDS", 0.3)
    monkeypatch.setattr(settings, "BODY_SECONDS", 0.3)
    host, _, port = running.address.removeprefix("http://").partition(":")

    async def drip(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while head:
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(0.02)

    async def one() -> bytes:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head)
        dripping = asyncio.ensure_future(drip(writer))
        found = b""
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(1000):
                found += part
        dripping.cancel()
        writer.close()
        return found

    async def work() -> None:
        slow = asyncio.gather(*(one() for _ in range(20)))
        async with httpx.AsyncClient(base_url=running.address, timeout=PATIENCE) as client:
            assert (await client.get("/health")).status_code == 200
        async with asyncio.timeout(PATIENCE):
            found = await slow
        assert {answer[: len(says)] for answer in found} == {says}
        assert all(answer for answer in found) == bool(says)

    asyncio.run(work())
    wait_until_empty(running)


@pytest.mark.parametrize(
    ("times", "reads"),
    [(200, True), (200, False), (4, False)],
    ids=["slow", "never", "never the last of it"],
)
def test_a_client_that_reads_nothing_is_left_and_a_slow_one_is_not(
    running, monkeypatch, times: int, reads: bool
) -> None:
    """Of 200 answers at once the server stops writing; 4 are written, and wait to be read."""
    monkeypatch.setattr(settings, "UNREAD_SECONDS", 0.3)
    running.server.config.timeout_keep_alive = 0.3
    host, _, port = running.address.removeprefix("http://").partition(":")
    expected = times * len(httpx.get(f"{running.address}/app.js").content)
    with running.small_buffers(), socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE)
        client.connect((host, int(port)))
        client.sendall(f"GET /app.js HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() * times)
        found, until = 0, time.monotonic() + PATIENCE
        while reads and found < expected:
            found += len(client.recv(1 << 16))
            time.sleep(0.002)
        time.sleep(0.1)
        while running.server.server_state.connections:
            time.sleep(0.01)
            assert time.monotonic() < until
    assert (found >= expected) == reads
    wait_until_empty(running)


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
