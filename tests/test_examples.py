"""The examples run: the notebook cell by cell, and the programs with few steps."""

import json
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from deepfloyd_references import FOLDER
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def _run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads((EXAMPLES / "sampling.ipynb").read_text())["cells"]
    names: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            exec("".join(cell["source"]), names)
    assert [image.size for image in names["images"]] == [(64, 64)] * 2
    assert names["samples"]["base16"].shape == (2, 16, 16, 3)


@pytest.mark.slow
def test_training_in_memory_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _run(monkeypatch, "train_in_memory.py", "--steps", "2", "--out", str(tmp_path))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["blue.png", "green.png", "red.png"]


@pytest.mark.slow
def test_fine_tuning_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for number in range(4):
        pixels = np.full((32, 32, 3), 60 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        (tmp_path / "images" / f"{number}.txt").write_text("a large red circle")
    _run(monkeypatch, "fine_tune.py", "images", "--steps", "1", "--out", "run")
    with Image.open("run/sample.png") as image:
        assert image.size == (16, 16)


@pytest.mark.slow
def test_score_distillation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "image.png"
    options = ("--steps", "2", "--grid", "4", "--out", str(image))
    with jax.numpy_dtype_promotion("standard"):  # optax mixes Python floats with counts
        _run(monkeypatch, "score_distillation.py", str(FOLDER / "if_I"), "a cube", *options)
    with Image.open(image) as opened:
        pixels = np.asarray(opened)
    assert pixels.shape == (16, 16, 3)
    assert pixels.std() > 1  # it begins with one grey
