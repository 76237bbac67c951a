"""The watchdog, with a clock in our hands."""

import time
from pathlib import Path

import pytest

from imagen_jax.runtime import watchdog


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dog(tmp_path: Path, clock: Clock) -> watchdog.Watchdog:
    return watchdog.Watchdog(tmp_path / watchdog.STACKS, clock=clock)


def _steps(dog: watchdog.Watchdog, clock: Clock, *took: float) -> None:
    for seconds in took:
        clock.now += seconds
        dog.beat()


def _stalls(dog: watchdog.Watchdog, capfd: pytest.CaptureFixture[str]) -> int:
    dog.check()
    return capfd.readouterr().err.count("a step has taken")


def test_nothing_is_said_before_the_first_step_has_ended(dog, clock, capfd) -> None:
    clock.now += 5000  # it compiles
    assert _stalls(dog, capfd) == 0
    assert not dog.file.exists()


def test_a_stall_is_said_once_with_all_stacks(dog, clock, capfd) -> None:
    _steps(dog, clock, 300.0, 2.0, 2.0, 2.0)
    clock.now += 59.9
    assert _stalls(dog, capfd) == 0  # ten times as long as usual, but not a minute
    clock.now += 0.1
    dog.check()
    said = capfd.readouterr().err
    assert "a step has taken 60 s so far, usually it takes 2 s" in said
    for text in (said, dog.file.read_text()):
        assert "test_a_stall_is_said_once_with_all_stacks" in text  # this very frame
    clock.now += 1000
    assert _stalls(dog, capfd) == 0
    _steps(dog, clock, 1.0)
    clock.now += 60
    assert _stalls(dog, capfd) == 1  # the next stall
    assert dog.file.read_text().count("a step has taken") == 2


def test_slow_steps_are_allowed_to_be_slow(dog, clock, capfd) -> None:
    _steps(dog, clock, 1.0, 20.0, 20.0, 400.0)  # the last, with a save, is no measure
    clock.now += 199
    assert _stalls(dog, capfd) == 0
    clock.now += 1
    assert _stalls(dog, capfd) == 1


def test_a_full_disk_does_not_keep_it_from_speaking(dog, clock, capfd) -> None:
    dog.file.mkdir()
    _steps(dog, clock, 1.0)
    clock.now += 60
    assert _stalls(dog, capfd) == 1


def test_its_thread_looks_until_it_is_closed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(watchdog, "INTERVAL", 0.005)
    monkeypatch.setattr(watchdog, "LEAST", 0.0)
    dog = watchdog.start_watchdog(tmp_path)
    dog.beat()
    deadline = time.monotonic() + 20
    while not (tmp_path / watchdog.STACKS).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    dog.close()
    assert "a step has taken" in (tmp_path / watchdog.STACKS).read_text()
