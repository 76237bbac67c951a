"""Curves of metric against metric: settings, intervals, metrics of images in memory."""

import dataclasses
import json
from pathlib import Path

import curves
import numpy as np
import pytest
from lib import curve_metrics, random_clip

from imagen_jax.imagen import Imagen
from imagen_jax.metrics import cmmd, networks
from imagen_jax.metrics.networks import Devices


@pytest.fixture
def options(tmp_path: Path, base16: Imagen, monkeypatch: pytest.MonkeyPatch) -> curves.Options:
    monkeypatch.setattr(curves, "load", lambda name: base16)
    return curves.Options(
        weights=(1.0, 3.0),
        thresholds=("none", "static"),
        images=4,
        others=8,
        seeds=(1, 2),
        out=tmp_path / "out",
        workdir=tmp_path / "work",
        batch_size=4,
    )


def test_each_setting_is_sampled_by_each_seed(options, base16, monkeypatch) -> None:
    curves.run(options)
    document = json.loads((options.out / "curves.json").read_text())
    points = document["results"]["points"]
    assert [(p["threshold"], p["weight"]) for p in points] == [
        *(("none", 1.0), ("none", 3.0), ("static", 1.0), ("static", 3.0))
    ]
    for point in points:
        assert {len(values) for values in point["values"].values()} == {2}
    real = document["results"]["real"]
    assert real["shapes"] == 100
    assert real["frechet"] < min(min(p["values"]["frechet"]) for p in points)
    # Against a direct measurement of the last setting's first seed.
    exam = curve_metrics.prepare(options, {"a": base16})
    changed = base16.with_sampler({"threshold": "static", "guidance_weight": 3.0})
    images = changed.sample(exam.prompts, seed=1, batch_size=4)["base16"]
    network = networks.load_cmmd(random_clip.write(options.workdir / "random_clip"))
    rows = Devices([network]).run(list(images), [""] * 4, 4)["cmmd"]
    assert points[-1]["values"]["cmmd"][0] == pytest.approx(
        cmmd.cmmd(rows, exam.reference.cmmd), rel=1e-5
    )
    # What is sampled is not sampled again.
    monkeypatch.setattr(Imagen, "sample", None)
    curves.run(dataclasses.replace(options, out=options.out / "again"))
    again = json.loads((options.out / "again" / "curves.json").read_text())
    assert again["results"] == document["results"]
    assert "| static | - | 3 |" in (options.out / "curves.md").read_text()


def test_the_interval_is_the_bootstraps_over_seeds() -> None:
    assert curves.interval([3.0]) == (3.0, 3.0)
    low, high = curves.interval([0.0, 1.0])
    assert (low, high) == (0.0, 1.0)
    values = np.random.default_rng(1).normal(5, 2, 200)
    low, high = curves.interval(list(values))
    half = 1.96 * values.std() / np.sqrt(200)
    assert low == pytest.approx(values.mean() - half, abs=0.05)
    assert high == pytest.approx(values.mean() + half, abs=0.05)


def test_the_plot_has_a_curve_for_each_run_threshold_and_noise_level() -> None:
    points = [
        {"cascade": name, "threshold": "none", "aug_level": level, "weight": weight}
        | {"values": {"shapes": [10.0 * weight, 12.0 * weight], "cmmd": [1.0, 2.0]}}
        for name in ("a", "b")
        for level in (0.1, 0.3)
        for weight in (1.0, 4.0)
    ]
    real = {"shapes": 100.0, "cmmd": 0.1}
    (axis,) = curves.plot({"points": points, "real": real}, x="shapes", ys=("cmmd",)).axes
    labels = axis.get_legend_handles_labels()[1]
    assert sorted(labels) == [
        *("a, none, aug_level 0.1", "a, none, aug_level 0.3"),
        *("b, none, aug_level 0.1", "b, none, aug_level 0.3"),
        "real images",
    ]
    assert [text.get_text() for text in axis.texts] == ["1", "4"] * 4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"x": "beauty"}, "no metric 'beauty'; there are shapes, clip, fid"),
        ({"y": ("fid",)}, "fid needs --inception"),
        ({"x": "clip"}, "clip needs --clip"),
        ({"last_stage": "sr99"}, "no stage 'sr99' in this cascade"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, changes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        curves.run(dataclasses.replace(options, **changes))
