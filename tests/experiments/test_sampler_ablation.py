"""The sampler ablation on random weights: which rows it samples, and what it writes."""

import dataclasses
import json
from pathlib import Path

import pytest
import sampler_ablation
from lib import scoring

from imagen_jax.imagen import Imagen


@pytest.fixture
def options(base16, tmp_path: Path, monkeypatch) -> sampler_ablation.Options:
    monkeypatch.setattr(sampler_ablation, "load", lambda path: {"a cascade": base16}[path])
    return sampler_ablation.Options(
        cascade="a cascade",
        only=("baseline", "guidance=1.5", "guidance=2.0", "wording=plain"),
        images=4,
        batch_size=8,
        out=tmp_path / "out",
    )


def test_it_judges_each_row_once_and_writes_it(options, base16, monkeypatch) -> None:
    sampler_ablation.run(options)
    results = json.loads((options.out / "sampler_ablation.json").read_text())["results"]
    # The config's own choice, guidance 2, is the baseline.
    assert list(results) == ["baseline", "guidance=1.5", "wording=plain"]
    changed = {"stage.sampler.guidance_weight": [2.0, 1.5]}
    assert [row["changes"] for row in results.values()] == [{}, changed, {}]
    page = (options.out / "sampler_ablation.md").read_text()
    assert "stage.sampler.guidance_weight 2.0 to 1.5" in page
    assert "python experiments/sampler_ablation.py --cascade 'a cascade'" in page
    assert (options.out / "sampler_ablation.png").stat().st_size > 0

    # A row's scores are those of images that are sampled with its sampler.
    exam = sampler_ablation.balanced_eval_set("shapes/tiny", count=4, seed=1, size=16, plain=None)
    row = base16.with_sampler({"guidance_weight": 1.5})
    expected = scoring.sample_and_score(row, exam, seed=1, batch_size=8)
    assert results["guidance=1.5"]["scores"] == expected

    monkeypatch.setattr(Imagen, "sample", None)
    sampler_ablation.run(dataclasses.replace(options, only=("baseline",)))
    assert json.loads((options.out / "sampler_ablation.json").read_text())["results"] == results


def test_rows_that_are_trained_are_refused(options) -> None:
    with pytest.raises(ValueError, match="--only predicts=v: this row is trained"):
        sampler_ablation.run(dataclasses.replace(options, only=("predicts=v",)))
