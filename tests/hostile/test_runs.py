"""Runs that strangers made: what their configs name ends in a sentence, too."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from imagen_jax import config
from imagen_jax.io import checkpoints, run_dir
from imagen_jax.pretrained import locate


def _adapters_of(folder: Path, base: Path) -> config.Experiment:
    """A run of adapters that change the weights of another."""
    (plain,) = config.load("tiny/base8")
    adapters = config.Lora(rank=2, base=str(base), identity="x")
    made = dataclasses.replace(plain, lora=adapters)
    run_dir.write_config(folder, made)
    return made


def test_adapters_of_themselves_are_refused(tmp_path: Path) -> None:
    for first, second in (("a", "a"), ("b", "c")):
        made = _adapters_of(tmp_path / first, tmp_path / second)
        _adapters_of(tmp_path / second, tmp_path / first)
        with pytest.raises(ValueError, match=r"which has adapters of others, more than 16 deep"):
            locate.load_base(made.lora, made.stage, where=tmp_path / first)


def test_adapters_of_adapters_end_in_what_is_missing(tmp_path: Path) -> None:
    made = _adapters_of(tmp_path / "0", tmp_path / "1")
    for number in range(1, 9):
        _adapters_of(tmp_path / f"{number}", tmp_path / f"{number + 1}")
    with pytest.raises(FileNotFoundError, match="1: no checkpoint yet"):
        locate.load_base(made.lora, made.stage, where=tmp_path / "0")


def test_a_folder_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    (plain,) = config.load("tiny/base8")
    run_dir.write_config(tmp_path / "run", plain)
    (tmp_path / "run" / checkpoints.CHECKPOINTS / "3" / "state").mkdir(parents=True)
    shutil.move(tmp_path / "run", tmp_path / "\udcff")
    with pytest.raises(ValueError, match=r"'\\udcff' is no Unicode text: rename it"):
        locate.load_stage(tmp_path / "\udcff", plain, None, keep=False)
