"""The server's process: its socket, its signals, and how it ends."""

import asyncio
import contextlib
import errno
import json
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import uvicorn
from sse_starlette.sse import AppStatus
from starlette.types import ASGIApp

from imagen_jax.serve.connections import Connection
from imagen_jax.serve.engine import Engine

BACKLOG = 2048
KEEP_ALIVE = 30  # seconds that an idle connection is kept
LAST_ANSWERS = 5  # seconds in which requests that fail at the end get their answers


class JsonFormatter(logging.Formatter):
    """Each record as one line of JSON. No record has a prompt, a token or a query."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        line = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_stderr() -> None:
    """Write the log of this package's server, and of uvicorn's troubles, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name, level in (("imagen_jax.serve", logging.INFO), ("uvicorn", logging.WARNING)):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(level)


def open_socket(host: str, port: int) -> socket.socket:
    """Bind a socket, before anything long is done. Errors: OSError of one sentence."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
    except OSError as error:
        opened.close()
        if error.errno == errno.EADDRINUSE:
            said = f"port {port} of {host} is in use: end the other server, or give another --port"
        else:
            reason = error.strerror or error
            said = f"--host {host} --port {port} can't be listened to ({reason}): give another"
        raise OSError(said) from error
    opened.listen(BACKLOG)
    return opened


class Server(uvicorn.Server):
    """A server that ends at SIGTERM or Ctrl-C when the requests that it has are answered.

    A second Ctrl-C ends it at once.
    """

    def __init__(self, settings: uvicorn.Config, engine: Engine, *, drain_seconds: float) -> None:
        super().__init__(settings)
        self._engine = engine
        # What is not finished then fails, so that it has an answer.
        self._late = threading.Timer(drain_seconds, engine.stop)
        self._late.daemon = True

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer requests until a signal, then those that are there."""
        try:
            super().run(sockets)
        finally:
            self._late.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the block runs; they don't end the process after it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        if not self.should_exit:
            self._engine.drain()
            self._late.start()
        self.should_exit = True


def make_server(app: ASGIApp, engine: Engine, *, drain_seconds: float) -> Server:
    """A server for `run([socket])`, which returns after a signal.

    The requests that are there then have `drain_seconds` to be finished; later they fail.
    """
    AppStatus.disable_automatic_graceful_drain()  # a stream ends with its last image
    settings = uvicorn.Config(
        app,
        http=Connection,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=round(drain_seconds) + LAST_ANSWERS,
    )
    return Server(settings, engine, drain_seconds=drain_seconds)
