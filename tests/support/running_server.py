"""A server on a socket of this machine, in a thread of the test's process."""

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from served_images import PATIENCE

from imagen_jax.imagen import Imagen
from imagen_jax.serve.api import make_app
from imagen_jax.serve.engine import Engine
from imagen_jax.serve.metrics import Metrics
from imagen_jax.serve.server import Server, make_server, open_socket
from imagen_jax.serve.settings import Settings


class RunningServer:
    """A server with an engine of its own, until `end`."""

    def __init__(self, imagen: Imagen, **limits: Any) -> None:
        side = imagen.stages[-1].stage.size
        given = {"model": "tiny", "sizes": ((side, side),), "max_pixels": 2**16, "max_steps": 1000}
        self.engine = Engine(imagen, batch_size=8, max_queue=2000, metrics=Metrics())
        self.engine.start()
        self._socket = open_socket("127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        app = make_app(self.engine, Settings(**{**given, "timeout": float(PATIENCE), **limits}))
        self.server: Server = make_server(app, self.engine, drain_seconds=60.0)
        self._thread = threading.Thread(target=self.server.run, args=([self._socket],))
        self._thread.start()

    @contextlib.contextmanager
    def small_buffers(self) -> Iterator[None]:
        """For connections from here on the system keeps little of what is written."""
        before = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        yield
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, before // 2)

    def end(self) -> None:
        """End it as SIGTERM does."""
        self.server.handle_exit(signal.SIGTERM, None)
        self._thread.join(PATIENCE)
        self.engine.stop()
        self._socket.close()
        assert not self._thread.is_alive()
