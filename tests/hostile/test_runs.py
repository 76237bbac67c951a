"""Runs that strangers made: what their configs name ends in a sentence, too."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from command_line import run_imagen

from imagen_jax import config, finetune
from imagen_jax.cli import finetune as finetune_command
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


PROGRAM = "open({!r}, 'w')\nraise SystemExit\n"


@pytest.mark.parametrize("name", ["config.json", "manifest.json", "model_index.json"])
def test_no_program_of_a_run_is_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("{}")
    (tmp_path / "run" / "a.py").write_text(PROGRAM.format(str(tmp_path / "ran")))
    with pytest.raises(ValueError, match=rf"run has a {name}, as a run .* is not run; give the"):
        config.load(str(tmp_path / "run"))
    assert not (tmp_path / "ran").exists()


def test_no_program_of_a_cascade_that_is_fine_tuned_is_run(tmp_path: Path, monkeypatch) -> None:
    """Its folder is not taken for one of configs, which are programs."""
    (plain,) = config.load("tiny/base8")
    cascade = tmp_path / "cascade"
    run_dir.write_config(cascade / "base8", plain)
    (cascade / "a.py").write_text(PROGRAM.format(str(tmp_path / "ran")))
    options = finetune_command.Options(
        images=tmp_path, cascade=str(cascade), prompt="a sks thing", out=tmp_path / "out"
    )
    choices = finetune.choose(3, rank=2, batch_size=8)
    dataset = finetune.SubjectDataset(tmp_path / "data", "a sks thing")
    with pytest.raises(FileNotFoundError, match=r"run `imagen finetune \.\.\. --out .*out` first"):
        finetune_command._train(plain, choices, dataset, options, tmp_path / "pairs")
    assert not (tmp_path / "ran").exists()


def test_no_program_in_a_folder_of_images_is_run(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "a.py").write_text(PROGRAM.format(str(tmp_path / "ran")))
    assert run_imagen(monkeypatch, "encode", str(tmp_path)) == 1
    assert "is a folder of data and no config: give --out" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
