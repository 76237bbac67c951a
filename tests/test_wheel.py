"""The wheel, installed in an environment of its own, samples, trains and exports offline."""

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
OFFLINE = {"http_proxy": "http://localhost:9", "https_proxy": "http://localhost:9"}
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
    assert {"LICENSE", "NOTICE", "py.typed", "test.sh", "DejaVuSans.ttf"} <= set(names)
    assert not {"noise_augmentation.py", "step_time.py"} & set(names)
    assert "License-Expression: Apache-2.0" in facts
    assert "Classifier: Typing :: Typed" in facts


@pytest.fixture(scope="module")
def imagen(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of an environment that has the wheel and what it requires, and no extra."""
    folder = tmp_path_factory.mktemp("bare")
    others = (d for d in metadata.distributions() if d.name != "imagen_jax")
    (folder / "here.txt").write_text("\n".join(f"{d.name}=={d.version}" for d in others))
    python = bare_environment.make(folder, [str(wheel), "-c", str(folder / "here.txt")])
    found = bare_environment.run([str(python), "-c", "import matplotlib"], folder, fails=True)
    assert "No module named 'matplotlib'" in found
    return python.parent / "imagen"


def _run(imagen: Path, folder: Path, line: str, *more: str) -> None:
    bare_environment.run([str(imagen), *line.split(), *more], folder, **QUICK, **OFFLINE)


def test_it_samples_from_the_box(imagen: Path, tmp_path: Path) -> None:
    _run(imagen, tmp_path, "sample shapes --last-stage sr64 --out out", PROMPT)
    (file,) = (p for p in (tmp_path / "out").glob("*.png") if p.stem != "grid")
    image = np.asarray(Image.open(file)).astype(int)
    golden = np.asarray(Image.open(REPOSITORY / "tests/fixtures/golden/box-sr64.png")).astype(int)
    assert np.abs(image - golden).max() <= 1


@pytest.mark.slow
def test_it_trains_and_exports(imagen: Path, tmp_path: Path) -> None:
    _run(imagen, tmp_path, "data build shapes/tiny --workers 1")
    _run(imagen, tmp_path, "encode tiny/base8")
    _run(imagen, tmp_path, "train tiny/base8 --workdir run --train.steps 20")
    _run(imagen, tmp_path, "export run --out bundle")
    _run(imagen, tmp_path, "sample bundle --out images --steps 2", PROMPT)
    assert (tmp_path / "images" / "grid.png").stat().st_size > 0
