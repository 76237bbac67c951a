"""The experiment on noise augmentation on tiny stages: what is trained, fed, judged and written."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import noise_augmentation
import numpy as np
import pytest
from PIL import Image

from imagen_jax import config, models
from imagen_jax.data.images.transforms import area_downsample
from imagen_jax.data.pipeline import Batch
from imagen_jax.imagen import Imagen, Request
from imagen_jax.train import step

LEVELS = (0.0, 0.3)


@pytest.fixture
def trained() -> dict[Path, config.Experiment]:
    """The runs that were asked for, by folder."""
    return {}


@pytest.fixture
def options(tiny, trained, tmp_path: Path, monkeypatch) -> noise_augmentation.Options:
    def train(experiment: config.Experiment, workdir: Path, *, data_dir: Path) -> None:
        assert data_dir == tmp_path / "data"
        trained[workdir] = experiment

    def load(path: str | Path) -> Imagen:
        if path == "a cascade":
            return tiny
        stage = dataclasses.replace(trained[Path(path)].stage, sampler=tiny.stages[1].stage.sampler)
        painter = dataclasses.replace(tiny.stages[1], stage=stage)
        return dataclasses.replace(tiny, stages=(painter,))

    monkeypatch.setattr(noise_augmentation.runs, "train", train)
    monkeypatch.setattr(noise_augmentation, "load", load)
    return noise_augmentation.Options(
        configs="tiny",
        cascade="a cascade",
        max_level=0.4,
        levels=LEVELS,
        steps=7,
        batch=16,
        images=4,
        others=8,
        shown=2,
        shown_levels=(0.3,),
        out=tmp_path / "out",
        workdir=tmp_path / "work",
        data_dir=tmp_path / "data",
        batch_size=8,
    )


def test_it_trains_with_and_without_and_writes_everything(
    tiny, options, trained, monkeypatch, capsys
) -> None:
    noise_augmentation.run(options)
    levels = [e.stage.noise_conditioning.max_level for e in trained.values()]
    assert levels == [0.4, 0.0]
    first, second = trained.values()
    quiet = dataclasses.replace(
        first.stage,
        noise_conditioning=dataclasses.replace(
            first.stage.noise_conditioning, max_level=0.0, sample_level=0.0
        ),
    )
    assert second == dataclasses.replace(first, stage=quiet)  # nothing else differs

    rows = json.loads((options.out / "noise_augmentation.json").read_text())["results"]["rows"]
    assert [(row["input"], row["training"], row["level"]) for row in rows] == [
        (fed, training, level)
        for fed in ("sampled", "real")
        for training in ("with augmentation", "without")
        for level in LEVELS
    ]
    assert [("error" in row) for row in rows] == [row["input"] == "real" for row in rows]
    page = (options.out / "noise_augmentation.md").read_text()
    assert "python experiments/noise_augmentation.py --configs tiny" in page
    assert page.count("\n| without | real | ") == 2
    for image in ("noise_augmentation.png", "noise_augmentation_images.png"):
        assert f"({image})" in page
        with Image.open(options.out / image) as opened:
            assert opened.width > 300
    assert "noise_augmentation.md" in capsys.readouterr().out

    # The numbers are those of images that the trained stage samples from these inputs.
    judge = noise_augmentation.scoring.make_judge("shapes/tiny", size=16, count=4, others=8, seed=1)
    captions, real = judge.exam.captions, judge.exam.real
    alone = noise_augmentation.load(next(iter(trained))).with_sampler({"aug_level": 0.3})
    sampled = tiny.sample(captions, seed=1, last_stage="base8", batch_size=8)["base8"]
    for fed, low in (("sampled", sampled), ("real", area_downsample(real, 2))):
        request = Request(low_res=low)
        sharp = alone.sample(captions, seed=1, request=request, batch_size=8)["sr16"]
        expected = {"level": 0.3, "training": "with augmentation", **judge.measure(sharp)}
        if fed == "real":
            expected["error"] = float(np.abs(sharp.astype(float) - real).mean())
        assert {**expected, "input": fed} in rows

    # A level changes images; what is sampled is not sampled again.
    assert rows[-1]["error"] != rows[-2]["error"]
    monkeypatch.setattr(Imagen, "sample", None)
    noise_augmentation.run(options)
    again = json.loads((options.out / "noise_augmentation.json").read_text())["results"]["rows"]
    assert again == rows


def test_the_stage_is_the_configs_own_but_for_what_is_asked(options) -> None:
    stage = config.load("tiny")[1]
    found = noise_augmentation.variant(options, max_level=0.4)
    assert (found.train.steps, found.train.batch_size) == (7, 16)
    assert found.stage.noise_conditioning.max_level == 0.4
    own = dataclasses.replace(options, steps=None, batch=None)
    level = stage.stage.noise_conditioning.max_level
    assert noise_augmentation.variant(own, max_level=level) == stage


def test_runs_of_other_lengths_do_not_share_a_folder(options, trained) -> None:
    for steps, level in ((7, 0.4), (8, 0.4), (7, 0.0)):
        noise_augmentation._trained(dataclasses.replace(options, steps=steps), level)
    assert len(trained) == 3


def test_without_augmentation_the_network_sees_the_cleanest_level_only(options) -> None:
    """Its aug_logsnr is that of level 0 in every example, and its input has no noise."""
    stage = noise_augmentation.variant(options, max_level=0.0).stage
    seen = []

    class Recorder:
        def apply(self, variables, z, *rest, method=None, **options):
            if method == "encode_text":
                return models.Conditioning(kv={}, text_mask=rest[0], pooled=None)
            seen.append(rest[1])
            return jnp.zeros_like(z)

    batch = Batch(
        pixels=np.full((64, 16, 16, 3), 200, np.uint8),
        low_pixels=np.full((64, 8, 8, 3), 200, np.uint8),
        text=jnp.zeros((64, 4, 64)),
        text_mask=jnp.ones((64, 4), bool),
        index=jnp.arange(64),
    )
    step.loss_function(stage, Recorder())({}, batch, jax.random.key(0))
    np.testing.assert_allclose(seen[0].aug_logsnr, 20.0, atol=1e-4)
    np.testing.assert_allclose(seen[0].low_res, 200 / 127.5 - 1, atol=1e-3)

    noisy = noise_augmentation.variant(options, max_level=0.4).stage
    step.loss_function(noisy, Recorder())({}, batch, jax.random.key(0))
    assert np.ptp(seen[1].aug_logsnr) > 3
    assert seen[1].aug_logsnr.min() > 0.6  # logsnr of level 0.4 is 0.639


def test_what_does_not_fit_is_refused(options) -> None:
    with pytest.raises(ValueError, match="'tiny/base8' has no super-resolution stage"):
        noise_augmentation.run(dataclasses.replace(options, configs="tiny/base8"))
    with pytest.raises(
        ValueError, match=r"samples 64-px images; it has \{8: 'base8', 16: 'sr16'\}"
    ):
        noise_augmentation.run(dataclasses.replace(options, configs="quickstart/sr256"))
    for changes, message in (
        ({"max_level": 0.0}, "--max-level 0.0: must be"),
        ({"shown_levels": (0.4,)}, r"shown_levels=\[0.4\] are not among"),
        ({"shown": 9}, "shown=9"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(options, **changes)


def test_the_plot_has_four_curves_where_inputs_are_judged_and_two_of_errors() -> None:
    rows = [
        {"training": training, "input": fed, "level": level, "all": 0.5 + level, "fill": 0.25}
        | {"frechet": 3.0, "saturated": 0.0}
        | ({"error": 4.0 + level} if fed == "real" else {})
        for fed in ("sampled", "real")
        for training in ("with augmentation", "without")
        for level in LEVELS
    ]
    real = {"all": 1.0, "fill": 1.0, "frechet": 2.0}
    figure = noise_augmentation.plot({"rows": rows, "real": real, "bilinear_error": 5.0})
    alignment, fill, distance, error = figure.axes
    for axis in (alignment, fill, distance):
        assert len(axis.lines) == 4 + 1
    assert len(error.lines) == 2 + 1
    np.testing.assert_allclose(alignment.lines[0].get_ydata(), [50, 80])
    np.testing.assert_allclose(error.lines[0].get_ydata(), [4.0, 4.3])
    assert error.get_legend_handles_labels()[1] == [
        "with augmentation, real input",
        "without, real input",
        "bilinear",
    ]
