"""Connections on which a request comes too slowly, or none, or whose answers nobody reads.

They are closed: those that send slowly (slow loris), and those that keep an answer in memory.
uvicorn closes those that are idle after an answer; a body has its own time (`uploads.py`).
"""

from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from imagen_jax.serve import settings


class Connection(H11Protocol):
    """A connection that has `settings.HEADER_SECONDS` for the head of each request.

    So long it may also send what is left of a body after its answer. Of an answer that is larger
    than the system's buffers something has to be read in each `settings.UNREAD_SECONDS`.
    """

    _until: Any = None  # a handle of the loop's, which may be uvloop's, as transports are
    _unread: Any = None  # another: until something is read

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
        self._stop_watching()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Continue: the client has read."""
        self._stop_watching()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close, as nothing was asked for."""
        super().timeout_keep_alive_handler()
        self._abort_later()

    def _close(self) -> None:
        self.transport.close()
        self._abort_later()

    def _abort_later(self) -> None:
        """What is closed waits for the client to read the rest, which it may never do."""
        self._stop_watching()
        self._unread = self.loop.call_later(settings.UNREAD_SECONDS, self.transport.abort)

    def _watch(self, unread: int) -> None:
        self._unread = self.loop.call_later(settings.UNREAD_SECONDS, self._check, unread)

    def _check(self, before: int) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread < before:
            self._watch(unread)
        else:
            self.transport.abort()  # to close it would wait for the client

    def _stop_watching(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _wait(self) -> None:
        self._until = self.loop.call_later(settings.HEADER_SECONDS, self._close)

    def _stop_waiting(self) -> None:
        if self._until is not None:
            self._until.cancel()
            self._until = None
