"""The compiler's time is believed only where the chip could keep it."""

from types import SimpleNamespace

import pytest

from imagen_jax.parallel import accelerators
from imagen_jax.plan import roofline

V5E = accelerators.TPUS["v5e"]


def _compiled(
    seconds: float | None, *, flops: float = 1.97e12, moved: float = 0.82e9, more: str = ""
) -> object:
    """A program of 10 ms of compute and 1 ms of memory on a v5e."""
    cost = {"flops": flops, "bytes accessed": moved}
    if seconds is not None:
        cost["optimal_seconds"] = seconds
    memory = SimpleNamespace(
        argument_size_in_bytes=4 * 2**30,
        output_size_in_bytes=4 * 2**30,
        alias_size_in_bytes=3 * 2**30,
        temp_size_in_bytes=10 * 2**30,
    )
    text = "  %x = f32[1000000]{0} all-reduce(%p)" + more
    return SimpleNamespace(
        memory_analysis=lambda: memory, cost_analysis=lambda: cost, as_text=lambda: text
    )


def test_roofline_and_memory() -> None:
    found = roofline.estimate(_compiled(0.02), V5E)
    assert found.roofline.compute == pytest.approx(0.010)
    assert found.roofline.memory == pytest.approx(0.001)
    assert found.roofline.network == pytest.approx(2 * 4e6 / (4 * 45e9))
    assert found.roofline.binds == "compute"
    assert (found.seconds, found.refused) == (0.02, "")
    assert found.memory.total == 15 * 2**30
    assert found.memory.fits


def test_a_program_that_is_too_large_does_not_fit() -> None:
    compiled = _compiled(0.02)
    compiled.memory_analysis().temp_size_in_bytes += 2 * 2**30
    assert not roofline.estimate(compiled, V5E).memory.fits


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (0.009, "9.0 ms are below the roofline, 10.0 ms of compute"),
        (-1994.0, "below the roofline"),
        (None, "gave no time"),
    ],
)
def test_times_below_the_roofline_are_refused(seconds: float | None, says: str) -> None:
    found = roofline.estimate(_compiled(seconds), V5E)
    assert found.seconds is None
    assert says in found.refused


def test_a_memory_bound_holds_too() -> None:
    found = roofline.estimate(_compiled(0.015, moved=16.4e9), V5E)
    assert found.seconds is None
    assert "20.0 ms of memory" in found.refused


def test_loops_are_not_timed_and_count_all_their_work() -> None:
    loop = "\n  %y = (s32[], f32[8]{0}) while(%x), condition=%c, body=%b"
    found = roofline.estimate(_compiled(0.02, flops=1e12, more=loop), V5E, flops=3.94e12)
    assert found.seconds is None
    assert "loop" in found.refused
    assert found.roofline.compute == pytest.approx(0.020)


def test_calls_one_after_another_take_their_sum_and_no_more_memory() -> None:
    once = roofline.estimate(_compiled(0.02), V5E)
    found = once.times(3, memory=once.memory)
    assert found.seconds == pytest.approx(0.06)
    assert found.flops == pytest.approx(3 * 1.97e12)
    assert found.roofline.bound == pytest.approx(0.030)
    assert found.traffic["all-reduce"].payload == 12_000_000
    assert found.memory == once.memory


def test_a_chip_of_two_devices_shares_its_peak() -> None:
    chip = accelerators.TPUS["tpu7x"]
    found = roofline.estimate(_compiled(0.02), chip)
    assert found.roofline.compute == pytest.approx(2 * 1.97e12 / chip.peak_flops)
    assert found.memory.capacity == chip.hbm_bytes / 2
