"""Every config that ships is traced at real shapes: state, training step and sampler.

One residual block a level is traced, of widths and attention as they are; `pytest -m slow` traces
all of them, which differ from the first in nothing but their number.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from imagen_jax import config, rng
from imagen_jax.diffusion.samplers import SamplerParams
from imagen_jax.sample import stage_program
from imagen_jax.sample.sampler_inputs import EncodedText, SamplerInputs
from imagen_jax.sample.stage_program import TrainedStage
from imagen_jax.train import sharded_step, state, step

CONFIGS = Path(__file__).parent.parent / "configs"
FILES = sorted(f for f in CONFIGS.rglob("*.py") if f.name != "__init__.py")
CASCADES = sorted({f.parent for f in FILES if f.parent.name not in ("imagen", "deepfloyd")})
BATCH = 8
# Variants of a network that another config has: traced once a week, as are all blocks of others.
VARIANTS = (
    *("base64_500m.py", "base64_1b.py", "base64_2b.py", "sr256_unet.py"),
    *("i_m.py", "i_xl.py", "ii_l.py"),
    *("emoji/base32.py", "emoji/sr128.py"),
    *("quickstart/base16.py", "quickstart/sr64.py", "quickstart/sr256.py", "shapes/sr256.py"),
    "tiny/sr32.py",
)
TRACED = [f for f in FILES if not str(f).endswith(VARIANTS)]


def _shape(*sides: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sides, dtype)


def _of_one_block(model: config.UNet | config.EfficientUNet) -> config.UNet | config.EfficientUNet:
    if isinstance(model, config.UNet):
        return dataclasses.replace(model, res_blocks=1)
    levels = tuple(dataclasses.replace(level, blocks=1) for level in model.levels)
    return dataclasses.replace(model, levels=levels)


@pytest.mark.parametrize("file", TRACED, ids=lambda f: str(f.relative_to(CONFIGS)))
def test_a_training_step_and_the_sampler_trace(file: Path) -> None:
    experiment = config.load(str(file))[0]
    model = experiment.stage.model
    assert not isinstance(model, config.DeepFloydUNet)
    stage = dataclasses.replace(experiment.stage, model=_of_one_block(model))
    _trace(dataclasses.replace(experiment, stage=stage))


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(CONFIGS)))
def test_all_blocks_of_a_training_step_and_the_sampler_trace(file: Path) -> None:
    _trace(config.load(str(file))[0])


def _trace(experiment: config.Experiment) -> None:
    stage = experiment.stage
    module, rule, shapes = state.abstract_run(experiment)
    train = dataclasses.replace(experiment.train, batch_size=BATCH, micro_batches=1)
    batch = sharded_step.batch_shapes(dataclasses.replace(experiment, train=train))
    key = jax.eval_shape(lambda: rng.root(0))
    after, metrics = jax.eval_shape(step.build(experiment, module, rule), shapes, batch, key)
    # A state keeps its shapes and dtypes, or it could not be donated nor restored.
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(
        lambda a: (a.shape, a.dtype), shapes
    )
    assert metrics["loss"].shape == ()
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(shapes.params))

    captions = EncodedText(batch.text, batch.text_mask, _shape(BATCH, dtype=jnp.bool_))
    canvas = SamplerInputs(
        captions=captions,
        negatives=captions,
        indices=_shape(BATCH, dtype=jnp.int32),
        aug_level=_shape(BATCH),
        low_res=_shape(BATCH, stage.low_size, stage.low_size, 3) if stage.low_size else None,
    )
    program = TrainedStage(stage=stage, module=module, params=None).program()
    pictures = jax.eval_shape(
        lambda params, shown: stage_program.sample_stage(
            params,
            shown,
            None,
            SamplerParams.from_config(stage.sampler),
            program=program,
            size=(stage.size, stage.size),
        ),
        shapes.params,
        canvas,
    ).x0
    assert pictures.shape == (BATCH, stage.size, stage.size, 3)


@pytest.mark.parametrize("folder", CASCADES, ids=lambda f: f.name)
def test_stages_of_a_folder_chain(folder: Path) -> None:
    stages = [e.stage for e in config.load(str(folder))]
    assert stages[0].low_size is None
    assert len(stages) > 1


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(CONFIGS)))
def test_a_config_says_how_to_run_it(file: Path) -> None:
    text = file.read_text()
    assert text.startswith('"""')
    assert "imagen train" in text.split('"""')[1]
