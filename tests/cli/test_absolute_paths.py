"""A run keeps absolute paths of its text encoder and tokenizer."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from imagen_jax import config
from imagen_jax.cli import train
from imagen_jax.train import loop


def test_relative_paths_become_absolute_and_names_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[config.Text] = []

    def run(experiment: config.Experiment, *others, **options) -> SimpleNamespace:
        seen.append(experiment.text)
        return SimpleNamespace(step=experiment.train.steps)

    monkeypatch.setattr(loop, "train", run)
    pairs = SimpleNamespace(dataset="shapes/tiny", split="train")
    monkeypatch.setattr(train, "_open_store", lambda *arguments: pairs)
    (tmp_path / "here").mkdir()
    (tmp_path / "enc").mkdir()
    (tmp_path / "words.model").touch()
    monkeypatch.chdir(tmp_path / "here")
    command = ["tiny/base8", "--workdir", "run"]
    train.run(command)
    train.run([*command, "--text.encoder", "../enc", "--text.tokenizer", "../words.model"])
    train.run([*command, "--text.encoder", "t5_1_1_xxl"])
    places = [(text.encoder, text.tokenizer) for text in seen]
    assert places == [
        ("t5_1_1_tiny", ""),
        (str(tmp_path / "enc"), str(tmp_path / "words.model")),
        ("t5_1_1_xxl", ""),
    ]
