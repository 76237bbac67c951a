"""The guidance experiment on a tiny cascade: what it samples, judges and writes."""

import dataclasses
import json
from pathlib import Path

import guidance
import numpy as np
import pytest
from PIL import Image

from imagen_jax.imagen import Imagen
from imagen_jax.sample import stage_program

STATED = {"count", "shape", "all", "frechet", "saturated"}


@pytest.fixture
def options(tiny, tmp_path: Path, monkeypatch) -> guidance.Options:
    monkeypatch.setattr(guidance, "load", lambda path: {"a cascade": tiny}[path])
    return guidance.Options(
        cascade="a cascade",
        weights=(1.5, 3.0, 15.0),
        last_stage="sr16",
        images=4,
        others=8,
        shown=2,
        shown_weights=(1.5, 15.0),
        out=tmp_path / "out",
        workdir=tmp_path / "work",
        batch_size=8,
    )


def _rows(options: guidance.Options) -> dict[tuple[str, float], dict[str, float]]:
    document = json.loads((options.out / "guidance.json").read_text())
    return {(row["threshold"], row["weight"]): row for row in document["results"]["rows"]}


def test_it_writes_plot_table_numbers_and_images(tiny, options, monkeypatch, capsys) -> None:
    guidance.run(options)
    rows = _rows(options)
    assert list(rows) == [(t, w) for t in ("none", "static", "dynamic") for w in (1.5, 3.0, 15.0)]
    assert all(set(row) >= STATED for row in rows.values())
    page = (options.out / "guidance.md").read_text()
    assert "python experiments/guidance.py --cascade 'a cascade' --weights 1.5 3.0 15.0" in page
    assert page.count("\n| dynamic | ") == 3
    assert page.count("\n| real images | ") == 1
    for image in ("guidance.png", "guidance_images.png"):
        assert f"({image})" in page
        with Image.open(options.out / image) as opened:
            assert opened.width > 300
    assert "guidance.md" in capsys.readouterr().out

    # Its numbers are those of images that the cascade samples with these settings.
    judge = guidance.scoring.make_judge("shapes/tiny", size=16, count=4, others=8, seed=1)
    changed = tiny.with_sampler({"threshold": "static", "guidance_weight": 15.0}, stage="base8")
    expected = changed.sample(judge.exam.captions, seed=1, last_stage="sr16", batch_size=8)["sr16"]
    measured = judge.measure(expected)
    assert {name: rows["static", 15.0][name] for name in measured} == measured

    # Thresholds bite: one clips where another does not.
    assert len({row["saturated"] for key, row in rows.items() if key[1] == 15.0}) > 1

    # What is sampled is not sampled again, and gives the same numbers.
    monkeypatch.setattr(Imagen, "sample", None)
    guidance.run(dataclasses.replace(options, weights=(1.5, 15.0)))
    assert _rows(options) == {key: row for key, row in rows.items() if key[1] != 3.0}


def test_weights_share_one_program_for_each_threshold(options) -> None:
    few = dataclasses.replace(options, thresholds=("static",), shown_weights=())
    guidance.run(dataclasses.replace(few, weights=(2.0,)))
    before = stage_program.sample_stage._cache_size()
    guidance.run(dataclasses.replace(few, weights=(2.0, 4.0, 7.0)))
    assert stage_program.sample_stage._cache_size() == before


def test_a_base_stage_too_small_for_the_oracle_is_refused(options) -> None:
    with pytest.raises(ValueError, match="not of 8: choose a later stage"):
        guidance.run(dataclasses.replace(options, last_stage=None))
    with pytest.raises(ValueError, match=r"no stage 'sr99' in this cascade; it has \['base8'"):
        guidance.run(dataclasses.replace(options, last_stage="sr99"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shown_weights": (2.5,)}, r"shown_weights=\[2.5\] are not among"),
        ({"shown": 300}, "shown=300"),
        ({"shown": 0}, "--shown 0: must be"),
    ],
)
def test_options_that_fit_nothing_are_refused(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        guidance.Options(**changes)


def test_the_plot_has_a_curve_for_each_threshold_and_names_the_weights() -> None:
    rows = [
        {"threshold": threshold, "weight": weight, "all": 0.1 * weight, "frechet": 3.0 + index}
        | {"saturated": 0.01 * index * weight}
        for index, threshold in enumerate(("none", "static", "dynamic"))
        for weight in (1.0, 1.5, 5.0)
    ]
    real = {"all": 0.9, "frechet": 2.0, "saturated": 0.0}
    pareto, saturation, alignment = guidance.plot({"rows": rows, "real": real}).axes
    assert {text.get_text() for text in pareto.texts} == {"1", "1.5", "5"}
    for axis in (pareto, saturation, alignment):
        assert axis.get_legend_handles_labels()[1] == ["none", "static", "dynamic", "real images"]
    np.testing.assert_allclose(pareto.lines[1].get_xydata(), [(10, 4), (15, 4), (50, 4)])
    np.testing.assert_allclose(saturation.lines[2].get_xydata(), [(1, 2), (1.5, 3), (5, 10)])
    np.testing.assert_allclose(alignment.lines[0].get_xydata(), [(1, 10), (1.5, 15), (5, 50)])
