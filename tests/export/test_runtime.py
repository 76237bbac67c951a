"""The code of docs/runtime.md paints from a bundle in an environment without this package."""

import re
from importlib import metadata
from pathlib import Path

import bare_environment
import numpy as np
import pytest
from PIL import Image

import imagen_jax

PAGE = Path(__file__).parents[2] / "docs" / "runtime.md"
PACKAGES = ("jax", "jaxlib", "safetensors", "sentencepiece", "numpy", "flatbuffers")
PROMPTS = ["a large red circle", "", "a small blue square on a white background"]
LISTED = "from importlib.metadata import *; print(*(d.name for d in distributions()))"


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """Python with the packages that the page names, of the versions that are here."""
    wanted = [f"{name}=={metadata.version(name)}" for name in PACKAGES]
    return bare_environment.make(tmp_path_factory.mktemp("bare"), wanted)


def test_the_page_names_the_packages() -> None:
    (line,) = re.findall(r"pip install ([\w ]+?)  ", PAGE.read_text())
    assert {*line.split(), "jaxlib"} == set(PACKAGES)


def test_the_code_on_the_page_paints(
    bare: Path, random_bundle: Path, loaded: imagen_jax.Imagen, tmp_path: Path
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) < 45
    (tmp_path / "paint.py").write_text(code)
    there = bare_environment.run([str(bare), "-c", LISTED], tmp_path).split()
    assert not {"imagen_jax", "flax", "orbax-checkpoint", "tensorflow"} & set(there)
    quick = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    bare_environment.run(
        [str(bare), "-W", "error", "paint.py", str(random_bundle), *PROMPTS], tmp_path, **quick
    )
    expected = loaded.sample(PROMPTS, seed=0)["sr16"]
    for number, picture in enumerate(expected):
        found = np.asarray(Image.open(tmp_path / f"{number}.ppm")).astype(int)
        assert np.abs(found - picture).max() <= 1
        assert picture.std() > 20
