"""`imagen encode SOURCE --for CONFIG`, and the refusals of `imagen train` that name it."""

import shlex
from pathlib import Path

import jpegs
import pytest

from imagen_jax.cli import encode, train
from imagen_jax.data.store import store

CONFIG = "tiny/sr16"


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    folder = tmp_path / "my pictures"
    folder.mkdir()
    for index in range(4):
        (folder / f"{index}.jpg").write_bytes(jpegs.photo((50, 40), seed=index))
        (folder / f"{index}.txt").write_text(f"snapshot {index}")
    return f"folder:{folder}"


def _refusal(*arguments: str) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        train.run([CONFIG, "--workdir", "unused", *arguments])
    return str(raised.value)


def _command(sentence: str) -> list[str]:
    """The command that a sentence has in backquotes."""
    (command,) = [part for part in sentence.split("`") if part.startswith("imagen encode ")]
    return shlex.split(command)[2:]


def test_the_pairs_have_what_the_config_asks_for(pictures: str, tmp_path: Path) -> None:
    encode.run([pictures, "--for", "tiny", "--out", str(tmp_path / "pairs")])
    found = store.open_store(tmp_path / "pairs")
    assert (found.encoder, found.max_length, found.sizes) == ("t5_1_1_tiny", 32, (8, 16, 32))


def test_an_option_overrides_the_config(pictures: str, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    encode.run([pictures, "--for", "tiny/base8", "--max-length", "9", "--out", str(out)])
    found = store.open_store(out)
    assert (found.encoder, found.max_length, found.sizes) == ("t5_1_1_tiny", 9, (8,))


@pytest.mark.parametrize("changes", [[], ["--text.max-length", "12"]])
def test_a_refusal_names_the_command_that_makes_the_right_pairs(
    changes: list[str], pictures: str, tmp_path: Path
) -> None:
    pairs = tmp_path / "pairs"
    run = [*changes, "--data.dataset", pictures, "--pairs", str(pairs)]
    encode.run(_command(_refusal(*run)))
    found = store.open_store(pairs)
    assert found.dataset == pictures
    assert (found.max_length, found.sizes) == (12 if changes else 32, (16,))


def test_a_store_of_another_length_says_how_to_make_one(pictures: str, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs"
    encode.run([pictures, "--for", CONFIG, "--max-length", "9", "--out", str(pairs)])
    said = _refusal("--pairs", str(pairs))
    assert "max_length 9, but text.max_length=32" in said
    assert _command(said) == [pictures, "--for", CONFIG, "--out", str(pairs)]


def test_the_configs_own_dataset_needs_no_source(tmp_path: Path) -> None:
    assert _command(_refusal("--data-dir", str(tmp_path))) == [CONFIG, "--data-dir", str(tmp_path)]
