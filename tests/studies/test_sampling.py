"""The sampling study on random weights: which rows it paints, and what it writes."""

import dataclasses
import json
from pathlib import Path

import pytest

from imagen_jax.imagen import Imagen
from imagen_jax.studies import judging, sampling


@pytest.fixture
def options(base16, tmp_path: Path, monkeypatch) -> sampling.Options:
    monkeypatch.setattr(sampling, "load", lambda path: {"a cascade": base16}[path])
    return sampling.Options(
        cascade="a cascade",
        only=("baseline", "guidance=1.5", "guidance=2.0", "wording=plain"),
        pictures=4,
        batch_size=8,
        out=tmp_path / "out",
    )


def test_it_judges_each_row_once_and_writes_it(options, base16, monkeypatch) -> None:
    sampling.run(options)
    results = json.loads((options.out / "sampling.json").read_text())["results"]
    # The config's own choice, guidance 2, is the baseline.
    assert list(results) == ["baseline", "guidance=1.5", "wording=plain"]
    changed = {"stage.sampler.guidance_weight": [2.0, 1.5]}
    assert [row["changes"] for row in results.values()] == [{}, changed, {}]
    page = (options.out / "sampling.md").read_text()
    assert "stage.sampler.guidance_weight 2.0 to 1.5" in page
    assert "imagen study sampling --cascade 'a cascade'" in page
    assert (options.out / "sampling.png").stat().st_size > 0

    # A row's scores are those of pictures that are painted with its sampler.
    exam = sampling.balanced_eval_set("shapes/tiny", count=4, seed=1, size=16, plain=None)
    row = base16.with_sampler({"guidance_weight": 1.5})
    expected = judging.paint_and_score(row, exam, seed=1, batch_size=8)
    assert results["guidance=1.5"]["scores"] == expected

    monkeypatch.setattr(Imagen, "paint", None)
    sampling.run(dataclasses.replace(options, only=("baseline",)))
    assert json.loads((options.out / "sampling.json").read_text())["results"] == results


def test_rows_that_are_trained_are_refused(options) -> None:
    with pytest.raises(ValueError, match="--only predicts=v: this row is trained"):
        sampling.run(dataclasses.replace(options, only=("predicts=v",)))
