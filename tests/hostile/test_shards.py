"""Names and indices of shards that claim any number of others."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors import numpy as tensors

from imagen_jax.io import remote_files
from imagen_jax.text.checkpoints import huggingface, huggingface_files

NAME = "encoder.block.0.layer.0.SelfAttention.q.weight"


@pytest.fixture(autouse=True)
def _at_once():
    start = time.process_time()
    yield
    assert time.process_time() - start < 5


def _shard(folder: Path, name: str) -> None:
    tensors.save_file({f"{NAME}.{name}": np.zeros((2, 2), np.float32)}, folder / name)


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("model-00001-of-9999999999.safetensors", "model-00002-of-9999999999"),
        (f"model-1-of-{'9' * 200}.safetensors", "model-2-of-9{200}"),
        ("model-00001-of-00003.fp16.safetensors", "model-00002-of-00003.fp16"),
        ("model-00007-of-9999999999.safetensors", "model-00001-of-9999999999"),
        (f"model-{'0' * 200}1-of-99.safetensors", f"model-{'0' * 200}2-of-99"),
    ],
)
def test_a_claimed_number_of_shards_is_not_counted_up_to(
    tmp_path: Path, name: str, lacks: str
) -> None:
    _shard(tmp_path, name)
    with pytest.raises(FileNotFoundError, match=rf"lacks {lacks}\.safetensors") as told:
        huggingface_files.tensor_files(tmp_path)
    assert len(str(told.value)) < 3000


@pytest.mark.parametrize("name", ["model-00003-of-00002", "model-00000-of-00000", "m-1-of-1"])
def test_numbers_that_do_not_fit_are_refused_or_read(tmp_path: Path, name: str) -> None:
    _shard(tmp_path, f"{name}.safetensors")
    if name == "model-00003-of-00002":
        with pytest.raises(FileNotFoundError, match="lacks model-00001-of-00002"):
            huggingface_files.tensor_files(tmp_path)
    else:
        assert len(huggingface_files.tensor_files(tmp_path)) == 1


def _index(folder: Path, weight_map: object) -> None:
    (folder / huggingface_files.INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_an_index_of_very_many_shards_is_refused(tmp_path: Path) -> None:
    _index(tmp_path, {f"w{n}": f"s{n}.safetensors" for n in range(500_000)})
    with pytest.raises(ValueError, match="names 500,000 shards, more than 10,000: download"):
        huggingface_files.tensor_files(tmp_path)


def test_an_index_of_very_many_tensors_is_read(tmp_path: Path) -> None:
    _index(tmp_path, {f"w{n}": "s.safetensors" for n in range(500_000)})
    with pytest.raises(FileNotFoundError, match=r"lacks s\.safetensors, which model"):
        huggingface_files.tensor_files(tmp_path)


@pytest.mark.parametrize(
    "value", [3, None, True, [], {}, ["a"], 1.5, "", "..", "a/../b", "/a", "a\x1b", "-a", "x" * 999]
)
def test_a_shard_has_a_name(tmp_path: Path, value: object) -> None:
    _index(tmp_path, {"a": "b.safetensors", "c": value})
    with pytest.raises(ValueError, match=r"weight_map is .* which is no name"):
        huggingface_files.tensor_files(tmp_path)


def test_very_many_lost_shards_are_listed_shortly(tmp_path: Path) -> None:
    _index(tmp_path, {f"w{n}": f"s{n}.safetensors" for n in range(5000)})
    with pytest.raises(FileNotFoundError, match=" and others, which model") as told:
        huggingface_files.tensor_files(tmp_path)
    assert len(str(told.value)) < 1000


@pytest.mark.parametrize(
    "unit", ["block.1.layer.1.a.", "a.", "block.", ".", "block.1.layer.9", "é"]
)
def test_a_name_of_any_length_is_passed_over(tmp_path: Path, unit: str) -> None:
    tensors.save_file({unit * 30_000 + "!": np.zeros(2, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="holds no T5 encoder") as told:
        huggingface.layout(tmp_path)
    assert len(str(told.value)) < 1000


def test_braces_stand_for_a_bounded_number_of_files(tmp_path: Path) -> None:
    for inside in ("0..9999999999", f"0..{'9' * 5000}", "1..1000001"):
        with pytest.raises(ValueError, match="more than 1,000,000 files"):
            list(remote_files.expand_braces(f"{tmp_path}/{{{inside}}}.tar"))
    assert len(list(remote_files.expand_braces("{00..99}"))) == 100
