"""DeepFloyd IF's cleaner against what diffusers 0.42.1 made of a hundred captions."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import run_imagen
from deepfloyd_references import FOLDER
from PIL import Image

import imagen_jax
from imagen_jax.text import deepfloyd_cleaner
from imagen_jax.text.encoder import TextEncoder

FILE = Path(__file__).parents[1] / "fixtures" / "deepfloyd_captions.json"
CAPTIONS = json.loads(FILE.read_text())["captions"]


def test_captions_become_what_diffusers_makes_of_them() -> None:
    assert len(CAPTIONS) > 60
    found = {caption: deepfloyd_cleaner.clean_caption(caption) for caption in CAPTIONS}
    assert found == CAPTIONS
    assert sum(caption.lower().strip() != cleaned for caption, cleaned in found.items()) > 60


@pytest.mark.parametrize("module", deepfloyd_cleaner.MODULES)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=r"cleaner needs .*imagen_jax\[deepfloyd\]"):
        deepfloyd_cleaner.clean_caption("a cat")


def test_prompts_go_through_it_only_where_asked() -> None:
    plain = imagen_jax.load(FOLDER, compile_cache=False)
    cleaned = plain.with_caption_cleaner()
    assert isinstance(plain.encoder, TextEncoder)
    assert isinstance(cleaned.encoder, TextEncoder)
    given, bare = ["a <b>red</b> cube (photo)"], ["a red cube photo"]
    assert cleaned.encoder.ragged_ids(given) == plain.encoder.ragged_ids(bare)
    assert plain.encoder.ragged_ids(given) != plain.encoder.ragged_ids(bare)


@pytest.mark.slow
def test_the_flag_cleans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, more in (("a", ("--clean-caption", "a <b>red</b> cube (photo)")), ("b", ())):
        command = ("sample", str(FOLDER / "if_I"), *(more or ("a red cube photo",)))
        assert (
            run_imagen(monkeypatch, *command, "--timesteps", "999:0", "--out", str(tmp_path / name))
            == 0
        )
    images = [Image.open(next((tmp_path / name).glob("0000*.png"))) for name in "ab"]
    np.testing.assert_array_equal(*map(np.asarray, images))
