"""Files of adapters: written uniformly, read in every spelling, and refused whole."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as tensors

from imagen_jax import lora
from imagen_jax.lora import files

MODULES = {
    "mid_block.attentions.0.to_q": "mid/attn_0/query",
    "mid_block.attentions.0.add_k_proj": "text/mid_attn_0/key",
    "mid_block.attentions.0.to_out.0": "mid/attn_0/out",
    "mid_block.resnets.0.conv1": "mid/res_0/conv_0",
}
RANK = 2
SPELLINGS = {
    "uniform": ("unet.{}.lora_A.weight", "unet.{}.lora_B.weight"),
    "bare": ("{}.lora_A.weight", "{}.lora_B.weight"),
    "before PEFT": ("unet.{}.lora.down.weight", "unet.{}.lora.up.weight"),
    "PEFT's adapter": ("unet.{}.lora_A.default.weight", "unet.{}.lora_B.default.weight"),
}


def matrices(seed: int = 0) -> dict[str, tuple[Any, Any]]:
    """Torch's (r, i, ...) and (o, r, ...) of each module."""
    draw = np.random.default_rng(seed)

    def normal(*shape: int) -> Any:
        return draw.standard_normal(shape).astype(np.float32)

    found = {name: (normal(RANK, 4), normal(6, RANK)) for name in list(MODULES)[:3]}
    found["mid_block.resnets.0.conv1"] = (normal(RANK, 4, 3, 3), normal(6, RANK, 1, 1))
    return found


def spelled(name: str, how: str) -> dict[str, Any]:
    down, up = SPELLINGS[how]
    return dict(zip((down.format(name), up.format(name)), matrices()[name], strict=True))


def write(file: Path, named: dict[str, Any], **metadata: str) -> Path:
    file.write_bytes(tensors.save(named, metadata=metadata or None))
    return file


def check(found: lora.Adapters, *, scale: float, names: Any = MODULES) -> None:
    modules = found.modules()
    assert set(modules) == {MODULES[name] for name in names}
    for name in names:
        down, up = matrices()[name]
        ours = modules[MODULES[name]]
        if down.ndim == 4:
            down, up = down.transpose(0, 2, 3, 1), up[:, :, 0, 0]
            np.testing.assert_array_equal(ours["lora_A"], down.transpose(1, 2, 3, 0))
        else:
            np.testing.assert_array_equal(ours["lora_A"], down.T)
        np.testing.assert_array_equal(ours["lora_B"], up.T)
        assert found.scales[MODULES[name]] == pytest.approx(scale)


@pytest.mark.parametrize("how", SPELLINGS)
def test_every_spelling_is_read_whole(tmp_path: Path, how: str) -> None:
    named: dict[str, Any] = {}
    for name in MODULES:
        named |= spelled(name, how)
    check(lora.read_adapters(write(tmp_path / "a.safetensors", named), MODULES), scale=1.0)


def test_a_file_of_two_spellings_is_read_whole(tmp_path: Path) -> None:
    """As diffusers' training script for DeepFloyd writes it, and its loader reads in part."""
    named: dict[str, Any] = {}
    for name in MODULES:
        named |= spelled(name, "uniform" if "add_k" in name else "before PEFT")
    check(lora.read_adapters(write(tmp_path / "a.safetensors", named), MODULES), scale=1.0)


def test_attention_processors_of_old_files_are_read(tmp_path: Path) -> None:
    place = "unet.mid_block.attentions.0.processor"
    named = {}
    for name, old in (("to_q", "to_q"), ("add_k_proj", "add_k_proj"), ("to_out.0", "to_out")):
        down, up = matrices()[f"mid_block.attentions.0.{name}"]
        named |= {f"{place}.{old}_lora.down.weight": down, f"{place}.{old}_lora.up.weight": up}
    found = lora.read_adapters(write(tmp_path / "a.safetensors", named), MODULES)
    check(found, scale=1.0, names=list(MODULES)[:3])


@pytest.mark.parametrize("dtype", [np.float32, np.int64])  # diffusers' converter has whole ones
def test_kohyas_files_are_read_with_their_alphas(tmp_path: Path, dtype: Any) -> None:
    named = {}
    for name in MODULES:
        down, up = matrices()[name]
        place = "lora_unet_" + name.replace(".", "_")
        named |= {
            f"{place}.lora_down.weight": down,
            f"{place}.lora_up.weight": up,
            f"{place}.alpha": np.asarray(5, dtype),
        }
    found = lora.read_adapters(write(tmp_path / "a.safetensors", named), MODULES)
    check(found, scale=5 / RANK)


def test_pefts_folders_are_read(tmp_path: Path) -> None:
    named = {}
    for name in MODULES:
        down, up = matrices()[name]
        place = f"base_model.model.{name}"
        named |= {f"{place}.lora_A.weight": down, f"{place}.lora_B.weight": up}
    write(tmp_path / "adapter_model.safetensors", named)
    options = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "bias": "none"}
    _write_peft(tmp_path, options)
    check(lora.read_adapters(tmp_path, MODULES), scale=8 / RANK)
    _write_peft(tmp_path, options | {"use_rslora": True})
    check(lora.read_adapters(tmp_path, MODULES), scale=8 / RANK**0.5)
    _write_peft(tmp_path, options | {"alpha_pattern": {"to_q": 3}})
    scales = lora.read_adapters(tmp_path, MODULES).scales
    assert scales["mid/attn_0/query"] == 3 / RANK
    assert scales["mid/attn_0/out"] == 8 / RANK


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"peft_type": "LOHA", "lora_alpha": 8}, "peft_type is 'LOHA', but only LORA is read"),
        ({"use_dora": True, "lora_alpha": 8}, "use_dora=True is not read: train without it"),
        ({"bias": "all", "lora_alpha": 8}, "bias='all' is not read"),
        ({"r": 2}, "has no lora_alpha"),
        ({"lora_alpha": -1}, "lora_alpha=-1: must be a number above 0"),
        ({"lora_alpha": "8"}, "lora_alpha='8': must be a number above 0"),
        ({"lora_alpha": 8, "alpha_pattern": {"to_q": [1]}}, "alpha_pattern"),
    ],
)
def test_peft_configs_that_mean_something_else_are_refused(
    tmp_path: Path, options: Any, said: str
) -> None:
    write(tmp_path / "adapter_model.safetensors", {"a": np.zeros(1, np.float32)})
    _write_peft(tmp_path, options)
    with pytest.raises(ValueError, match=r"adapter_config\.json") as refusal:
        lora.read_adapters(tmp_path, MODULES)
    assert said in str(refusal.value)


def test_what_is_written_is_read_again_and_names_rank_and_alpha(tmp_path: Path) -> None:
    named: dict[str, Any] = {}
    for name in MODULES:
        named |= spelled(name, "uniform")
    header = json.dumps({"unet.r": RANK, "unet.lora_alpha": 8, "unet.target_modules": []})
    first = write(tmp_path / "a.safetensors", named, lora_adapter_metadata=header)
    adapters = lora.read_adapters(first, MODULES)
    check(adapters, scale=8 / RANK)
    second = tmp_path / "b.safetensors"
    lora.write_adapters(second, adapters, modules=MODULES, facts={"stage": "base"})
    check(lora.read_adapters(second, MODULES), scale=8 / RANK)
    assert files.read_facts(second) == {"stage": "base"}
    with files.open_tensors(second) as opened:
        found = json.loads(opened.metadata()["lora_adapter_metadata"])
        assert found == {
            "unet.r": RANK,
            "unet.lora_alpha": 8,
            "unet.target_modules": sorted(MODULES),
        }
        assert set(opened.keys()) == set(named)
        for name, array in named.items():
            np.testing.assert_array_equal(opened.get_tensor(name), array)


def test_several_scales_are_folded_into_the_second_matrix(tmp_path: Path) -> None:
    named: dict[str, Any] = {}
    for name in MODULES:
        named |= spelled(name, "uniform")
    adapters = lora.read_adapters(write(tmp_path / "a.safetensors", named), MODULES)
    scales = dict(adapters.scales) | {"mid/attn_0/query": 3.0}
    file = tmp_path / "b.safetensors"
    lora.write_adapters(file, adapters.replace(scales=scales), modules=MODULES)
    found = lora.read_adapters(file, MODULES)
    assert set(found.scales.values()) == {1.0}
    query = adapters.modules()["mid/attn_0/query"]["lora_B"]
    np.testing.assert_allclose(found.modules()["mid/attn_0/query"]["lora_B"], 3 * query)


def _spoil(**changes: Any) -> dict[str, Any]:
    named = spelled("mid_block.attentions.0.to_q", "uniform")
    return {name: value for name, value in (named | changes).items() if value is not None}


QUERY = "unet.mid_block.attentions.0.to_q.lora_"


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (_spoil(**{"text_encoder.q.lora_A.weight": np.zeros((2, 4))}), "1 tensors are of no mod"),
        (_spoil(**{"unet.mid_block.attentions.9.to_q.lora_A.weight": np.zeros((2, 4))}), "s.9."),
        (_spoil(**{"unet.conv_in.weight": np.zeros((2, 4))}), "unet.conv_in.weight"),
        (_spoil(**{QUERY + "B.weight": None}), "attentions.0.to_q has no lora_B"),
        (
            _spoil(**{QUERY + "B.weight": np.zeros((6, 3), np.float32)}),
            "lora_A has rank 2 and lora_B has 3",
        ),
        (_spoil(**{QUERY + "A.weight": np.zeros((2, 4), np.int8)}), "holds I8, wanted F16"),
        (
            _spoil(**{QUERY + "A.weight": np.full((2, 4), np.nan, np.float32)}),
            "values that are not finite",
        ),
        (_spoil(**{QUERY + "A.weight": np.zeros(4, np.float32)}), "shape (4,), which no adapter"),
        (
            _spoil(**{"unet.mid_block.attentions.0.to_q.alpha": np.zeros((), np.float32)}),
            "alpha=0.0: must be a number above 0",
        ),
        (
            _spoil(**{"unet.mid_block.attentions.0.to_q.alpha": np.ones(2, np.float32)}),
            "has 2 values, wanted 1",
        ),
        ({}, "has no adapter"),
    ],
)
def test_files_that_are_not_read_whole_are_refused(
    tmp_path: Path, named: dict[str, Any], said: str
) -> None:
    file = write(tmp_path / "a.safetensors", named)
    with pytest.raises(ValueError, match=r"a\.safetensors") as refusal:
        lora.read_adapters(file, MODULES)
    assert said in str(refusal.value)


def test_a_header_of_another_network_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"unet.r": 2, "text_encoder.r": 2})
    named = spelled("mid_block.attentions.0.to_q", "uniform")
    file = write(tmp_path / "a.safetensors", named, lora_adapter_metadata=header)
    with pytest.raises(ValueError, match=r"speaks of 'text_encoder.r'"):
        lora.read_adapters(file, MODULES)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_halves_are_read(tmp_path: Path, dtype: Any) -> None:
    named = spelled("mid_block.attentions.0.to_q", "uniform")
    file = write(tmp_path / "a.safetensors", {n: x.astype(dtype) for n, x in named.items()})
    down = lora.read_adapters(file, MODULES).modules()["mid/attn_0/query"]["lora_A"]
    assert down.dtype == np.float32
    np.testing.assert_array_equal(down, named[QUERY + "A.weight"].astype(dtype).T)


def _write_peft(folder: Path, options: dict[str, Any]) -> None:
    (folder / "adapter_config.json").write_text(json.dumps(options))
