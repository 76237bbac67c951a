"""The goodput: every second is in one part or in steps."""

import pytest

from imagen_jax.train.goodput import GoodputTracker


class Clock:
    """Time that passes when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_every_second_has_its_place() -> None:
    clock = Clock()
    goodput = GoodputTracker(clock)
    with goodput.spend("data"):
        clock.now += 5
    clock.now += 15
    goodput.end_start()
    assert goodput.seconds == {"start": 20.0, "data": 0.0, "save": 0.0, "hooks": 0.0}
    for part, seconds in (("data", 1.0), ("save", 3.0), ("data", 2.0), ("hooks", 4.0)):
        with goodput.spend(part):
            clock.now += seconds
        clock.now += 17.5
    assert goodput.seconds == {"start": 20.0, "data": 3.0, "save": 3.0, "hooks": 4.0}
    assert goodput.total == 100.0
    assert goodput.goodput == pytest.approx(0.7)
    assert goodput.shares() == pytest.approx(
        {"time/data": 3 / 80, "time/save": 3 / 80, "time/hooks": 4 / 80}
    )
    assert goodput.summary().startswith(
        "70.0% of 01:40 was spent in steps (start 00:20, data 00:03"
    )


def test_a_start_that_took_long_is_told_with_its_time() -> None:
    clock = Clock()
    goodput = GoodputTracker(clock)
    clock.now += 9
    goodput.end_start()
    assert goodput.describe_start() == ""
    clock.now += 66
    goodput.end_start()
    assert goodput.describe_start() == "compiled: the first step is done after 01:15"


def test_a_part_that_fails_is_counted() -> None:
    clock = Clock()
    goodput = GoodputTracker(clock)
    with pytest.raises(OSError, match="disk"):
        _save(goodput, clock)
    assert goodput.seconds["save"] == 2.0
    assert goodput.goodput == 0.0


def _save(goodput: GoodputTracker, clock: Clock) -> None:
    with goodput.spend("save"):
        clock.now += 2
        raise OSError("disk full")
