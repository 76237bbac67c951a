"""What a run tells of itself: norms, speed, profiles."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.parallel import accelerators
from imagen_jax.train import norms, profiler, progress, train_metrics

TREE = {"stem": {"kernel": jnp.full((3, 4), 2.0)}, "head": [jnp.ones(5), jnp.full(2, -3.0)]}


def test_norms_of_the_parts_make_the_norm_of_all() -> None:
    found = norms.group_norms("grad_norm", TREE)
    assert set(found) == {"grad_norm", "grad_norm/stem", "grad_norm/head"}
    np.testing.assert_allclose(found["grad_norm/stem"], np.sqrt(12 * 4.0), rtol=1e-6)
    np.testing.assert_allclose(found["grad_norm/head"], np.sqrt(5 + 2 * 9.0), rtol=1e-6)
    np.testing.assert_allclose(found["grad_norm"], np.sqrt(48 + 23.0), rtol=1e-6)


def test_the_distance_of_the_average_is_a_share_of_the_weights() -> None:
    averaged = jax.tree.map(lambda x: 0.75 * x, TREE)
    found = norms.state_norms(TREE, averaged)
    np.testing.assert_allclose(found["ema_distance"], 0.25, rtol=1e-6)
    np.testing.assert_allclose(found["param_norm"], np.sqrt(48 + 23.0), rtol=1e-6)
    assert float(norms.state_norms(TREE, TREE)["ema_distance"]) == 0.0


def _device(kind: str, memory: dict[str, int] | None, process: int = 0) -> Any:
    return SimpleNamespace(device_kind=kind, process_index=process, memory_stats=lambda: memory)


@pytest.mark.parametrize(("kind", "name"), [("TPU v5 lite", "v5e"), ("TPU7x", "tpu7x")])
def test_mfu_is_the_models_work_over_the_chips_peak(kind: str, name: str) -> None:
    chip = accelerators.TPUS[name]
    devices = [_device(kind, {"bytes_in_use": 2**30, "peak_bytes_in_use": 2**31})] * 8
    images_per_s = 0.4 * chip.peak_flops * (8 / chip.devices) / 1e12
    found = train_metrics.Throughput(1e12, devices).metrics(images_per_s)
    assert found["mfu"] == pytest.approx(0.4)
    assert found["tflops_per_device"] == pytest.approx(images_per_s / 8)
    assert (found["memory_gib"], found["memory_peak_gib"]) == (1.0, 2.0)


def test_of_the_devices_here_the_fullest_counts() -> None:
    devices = [
        _device("TPU v4", {"bytes_in_use": gib * 2**30}, process)
        for gib, process in ((1, 0), (3, 0), (9, 1))
    ]
    found = train_metrics.Throughput(1.0, devices).metrics(1.0)
    assert found["memory_gib"] == 3.0
    assert "memory_peak_gib" not in found


def test_what_a_device_does_not_tell_is_left_out() -> None:
    found = train_metrics.Throughput(1e9, jax.devices()).metrics(16.0)
    assert set(found) == {"tflops_per_device"}
    assert found["tflops_per_device"] == pytest.approx(16e9 / 8 / 1e12)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("100", "give FIRST:STOP, such as 100:105"),
        ("5:5", "give FIRST:STOP"),
        ("a:b", "give FIRST:STOP"),
        ("-3:5", "give FIRST:STOP"),
        ("1:5", "step 1 compiles; begin with 2"),
        ("8:12", "the run ends with step 10"),
    ],
)
def test_steps_that_cannot_be_traced_are_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"--profile-steps {text}: .*{says}"):
        profiler.parse_window(text, last=10)


def test_steps_are_read_as_python_reads_them() -> None:
    assert profiler.parse_window("8:11", last=10) == range(8, 11)


class _Told:
    def __init__(self, folder: Any) -> None:
        self.folder, self.said = folder, []

    def info(self, sentence: str) -> None:
        self.said.append(sentence)


def test_a_profile_holds_the_steps_that_were_asked_for(tmp_path: Any) -> None:
    told, profile = _Told(tmp_path), profiler.ProfileWindow(range(3, 5))
    for step in range(1, 8):
        with jax.profiler.TraceAnnotation(f"this is step {step}"):
            profile_input = jnp.ones(step) * 2
        profile(step, profile_input, told)
    (file,) = (tmp_path / "profile").rglob("*.xplane.pb")
    raw = file.read_bytes()
    for step in range(1, 8):
        assert (f"this is step {step}".encode() in raw) == (step in (3, 4))
    assert told.said == ["steps 3 to 4 are traced, in profile/ of this run"]


def test_a_start_past_the_steps_says_so_once(tmp_path: Any) -> None:
    told, profile = _Told(tmp_path), profiler.ProfileWindow(range(3, 5))
    for step in range(4, 8):
        profile(step, jnp.ones(1), told)
    assert len(told.said) == 1
    assert (
        "--profile-steps 3:5: nothing is traced, as this start begins with step 4" in told.said[0]
    )
    assert not (tmp_path / "profile").exists()


def test_the_rate_leaves_compiling_out(tmp_path: Path, monkeypatch, capsys) -> None:
    """The first step takes 100 seconds, and each of the next nine takes one."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    speed = train_metrics.Throughput(1e9, jax.devices())

    def rates(flushed: tuple[int, ...]) -> list[str]:
        now[0] = 0.0
        meter = progress.ProgressMeter(tmp_path, (), speed, name="base8", steps=110, start=0)
        for step in range(1, 11):
            now[0] += 100.0 if step == 1 else 1.0
            meter.add(step, dict.fromkeys(("loss", "grad_norm", "skipped"), jnp.zeros(())))
            if step == 1:
                meter.end_start(step)
            if step in flushed:
                meter.fetch()
                meter.flush(step, images=30, also={})
        meter.close()
        return [line.split("  ", 3)[3] for line in capsys.readouterr().out.splitlines()]

    assert rates((10,)) == ["30 images/s  left 01:40"]
    assert rates((1, 10)) == ["0 images/s  left 3:01:40", "30 images/s  left 01:40"]
