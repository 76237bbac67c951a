"""The wheel, installed in an environment of its own, has all that sampling needs."""

import shutil
import sys
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath

import bare_environment
import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parent.parent
FOLDERS = ("imagen_jax", "configs", "launch")
FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
PROMPT = "a large red circle above a small blue square on a white background"
QUICK = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as a wheel, built from a copy, since building leaves files in the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    hidden = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in FOLDERS:
        shutil.copytree(REPOSITORY / name, folder / "source" / name, ignore=hidden)
    for name in FILES:
        shutil.copy(REPOSITORY / name, folder / "source")
    uv = bare_environment.find_uv()
    bare_environment.run(
        [uv, "build", "-q", "--python", sys.executable, "--wheel", "source", "-o", "."], folder
    )
    return next(folder.glob("*.whl"))


def test_it_says_its_licence_and_has_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {PurePosixPath(name).name: name for name in archive.namelist()}
        facts = archive.read(names["METADATA"]).decode()
    assert {"LICENSE", "NOTICE", "py.typed", "test.sh"} <= set(names)
    assert "License-Expression: Apache-2.0" in facts
    assert "Classifier: Typing :: Typed" in facts


def test_it_samples_from_the_box(wheel: Path, tmp_path: Path) -> None:
    others = (d for d in metadata.distributions() if d.name != "imagen_jax")
    (tmp_path / "here.txt").write_text("\n".join(f"{d.name}=={d.version}" for d in others))
    python = bare_environment.make(tmp_path, [str(wheel), "-c", str(tmp_path / "here.txt")])
    imagen = python.parent / "imagen"
    bare_environment.run(
        [str(imagen), "sample", "shapes", PROMPT, "--until", "sr64", "--out", "out"],
        tmp_path,
        **QUICK,
    )
    (file,) = (p for p in (tmp_path / "out").glob("*.png") if p.stem != "grid")
    image = np.asarray(Image.open(file)).astype(int)
    golden = np.asarray(Image.open(REPOSITORY / "tests/fixtures/golden/box-sr64.png")).astype(int)
    assert np.abs(image - golden).max() <= 1
