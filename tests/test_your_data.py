"""The commands of docs/your-data.md: from captioned files to images, and to a TPU machine."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import your_data
from PIL import Image

from imagen_jax import cli, config

COUNT = 24
SHORT = {"data/pairs --workdir": "data/pairs --train.steps 2 --optim.warmup-steps 0 --workdir"}
SHORT_TUNING = {
    "--train.steps 500": "--train.steps 2",
    "--optim.warmup-steps 50": "--optim.warmup-steps 0",
}
FEW = {"--images-per-prompt 4": "--images-per-prompt 2 --steps 2"}


def run(monkeypatch: pytest.MonkeyPatch, words: Sequence[str]) -> None:
    """Run a command of `imagen` in this process."""
    monkeypatch.setattr(sys, "argv", list(words))
    cli.main()


def sides(folder: Path) -> list[int]:
    """Sides, in pixels, of the images that were sampled to a folder."""
    found = []
    for file in sorted(folder.glob("0*.png")):
        with Image.open(file) as image:
            found.append(image.width)
    return found


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: captioned photos of several sizes, and the page's config."""
    your_data.make_photos(tmp_path / "data" / "photos", COUNT)
    your_data.save_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_config_is_as_the_page_says(clone: Path) -> None:
    (mine,) = config.load(str(your_data.CONFIG))
    model = mine.stage.model
    assert isinstance(model, config.UNet)
    assert model.feature_sides(mine.stage.size) == (16, 8)  # of 32 px joined two by two
    assert model.attention_at == (8,)
    assert model.text.positions >= mine.text.max_length
    assert 1 / (1 - mine.optim.ema_decay) == pytest.approx(mine.train.steps / 10)
    assert mine.train.steps * mine.train.batch_size == 160 * 200


@pytest.mark.slow
def test_from_files_to_images_on_a_laptop(clone: Path, monkeypatch) -> None:
    for words in your_data.read_commands("On a laptop", SHORT | FEW):
        run(monkeypatch, words)
    assert "24 examples" in (clone / "runs" / "check" / "report.md").read_text()
    index = json.loads((clone / "data" / "pairs" / "store.json").read_text())
    assert (index["count"], index["sizes"], index["max_length"]) == (COUNT, [32], 24)
    assert sides(clone / "runs" / "images") == [32, 32]


@pytest.mark.slow
def test_from_the_weights_in_the_box(clone: Path, monkeypatch) -> None:
    for words in your_data.read_commands("From the weights in the box", SHORT_TUNING | FEW):
        run(monkeypatch, words)
    last = json.loads((clone / "runs/tuned/base16/config.json").read_text())
    assert (last["train"]["steps"], last["optim"]["learning_rate"]) == (2, 3e-4)
    assert sides(clone / "runs" / "images16") == [16, 16]
