"""Runs that distil: what a student begins with, learns, saves and is sampled by."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util
from small_network import SMALL
from small_store import make_pairs

from imagen_jax import config, rng
from imagen_jax.data.store.store import Store
from imagen_jax.io import checkpoints, run_dir
from imagen_jax.runtime import exit_codes
from imagen_jax.train import distillation, init_from, loop, resume_checks, sharded_step

SIDE, WIDTH, LENGTH = 4, 3, 6
MOMENTS = config.Distillation(method="moments", steps=2, max_guidance=3.0)
GUIDANCE = config.Distillation(method="guidance", max_guidance=3.0)
HALVES = config.Distillation(method="progressive", steps=2)
SAMPLERS = {
    "moments": config.Sampler(
        kind="ancestral", steps=2, stochasticity=0.0, guidance_weight=2.0, threshold="static"
    ),
    "guidance": config.Sampler(kind="ddim", steps=3, guidance_weight=2.0, threshold="static"),
    "progressive": config.Sampler(kind="ddim", steps=2, guidance_weight=1.0, threshold="static"),
}
METHODS = [MOMENTS, GUIDANCE, HALVES]


def experiment(
    distilled: config.Distillation | None, teacher: Path | str = "", **changes: Any
) -> config.Experiment:
    options = {"steps": 4, "batch_size": 8, "log_every": 1, "save_every": 2} | changes
    sampler = SAMPLERS[distilled.method if distilled else "guidance"]
    return config.Experiment(
        stage=config.Stage(
            name="small", size=SIDE, model=SMALL, sampler=sampler, distillation=distilled
        ),
        data=config.Data(threads=0, prefetch=0),
        text=config.Text(encoder="t5", width=WIDTH, max_length=LENGTH),
        optim=config.Optim(warmup_steps=0, learning_rate=1e-2, ema_decay=0.5),
        train=config.Train(**options),
        mesh=config.Mesh(fsdp=2, spatial=1, min_shard_bytes=16),
        teacher=config.Teacher(folder=str(teacher)),
    )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_pairs(tmp_path_factory.mktemp("store") / "s", side=SIDE, width=WIDTH, length=LENGTH)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of random weights, none of them zero."""
    folder = tmp_path_factory.mktemp("teacher")
    program = sharded_step.build(experiment(None))
    saves, start = checkpoints.Checkpoints(folder), program.init(rng.root(1))
    draw = np.random.default_rng(1)
    noisy = jax.tree.map(
        lambda x: x + np.float32(0.1) * draw.standard_normal(x.shape, np.float32), start.ema
    )
    saves.save(2, dataclasses.replace(start, ema=noisy), program.experiment)
    saves.close()
    run_dir.write_config(folder, program.experiment)
    return folder


def restored(run: Path, step: int, part: str) -> dict[str, np.ndarray]:
    saves = checkpoints.Checkpoints(run, read_only=True)
    prefix = f"{part}/"
    names = [name for name in saves.shapes(step) if name.startswith(prefix)]
    wanted = {
        name.removeprefix(prefix): jax.ShapeDtypeStruct(saves.shapes(step)[name], np.float32)
        for name in names
    }
    nested = traverse_util.unflatten_dict(wanted, sep="/")
    found: Any = saves.restore({part: nested}, step=step)[part]
    saves.close()
    return {k: np.asarray(v) for k, v in traverse_util.flatten_dict(found, sep="/").items()}


@pytest.mark.slow
@pytest.mark.parametrize("distilled", METHODS, ids=lambda d: d.method)
def test_a_student_begins_as_its_teacher_and_is_resumed_to_the_bit(
    distilled: config.Distillation,
    teacher: Path,
    pairs: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted, source = experiment(distilled, teacher), init_from.InitFrom(folder=teacher)
    whole = loop.train(wanted, tmp_path / "whole", store=pairs, source=source)
    assert int(whole.step) == 4
    before = traverse_util.flatten_dict(whole.frozen, sep="/")
    for name, value in restored(teacher, 2, "ema").items():
        np.testing.assert_array_equal(before[name], value, err_msg=name)  # the teacher stays
    after = traverse_util.flatten_dict(whole.params, sep="/")
    extra = {n for n in after if n not in before}
    assert all(n.startswith("emb/guidance/") for n in extra)
    assert bool(extra) == distilled.has_guidance_input
    moved = [n for n in after if n in before and np.any(np.asarray(after[n] != before[n]))]
    assert len(moved) > len(before) // 2
    assert (whole.auxiliary is not None) == (distilled.method == "moments")

    with pytest.raises(exit_codes.Preempted):
        loop.train(
            wanted, tmp_path / "parts", store=pairs, source=source, stop=lambda step: step == 2
        )
    resumed = loop.train(wanted, tmp_path / "parts", store=pairs, source=source)
    said = capsys.readouterr().out
    assert "resumed from step 2" in said
    assert "for its beginning" not in said  # the teacher is read at every start
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def test_a_student_is_sampled_as_it_was_distilled(
    teacher: Path, pairs: Store, tmp_path: Path
) -> None:
    """One pass a step; the run knows its teacher, and no other is put in its place."""
    source = init_from.InitFrom(folder=teacher)
    wanted = experiment(GUIDANCE, teacher, steps=1)
    loop.train(wanted, tmp_path, store=pairs, source=source)
    found = run_dir.read_config(tmp_path)
    assert found.stage.has_guidance_input
    assert not found.stage.is_guided
    assert found.teacher.identity
    other = config.Teacher(folder=str(teacher), identity="f")
    with pytest.raises(ValueError, match=r"teacher\.identity"):
        resume_checks.changed_options(tmp_path, dataclasses.replace(wanted, teacher=other))


def test_a_student_needs_a_teacher(pairs: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="student of a trained network: give it by --init-from"):
        loop.train(experiment(HALVES), tmp_path / "run", store=pairs)


@pytest.mark.parametrize("name", ["identity", "vocabulary", "lower_case", "padding"])
def test_a_teacher_of_another_text_encoder_is_refused(
    name: str, pairs: Store, tmp_path: Path
) -> None:
    values = {"identity": "f", "vocabulary": "g", "lower_case": True, "padding": "encoded"}
    read = dataclasses.replace(experiment(None).text, **{name: values[name]})  # type: ignore[arg-type]
    run_dir.write_config(tmp_path, dataclasses.replace(experiment(None), text=read))
    source = init_from.InitFrom(folder=tmp_path)
    with pytest.raises(ValueError, match=rf"teacher was trained with text\.{name}="):
        loop.train(experiment(GUIDANCE), tmp_path / "run", store=pairs, source=source)


def test_few_steps_of_a_network_that_predicts_noise_are_warned_of() -> None:
    def warning(distilled: config.Distillation, predicts: config.Predicts) -> str:
        stage = experiment(distilled).stage
        diffusion = dataclasses.replace(stage.diffusion, predicts=predicts)
        changed = dataclasses.replace(stage, diffusion=diffusion)
        return distillation.describe_noise_prediction(changed)

    assert "predicts='eps'" in warning(HALVES, "eps")
    assert "22,026 times" in warning(MOMENTS, "eps")
    assert "few steps of this one would begin" in warning(GUIDANCE, "eps")
    assert not warning(MOMENTS, "v")


def test_passes_are_counted() -> None:
    """Three for each network that is trained, and one for each call of another."""
    guided = dataclasses.replace(MOMENTS, distilled_teacher=True)
    fourths = dataclasses.replace(HALVES, teacher_steps=4)
    counted = [distillation.count_passes(x) for x in (GUIDANCE, HALVES, fourths, MOMENTS, guided)]
    assert counted == [3 + 2, 3 + 2, 3 + 4, 4 + 2 + 4 + 2, 4 + 1 + 4 + 1]
