"""The experiment on fine-tuning: what it runs, judges and writes, with short runs."""

import json
import subprocess
from pathlib import Path

import fine_tuning
import pytest
from lib import process_cost


def test_verdicts_that_either_image_lacks_are_left_out() -> None:
    found = fine_tuning.shared([True, None, True, False], [True, True, False, None])
    assert (found["captions"], found["share"], found["difference"]) == (2, 100.0, 50.0)


def test_a_command_that_fails_is_an_error() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        process_cost.measure_command("finetune")
    cost = process_cost.measure_command("--version")
    assert cost.cpu_seconds > 0
    assert 2**22 < cost.peak_bytes < 2**27  # this process has more


def test_other_ways_are_refused() -> None:
    with pytest.raises(ValueError, match=r"there is no \['rank 9'\]; there are \['adapters of"):
        fine_tuning.Options(ways=("rank 9",))


def test_both_ways_are_trained_and_judged(tmp_path: Path) -> None:
    options = fine_tuning.Options(
        steps=2,
        crescents=2,
        images=4,
        class_prompts=2,
        class_images=4,
        batch_size=4,
        out=tmp_path / "out",
        workdir=tmp_path / "work",
    )
    fine_tuning.run(options)
    results = json.loads((options.out / "fine_tuning.json").read_text())["results"]
    assert list(results) == ["adapters of rank 8", "all weights", "before"]
    small, whole = (results[way]["bytes"]["base16"] for way in fine_tuning.RANKS)
    assert small["params"] < 0.2 * small["network"] == 0.2 * whole["params"]
    assert small["opt_state"] < 0.2 * whole["opt_state"]
    assert results["before"]["old"]["colour"]["difference"] == 0.0
    page = (options.out / "fine_tuning.md").read_text()
    assert "| all weights |" in page
    for kind in ("drawn", "other", "old"):
        assert (options.out / f"fine_tuning_{kind}.png").stat().st_size > 0
