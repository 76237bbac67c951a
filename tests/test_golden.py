"""What was saved before still reads, and the cascade in the box samples what it always did.

`tests/fixtures/golden` holds a store, a run and an exported cascade of the tiny configs, and images
sampled from them and from the cascade in the box. A change of names or layout alters none of them.
Another CPU or jax rounds otherwise, so images may differ by one grey level; with `GOLDEN=exact`
they may not.
"""

import hashlib
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imagen_jax
from imagen_jax.cli import train
from imagen_jax.data.store import store

pytestmark = pytest.mark.usefixtures("one_device")
GOLDEN = Path(__file__).parent / "fixtures/golden"
PROMPT = "a large red circle above a small blue square on a white background"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what was saved before: `shapes-tiny`, `tiny` and `bundle`."""
    folder = tmp_path_factory.mktemp("golden")
    for name in ("store", "run", "bundle"):
        with tarfile.open(GOLDEN / f"{name}.tar.xz") as archive:
            archive.extractall(folder, filter="data")
    return folder


def assert_golden(name: str, image: np.ndarray) -> None:
    """An image equals the stored one, to one grey level or, with GOLDEN=exact, to the bit."""
    expected = np.asarray(Image.open(GOLDEN / f"{name}.png"))
    assert image.shape == expected.shape
    allowed = 0 if os.environ.get("GOLDEN") == "exact" else 1
    assert np.abs(image.astype(int) - expected.astype(int)).max() <= allowed


def test_the_cascade_in_the_box_samples_the_same_image_at_every_stage() -> None:
    images = imagen_jax.load("shapes").sample([PROMPT], seed=0)
    assert list(images) == ["base16", "sr64", "sr256"]
    for stage, batch in images.items():
        assert_golden(f"box-{stage}", batch[0])


def test_a_stored_store_reads(saved: Path) -> None:
    found = store.open_store(saved / "shapes-tiny/t5_1_1_tiny/train")
    first = found.source()[0]
    assert first.captions == tuple(EXPECTED["store"]["captions"])
    assert len(found.source()) == EXPECTED["store"]["count"]
    digest = hashlib.sha256(np.asarray(first.texts[0].array(), np.float32).tobytes())
    assert digest.hexdigest() == EXPECTED["store"]["text"]


@pytest.mark.parametrize("kind", ["tiny", "bundle"])
def test_a_stored_cascade_samples_the_same_images(saved: Path, kind: str) -> None:
    images = imagen_jax.load(saved / kind).sample([PROMPT], seed=0)
    assert list(images) == ["base8", "sr16"]
    for stage, batch in images.items():
        assert_golden(f"{kind}-{stage}", batch[0])


def test_a_stored_run_goes_on(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "shapes-tiny", tmp_path / "data/encoded/shapes-tiny")
    workdir = shutil.copytree(saved / "tiny/base8", tmp_path / "base8")
    options = ["--data-dir", str(tmp_path / "data"), "--train.steps", "6"]
    train.run(["tiny/base8", "--workdir", str(workdir), *options])
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 6
    assert last["loss"] == pytest.approx(EXPECTED["run"]["loss"], rel=1e-4)
