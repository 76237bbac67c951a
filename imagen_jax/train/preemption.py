"""Notice that this machine is about to be taken away: SIGTERM, or what Google Cloud's server says.

Several processes have to stop after the same step. There jax's own service takes the signal of any
of them and agrees on a step with all; alone, a flag is enough.
"""

import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils

NOTICE = "/computeMetadata/v1/instance/preempted?wait_for_change=true&timeout_sec=60"
PATIENCE = 90  # seconds until a request counts as lost


class Watch:
    """Whether to stop; made by `watch`."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def ask(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Stop after the present step; asking again changes nothing."""
        self._asked.set()

    def is_asked(self) -> bool:
        """Whether this process, alone, was asked to stop."""
        return self._asked.is_set()

    def reached(self, step: int) -> bool:
        """Whether every process is to stop after this step; to be called by all, at every step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.is_asked()


@contextmanager
def watch(server: str | None = None) -> Iterator[Watch]:
    """Listen until the block ends; in the main thread, as signals need.

    `server` is the host of Google Cloud's metadata server, where there is one.
    """
    found, ended = Watch(), threading.Event()
    before = None
    if jax.process_count() == 1:  # else jax's service has the signal
        before = signal.signal(signal.SIGTERM, found.ask)
    if server is not None:
        threading.Thread(
            target=_listen, args=(server, ended), name="preemption notice", daemon=True
        ).start()
    try:
        yield found
    finally:
        ended.set()
        if before is not None:
            # Once asked this process is ending, and another signal must not change how it ends.
            asked = found.is_asked()
            signal.signal(signal.SIGTERM, signal.SIG_IGN if asked else before)


def _listen(host: str, ended: threading.Event) -> None:
    """Ask the metadata server, which answers when something changes, and pass a notice on."""
    request = urllib.request.Request(
        f"http://{host}{NOTICE}", headers={"Metadata-Flavor": "Google"}
    )
    while not ended.is_set():
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                if answer.read().strip() == b"TRUE" and not ended.is_set():
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            ended.wait(5.0)
