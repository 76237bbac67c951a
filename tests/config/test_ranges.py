"""Every number of a config and of the command line has a range, which is checked."""

import dataclasses
import importlib
import math
import pkgutil
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import hypothesis.strategies as st
import jaxtyping
import numpy as np
import pytest
from hypothesis import example, given

import imagen_jax.cli
import imagen_jax.config
from imagen_jax import config
from imagen_jax.cloud.tpu_slice import Slice
from imagen_jax.config import ranges
from imagen_jax.evaluate.settings import EvaluationSettings
from imagen_jax.sample.request import Request

EXPERIMENTS = sorted(file.stem for file in (Path(__file__).parents[2] / "experiments").glob("*.py"))
SLICE = {"accelerator": "v5litepod-64", "zone": "us-west4-a"}
GIVEN = {  # of fields without default, by class or, for classes of one name, by field
    "Stage": {"name": "a", "size": 64, "model": config.UNet()},
    "Level": {"channels": 8, "blocks": 1},
    "DeepFloydLevel": {"channels": 64},
    "DeepFloydUNet": {
        "levels": (config.DeepFloydLevel(channels=64),),
        "text_channels": 64,
        "cond_channels": 64,
    },
    "Slice": SLICE,
    "LaunchOptions": {"workdir": "gs://bucket/run", "wanted": Slice(**SLICE)},
    "Layout": {"data": 1, "fsdp": 1, "spatial": 1, "micro_batches": 1},
    "Experiment": {"stage": config.Stage(name="a", size=64, model=config.UNet())},
    "Distillation": {"method": "progressive", "steps": 2},
    "method": "progressive",
    "topology": "v5e:16x16",
    "source": ("a",),
}
WRONG = (math.nan, math.inf, -math.inf, True, "4", None, 2**40, -(2**40), 10**400, [], {}, 4.5)


def _classes() -> Iterator[type]:
    yield from (Slice, Request, EvaluationSettings)
    for package in (imagen_jax.config, imagen_jax.cli):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            found = vars(importlib.import_module(module.name))
            for kind in found.values():
                own = dataclasses.is_dataclass(kind) and kind.__module__ == module.name
                if own:
                    yield kind
    for name in EXPERIMENTS:
        yield importlib.import_module(name).Options


CLASSES = [kind for kind in _classes() if kind is not ranges.Range]


def _numbers(hint: Any, limits: Any = None) -> Iterator[tuple[type, Any]]:
    """The numeric parts of an annotation, each with its range, or None."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        given = [extra for extra in inside[1:] if isinstance(extra, config.Range)]
        yield from _numbers(inside[0], given[0] if given else limits)
    elif origin in (typing.Union, types.UnionType, tuple):
        for part in inside:
            yield from _numbers(part, limits)
    elif hint in (int, float):
        yield hint, limits


FIELDS = [
    pytest.param(kind, name, id=f"{kind.__module__.split('.')[-1]}.{kind.__name__}.{name}")
    for kind in CLASSES
    for name, hint in ranges.type_hints(kind).items()
    if any(_numbers(hint))
]


def _made(kind: type, **changes: Any) -> Any:
    """An instance as users make it, where nothing else checks types."""
    required = {
        f.name: GIVEN.get(f.name, Path("a") if f.type in (Path, "Path") else "a")
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING
    }
    required |= GIVEN.get(kind.__name__, {})
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        made = kind(**(required | changes))
        if kind is not Request and not kind.__module__.startswith("imagen_jax.config"):
            config.check_options(made)
        return made
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def _refused(kind: type, name: str, value: Any) -> bool:
    """Whether a value is refused, in one sentence that names the field."""
    try:
        _made(kind, **{name: value})
    except ValueError as error:
        sentence = str(error)
        assert "\n" not in sentence
        assert name in sentence or name.replace("_", "-") in sentence, (kind, name, sentence)
        assert len(sentence) < 500
        return True
    return False


@pytest.mark.parametrize("kind", CLASSES, ids=lambda k: f"{k.__module__}.{k.__name__}")
def test_every_number_has_a_range(kind: type) -> None:
    for name, hint in ranges.type_hints(kind).items():
        for number, limits in _numbers(hint):
            assert limits is not None, f"{kind.__name__}.{name}: {number.__name__} without Range"


def test_a_number_without_a_range_is_found() -> None:
    kind = dataclasses.make_dataclass("Bad", [("a", int), ("b", tuple[float, ...] | None)])
    bare = [limits for hint in ranges.type_hints(kind).values() for _, limits in _numbers(hint)]
    assert bare == [None, None]
    assert len(FIELDS) > 100


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_what_no_number_can_be_is_refused(kind: type, name: str) -> None:
    hint = ranges.type_hints(kind)[name]
    for value in (math.nan, -(10**400), "4", True, {}):
        assert _refused(kind, name, value), value
        assert _refused(kind, name, (value,)), value
    if not any(number is float for number, _ in _numbers(hint)):
        assert _refused(kind, name, 4.5)
    for value in WRONG:
        _refused(kind, name, value)


# Fields of which 10^9 costs nothing: they are compared, counted up to, or bound what is there.
FREE = frozenset(
    {
        *("train.steps", "train.log_every", "train.save_every", "train.keep", "train.keep_every"),
        *("train.seed", "train.max_skipped", "train.sample_every", "optim.warmup_steps"),
        *("optim.ema_start", "runoptions.max_restarts", "data.examples"),
        *("mesh.min_shard_bytes", "processes.process_id", "processes.heartbeat_timeout"),
        *("framing.crop_seed", "request.first_index", "evaluationsettings.seed"),
        *("filters.min_side", "filters.min_caption_chars", "filters.max_caption_chars"),
        *("filters.max_captions", "options.seed", "options.first_index", "options.preview_every"),
        *("checkoptions.sample", "checkoptions.seed", "options.max_restarts", "options.worker"),
        *(
            "logsoptions.worker",
            "logsoptions.attempt",
            "options.attempt",
            "unet.res_blocks",
            "level.blocks",
            "textconditioning.refiner_layers",
        ),
        *("launchoptions.max_restarts",),
    }
)
SPENT = [
    param
    for param in FIELDS
    if all(
        number is int for number, _ in _numbers(ranges.type_hints(param.values[0])[param.values[1]])
    )
    and f"{param.values[0].__name__.lower()}.{param.values[1]}" not in FREE
    and not param.values[0].__module__.startswith(tuple(EXPERIMENTS))
]


@pytest.mark.parametrize(("kind", "name"), SPENT)
def test_numbers_by_which_memory_or_time_is_asked_for_have_an_end(kind: type, name: str) -> None:
    """The sentence says where it is."""
    several = "tuple" in str(ranges.type_hints(kind)[name])
    for number in (10**9, 2**31 - 1, 2**40, 10**30):
        with pytest.raises(ValueError, match=rf"{name.replace('_', '[-_]')}.* to \d+"):
            _made(kind, **{name: (number, number) if several else number})


WHATEVER = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.text(max_size=5),
    st.fractions(),
    st.lists(st.integers() | st.floats(), max_size=3),
    st.integers(-(2**31), 2**31 - 1).map(np.int32),
    st.floats(width=32).map(np.float32),
)


@given(field=st.sampled_from([p.values for p in FIELDS]), value=WHATEVER)
@example(field=(config.Optim, "clip_norm"), value=0)
@example(field=(config.Optim, "clip_norm"), value=-1.0)
@example(field=(config.Optim, "clip_norm"), value=1e-50)  # 0 in float32
@example(field=(config.Optim, "b1"), value=1 - 1e-12)  # 1 in float32
@example(field=(config.Sampler, "guidance_interval"), value=[0.2, 5])
def test_numeric_options(field: tuple[type, str], value: Any) -> None:
    """Any value is taken, and is then a plain finite number in its range, or refused."""
    kind, name = field
    if _refused(kind, name, value):
        return
    kept = getattr(_made(kind, **{name: value}), name)
    pairs = zip(kept, value, strict=True) if isinstance(kept, tuple) else [(kept, value)]
    for number, before in pairs:
        assert type(number) in (int, float, type(None))
        unbounded = name == "guidance_interval"
        assert number is None or unbounded or math.isfinite(np.float32(number))
        assert number == (None if before is None else type(number)(before))
    hash(kept)  # configs are


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: config.Optim(clip_norm=0.0), "clip_norm=0.0: must be .* above 0; None is off"),
        (lambda: config.Optim(clip_norm=-1.0), "clip_norm=-1.0: must be .* above 0; None is off"),
        (lambda: config.Optim(clip_norm=1e-50), "clip_norm=1e-50: .* in float32"),
        (lambda: config.Optim(learning_rate=math.inf), "learning_rate=inf: .* finite in float32"),
        (lambda: config.Optim(warmup_steps=-5), "warmup_steps=-5: must be a whole number of 0"),
        (lambda: config.Optim(b1=1.5), "b1=1.5: must be a number of 0 or more and below 1"),
        (lambda: config.Train(seed=-1), "seed=-1: must be a whole number from 0 to 4294967295"),
        (lambda: config.Data(workers=-1), "workers=-1: must be"),
        (lambda: config.Train(steps=2**31), "steps=2147483648: .* at most 2147483647"),
        (lambda: config.Mesh(data=0), "data=0: .* from 1 to 1048576; -1 has it chosen"),
        (
            lambda: config.NoiseConditioning(max_level=0.2, sample_level=0.3),
            "sample_level=0.3 .* above max_level=0.2",
        ),
        (lambda: config.Diffusion(loss_weight="sigmoid"), "'sigmoid' with predicts='eps'"),
        (
            lambda: config.Diffusion(
                loss_weight="sigmoid", predicts="x0", schedule=config.NoiseSchedule(logsnr_max=10.0)
            ),
            "from -20 to 10 .* use predicts='v', or schedule.logsnr_min=-10",
        ),
        (
            lambda: config.Processes(coordinator="a:1", processes=2, process_id=2),
            "--process-id 2: of 2 processes the last is number 1",
        ),
        (lambda: config.Sampler(edm_sigma_min=90.0), "edm_sigma_min=90.0 is not below"),
    ],
)
def test_sentences(build: typing.Callable[[], Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        build()


def test_sigmoid_weights_where_they_can_be_used() -> None:
    config.Diffusion(loss_weight="sigmoid", predicts="v")
    config.Diffusion(
        loss_weight="sigmoid", schedule=config.NoiseSchedule(logsnr_min=-10.0, logsnr_max=10.0)
    )
