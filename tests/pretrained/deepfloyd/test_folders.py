"""Every form of diffusers' folders is the same cascade, or is refused by name."""

import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from deepfloyd_references import FOLDER, FP16, UNET, attend_to_text_alone
from flax import traverse_util
from safetensors import numpy as tensors

import imagen_jax
from imagen_jax import config, pretrained
from imagen_jax.pretrained.deepfloyd import load, tensor_names, weights
from imagen_jax.pretrained.deepfloyd.scheduler_config import parse_scheduler_config
from imagen_jax.pretrained.deepfloyd.unet_config import parse_unet_config
from imagen_jax.text.checkpoints import lazy_tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of stage I without its text encoder."""
    ignored = shutil.ignore_patterns("text_encoder", "tokenizer")
    return Path(shutil.copytree(FOLDER / "if_I", tmp_path / "if_I", ignore=ignored))


def parameters(folder: Path) -> dict[str, np.ndarray]:
    (pipeline,) = load.open_pipelines([folder])
    return lazy_tensors.read_parameters(
        pipeline.layout, lambda _, array: np.array(array, np.float32)
    )


@functools.cache
def unchanged() -> dict[str, np.ndarray]:
    """Those of stage I as the references have it."""
    return parameters(FOLDER / "if_I")


def assert_same(folder: Path) -> None:
    found, wanted = parameters(folder), unchanged()
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def _split(folder: Path, pattern: str, index: str | None) -> None:
    """Two shards of the weights, by a pattern of their names, and an index of that name."""
    whole = tensors.load_file(folder / FP16)
    (folder / FP16).unlink()
    names = sorted(whole)
    parts = {
        pattern.format(1): names[: len(names) // 2],
        pattern.format(2): names[len(names) // 2 :],
    }
    for file, held in parts.items():
        tensors.save_file({name: whole[name] for name in held}, folder / "unet" / file)
    if index:
        weight_map = {name: file for file, held in parts.items() for name in held}
        (folder / "unet" / index).write_text(json.dumps({"weight_map": weight_map}))


STEM = "diffusion_pytorch_model"
FORMS: dict[str, Callable[[Path], Any]] = {
    "plain": lambda f: (f / FP16).rename(f / f"{UNET}.safetensors"),
    "shards": lambda f: _split(
        f, STEM + "-0000{}-of-00002.safetensors", f"{STEM}.safetensors.index.json"
    ),
    "variant": lambda f: _split(
        f, STEM + ".fp16-0000{}-of-00002.safetensors", f"{STEM}.safetensors.index.fp16.json"
    ),
    "variant first": lambda f: _split(
        f, STEM + ".fp16-0000{}-of-00002.safetensors", f"{STEM}.fp16.safetensors.index.json"
    ),
    "old variant": lambda f: _split(f, STEM + "-0000{}-of-00002.fp16.safetensors", None),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_files_has_the_same_parameters(folder: Path, form: str) -> None:
    FORMS[form](folder)
    assert_same(folder)


@pytest.mark.parametrize("form", ["shards", "old variant"])
def test_shards_may_be_bfloat16(folder: Path, form: str) -> None:
    whole = {
        name: array.astype(ml_dtypes.bfloat16)
        for name, array in tensors.load_file(folder / FP16).items()
    }
    tensors.save_file(whole, folder / FP16)
    FORMS[form](folder)
    found, wanted = parameters(folder), unchanged()
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        rounded = array.astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(found[name], rounded, err_msg=name)


def test_each_tensor_has_a_dtype_of_its_own(folder: Path) -> None:
    whole = tensors.load_file(folder / FP16)
    for number, name in enumerate(sorted(whole)):
        whole[name] = whole[name].astype(np.float32) if number % 2 else whole[name]
    tensors.save_file(whole, folder / FP16)
    assert_same(folder)


def test_keys_that_have_their_default_may_be_missing(folder: Path) -> None:
    file = folder / "unet" / "config.json"
    fields = json.loads(file.read_text())
    given = {"norm_eps", "mid_block_scale_factor", "resnet_out_scale_factor", "freq_shift"}
    given |= {"flip_sin_to_cos", "time_embedding_dim", "only_cross_attention", "layers_per_block"}
    kept = {key: value for key, value in fields.items() if key not in given and value is not None}
    file.write_text(json.dumps(kept))
    assert parse_unet_config(kept) == parse_unet_config(fields)
    assert_same(folder)


def test_our_parameters_are_diffusers_tensors_again() -> None:
    stored = tensors.load_file(FOLDER / "if_I" / FP16)
    (pipeline,) = load.open_pipelines([FOLDER / "if_I"])
    model = pipeline.stage.model
    assert isinstance(model, config.DeepFloydUNet)
    back = {
        tensor_names.diffusers_name(name, levels=len(model.levels)): tensor_names.to_diffusers(
            name, array
        )
        for name, array in unchanged().items()
    }
    assert back.keys() == stored.keys()
    for name, array in stored.items():
        np.testing.assert_array_equal(back[name], array.astype(np.float32), err_msg=name)


def test_a_folder_may_attend_to_text_alone(folder: Path) -> None:
    attend_to_text_alone(folder)
    found, whole = parameters(folder), unchanged()
    assert found.keys() < whole.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, whole[name], err_msg=name)


def _changed(change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path], Any]:
    def apply(folder: Path) -> None:
        whole = tensors.load_file(folder / FP16)
        change(whole)
        tensors.save_file(whole, folder / FP16)

    return apply


def _configured(file: str, **changes: Any) -> Callable[[Path], Any]:
    def apply(folder: Path) -> None:
        fields = json.loads((folder / file).read_text()) | changes
        (folder / file).write_text(json.dumps(fields))

    return apply


ODD = np.zeros((3, 3), np.float16)
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (_changed(lambda w: w.pop("conv_in.bias")), r"missing conv_in.bias \(8,\)"),
    "extra": (_changed(lambda w: w.update(odd=ODD)), r"extra odd \(3, 3\)"),
    "shape": (_changed(lambda w: w.update({"conv_in.bias": ODD})), r"conv_in.bias is \(3, 3\)"),
    "int8": (
        _changed(lambda w: w.update({"conv_in.bias": np.zeros(8, np.int8)})),
        "conv_in.bias .* is I8; .* fp16",
    ),
    "only .bin": (lambda f: (f / FP16).rename(f / f"{UNET}.bin"), "no safetensors file"),
    "lost shard": (
        lambda f: (FORMS["shards"](f), next((f / "unet").glob("*-00002-of-*")).unlink()),
        "lacks .*00002-of-00002",
    ),
    "block": (
        _configured("unet/config.json", down_block_types=["DownBlock2D"] * 3),
        "down_block_types is 'DownBlock2D'",
    ),
    "way up": (
        _configured("unet/config.json", up_block_types=["ResnetUpsampleBlock2D"] * 3),
        "up_block_types is not down_block_types",
    ),
    "unknown key": (_configured("unet/config.json", flux=1), "'flux' is 1"),
    "activation": (_configured("unet/config.json", act_fn="mish"), "act_fn is 'mish'"),
    "kind of number": (
        _configured("unet/config.json", norm_num_groups=True),
        "norm_num_groups is true|norm_num_groups is True",
    ),
    "channels": (_configured("unet/config.json", in_channels=6), "in_channels is 6"),
    "betas": (
        _configured("scheduler/scheduler_config.json", beta_schedule="scaled_linear"),
        "beta_schedule is 'scaled_linear'",
    ),
    "time steps": (
        _configured("scheduler/scheduler_config.json", num_train_timesteps=500),
        "num_train_timesteps is 500",
    ),
    "variance": (
        _configured("scheduler/scheduler_config.json", variance_type=["fixed_small"]),
        "variance_type is",
    ),
    "long number": (_configured("unet/config.json", norm_eps=10**400), "norm_eps is 1000"),
    "long key": (_configured("unet/config.json", **{"k" * 10**5: 1}), r"99,920 characters .* is 1"),
    "forged line": (
        _changed(lambda w: w.update({"a\nimagen: all is well": ODD})),
        r"extra a\\nimagen: all is well",
    ),
    "very many": (
        _changed(lambda w: w.update({f"odd{n}": ODD[:0] for n in range(3000)})),
        "and 2,000 more",
    ),
    "pipe": (
        lambda f: ((f / "unet/config.json").unlink(), os.mkfifo(f / "unet/config.json")),
        "config.json is no file",
    ),
    "huge": (
        _configured("unet/config.json", layers_per_block=10**6),
        "layers_per_block is 1000000, and imagen_jax has a whole number of 16 or less",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_does_not_fit_is_refused_by_name(folder: Path, fault: str) -> None:
    damage, said = REFUSED[fault]
    damage(folder)
    with pytest.raises((ValueError, OSError), match=said) as error:
        load.open_pipelines([folder])
    assert str(folder) in str(error.value)
    assert len(str(error.value)) < 50_000


def test_stages_of_one_kind_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="both stage I: give one"):
        load.open_pipelines([FOLDER / "if_I", folder])


def test_runs_beside_pipelines_are_refused(folder: Path) -> None:
    shutil.copytree(FOLDER / "if_I" / "text_encoder", folder.parent / "text_encoder")
    imagen_jax.load(str(folder.parent))
    shutil.copytree(pretrained.folder_of("shapes") / "sr64", folder.parent / "sr64")
    with pytest.raises(ValueError, match="holds pipelines of DeepFloyd IF and the run sr64, which"):
        imagen_jax.load(str(folder.parent))


def test_prompts_need_the_text_encoder(folder: Path) -> None:
    cascade = imagen_jax.load(folder)
    with pytest.raises(ValueError, match="text encoder"):
        cascade.sample("a cube")
    with pytest.raises(ValueError, match=r"text\.width=32, but 't5_1_1_mini' is 256 wide: give"):
        imagen_jax.load(folder, text_encoder="t5_1_1_mini")


def test_a_network_may_attend_to_text_alone(folder: Path) -> None:
    fields = json.loads((folder / "unet" / "config.json").read_text())
    found = parse_unet_config(fields | {"only_cross_attention": [False, True, False]}).model
    assert [level.attention for level in found.levels] == [None, "text", "image_and_text"]
    assert found.middle_attention == "image_and_text"
    whole = parse_unet_config(fields | {"only_cross_attention": True})
    assert whole.model.middle_attention == "text"
    stage = config.Stage(name="a", size=16, model=whole.model)
    shapes = weights.parameter_shapes(stage, text_width=whole.text_width)
    assert not [n for n in shapes if n.endswith("attn_0/key/kernel") and not n.startswith("text")]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, ("linear", "fixed", "static")),
        ({"thresholding": True, "sample_max_value": 1.5}, ("linear", "fixed", "dynamic")),
        ({"clip_sample": False, "variance_type": "learned_range"}, ("linear", "learned", "none")),
        ({"beta_schedule": "squaredcos_cap_v2"}, ("cosine", "fixed", "static")),
    ],
)
def test_schedulers_have_their_defaults(given: dict[str, Any], wanted: tuple[str, ...]) -> None:
    found = parse_scheduler_config(given)
    variance = "learned" if found.learned_variance else "fixed"
    assert (found.betas, variance, found.threshold) == wanted
    assert found.threshold_max == (1.5 if found.threshold == "dynamic" else None)
    assert found.percentile == 99.5


def test_the_parameters_are_read_to_the_devices_when_a_stage_first_samples() -> None:
    cascade = imagen_jax.load(FOLDER)
    assert [s.stage.size for s in cascade.stages] == [16, 64]
    params = cascade.stages[0].device_params()
    leaves = traverse_util.flatten_dict(params, sep="/")
    assert all(isinstance(leaf, jax.Array) for leaf in leaves.values())
    np.testing.assert_array_equal(leaves["stem/kernel"], parameters(FOLDER / "if_I")["stem/kernel"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_out_channels", [2**30, 2**30]),
        ("block_out_channels", [64] * 9),
        ("layers_per_block", 17),
        ("sample_size", 16384),
        ("cross_attention_dim", 2**30),
        ("encoder_hid_dim", 2**30),
        ("time_embedding_dim", 2**30),
        ("attention_head_dim", 2**20),
    ],
)
def test_sizes_far_beyond_these_networks_are_refused_unread(
    folder: Path, key: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "parameter_shapes", lambda *_, **__: pytest.fail("it is traced"))
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=rf"config.json: {key} is .*: it is none of DeepFloyd"):
        load.open_pipelines([folder])


def test_what_is_missing_or_no_file_is_named_with_the_remedy(folder: Path) -> None:
    scheduler, index = folder / "scheduler" / "scheduler_config.json", folder / load.INDEX
    scheduler.unlink()
    with pytest.raises(FileNotFoundError, match=f"^{scheduler} is missing: download it again$"):
        load.open_pipelines([folder])
    scheduler.symlink_to(scheduler.name)
    with pytest.raises(OSError, match=f"^{scheduler} can't be read .Too many levels of symbolic"):
        load.open_pipelines([folder])
    scheduler.unlink()
    os.mkfifo(scheduler)
    with pytest.raises(OSError, match=f"{scheduler} is no file, but a pipe.*: download it again"):
        load.open_pipelines([folder])
    for text in ("{}", '{"_class_name": "StableDiffusionPipeline"}'):
        index.write_text(text)
        for place in (folder, folder.parent):
            with pytest.raises(ValueError, match=f"^{index} names the pipeline .*, and imagen_jax"):
                imagen_jax.load(str(place), compile_cache=False)
