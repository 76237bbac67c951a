"""Notice a wish to stop: SIGTERM, what Google Cloud's server says, or Ctrl-C.

Several processes have to stop after the same step. There jax's own service takes the signal of any
of them and agrees on a step with all; alone, a flag is enough. A second Ctrl-C ends at once.
"""

import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import jax
from jax.experimental import multihost_utils

from imagen_jax.io import atomic
from imagen_jax.runtime import exit_codes, late_signals

NOTICE = "/computeMetadata/v1/instance/preempted?wait_for_change=true&timeout_sec=60"
REQUEST_TIMEOUT = 90  # seconds until a request counts as lost
UNFINISHED = "unfinished"  # subfolder for batches that are done, until all are
PATIENCE = 20.0  # seconds from SIGTERM until a process ends that comes to no end of a batch


class PreemptionWatch:
    """A request to stop; made by `watch_for_preemption`.

    While `at_once` is a sentence, a signal ends the block with it, wherever the main thread is.
    """

    def __init__(self, at_once: str = "") -> None:
        self._asked = threading.Event()
        self.interrupted = False
        self.at_once = at_once

    def ask(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Stop after the present step; asking again changes nothing.

        Errors: Preempted, of `exit_codes`, while `at_once` says so.
        """
        self._asked.set()
        said, self.at_once = self.at_once, ""
        if said:
            raise exit_codes.Preempted(said)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """The first Ctrl-C stops as SIGTERM does; the second one, at once."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.interrupted = True
        if not self.at_once:
            os.write(2, b"\nsaving; press Ctrl-C again to stop at once, unsaved\n")
        if jax.process_count() == 1:
            self.ask()
        else:
            os.kill(os.getpid(), signal.SIGTERM)  # to jax's service

    def is_asked(self) -> bool:
        """Return whether this process, alone, was asked to stop."""
        return self._asked.is_set()

    def stops_after(self, step: int) -> bool:
        """Return whether all processes stop after this step; to be called by all, at every step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.is_asked()


@contextmanager
def watch_for_preemption(
    server: str | None = None, *, at_once: str = ""
) -> Iterator[PreemptionWatch]:
    """Listen until the block ends; in the main thread, as signals need.

    `server` is the host of Google Cloud's metadata server, where there is one. `at_once` is as in
    `PreemptionWatch`, of a process that is alone.
    Errors: KeyboardInterrupt, with its words, in place of exit_codes.Preempted after Ctrl-C.
    """
    alone = jax.process_count() == 1
    found, ended = PreemptionWatch(at_once if alone else ""), threading.Event()
    before = interrupt = None
    if alone:  # else jax's service has the signal
        before = signal.signal(signal.SIGTERM, found.ask)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # ignored in the background
        interrupt = signal.signal(signal.SIGINT, found.interrupt)
    if server is not None:
        threading.Thread(
            target=_listen, args=(server, ended), name="preemption notice", daemon=True
        ).start()
    try:
        yield found
    except exit_codes.Preempted as stop:
        if found.interrupted:
            raise KeyboardInterrupt(str(stop)) from None
        raise
    finally:
        ended.set()
        if interrupt is not None:
            signal.signal(signal.SIGINT, interrupt)
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
            with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT) as answer:
                if answer.read().strip() == b"TRUE" and not ended.is_set():
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            ended.wait(5.0)


@contextmanager
def watch_between_batches(
    unfinished: Path, server: str | None = None, *, kept: str = "the images so far"
) -> Iterator[Callable[[], None]]:
    """A function to call after each batch.

    `server` is as in `watch_for_preemption`; `kept` names what is in `unfinished`.
    A process that comes to no end of a batch within `PATIENCE`, since a network is built, compiled
    or slow, is ended with the same exit code; the batch under way is lost.
    Errors: exit_codes.Preempted once this process is asked to stop; the batches are in
    `unfinished`. ValueError where that is a link.
    """
    atomic.check_no_link(unfinished)
    again = "give the same command again, which resumes"
    said = f"asked to stop; {kept} are kept in {unfinished}: {again}"
    # Signals of several processes are those of jax's service.
    patience = PATIENCE if jax.process_count() == 1 else None
    with (
        watch_for_preemption(server) as watch,
        late_signals.end_late(said, patience=patience),
    ):

        def check() -> None:
            if watch.stops_after(0):
                raise exit_codes.Preempted(said)

        yield check
