"""Connections on which a request comes too slowly, or none: they are closed (slow loris).

uvicorn closes those that are idle after an answer; a body has its own time (`uploads.py`).
"""

from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from imagen_jax.serve import settings


class Connection(H11Protocol):
    """A connection that has `settings.HEADER_SECONDS` for the head of each request.

    So long it may also send what is left of a body after its answer.
    """

    _until: Any = None  # a handle of the loop's, which may be uvloop's, as transports are

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request, and wait for the rest of its head."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._until is None and not self.transport.is_closing():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._until = self.loop.call_later(settings.HEADER_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._until is not None:
            self._until.cancel()
            self._until = None
