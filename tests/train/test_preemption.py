"""Wishes to stop: SIGTERM and Ctrl-C."""

import os
import signal
from collections.abc import Iterator

import pytest

from imagen_jax.runtime import exit_codes, preemption


@pytest.fixture(autouse=True)
def _heeded() -> Iterator[None]:
    """SIGINT is ignored in what a shell starts in the background, and stays so."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_first_interrupt_stops_and_the_second_ends_at_once(capfd) -> None:
    with preemption.watch_for_preemption() as watch:
        assert not watch.stops_after(1)
        os.kill(os.getpid(), signal.SIGINT)
        assert watch.stops_after(2)
        assert "saving; press Ctrl-C again to stop at once" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_was_saved_is_said_with_the_code_of_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt, match="saved at step 3"):
        _stopped_by(signal.SIGINT)
    with pytest.raises(exit_codes.Preempted):
        _stopped_by(signal.SIGTERM)


def _stopped_by(number: int) -> None:
    with preemption.watch_for_preemption():
        os.kill(os.getpid(), number)
        raise exit_codes.Preempted("saved at step 3")


def test_an_interrupt_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with preemption.watch_for_preemption() as watch:
        os.kill(os.getpid(), signal.SIGINT)
        assert not watch.stops_after(1)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
