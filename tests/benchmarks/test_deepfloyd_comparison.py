"""The comparison with diffusers, as far as it goes without it."""

import sys
from pathlib import Path

import numpy as np
import pytest

from imagen_jax import config, models
from imagen_jax.pretrained.deepfloyd import load
from imagen_jax.pretrained.deepfloyd.unet_config import parse_unet_config


def test_the_folder_is_a_pipeline_of_stage_one(tmp_path: Path) -> None:
    import _deepfloyd_folder

    count = _deepfloyd_folder.write_pipeline(tmp_path, (64, 128))
    (pipeline,) = load.open_pipelines([tmp_path])
    assert pipeline.stage.sampler.threshold_max == 1.5
    assert sum(int(np.prod(tensor.shape)) for tensor, _ in pipeline.layout) == count


def test_the_widths_of_i_m_have_its_parameters() -> None:
    import _deepfloyd_folder

    found = parse_unet_config(_deepfloyd_folder.unet_config(_deepfloyd_folder.WIDTHS["I-M"]))
    stage = config.Stage(name="deepfloyd_1", size=64, model=found.model)
    text = config.Text(width=found.text_width, max_length=77, padding="encoded")
    count = models.count_parameters(models.parameter_shapes(stage, text))
    assert round(count / 1e6, 1) == 371.6


def test_predictions_are_compared(tmp_path: Path) -> None:
    from _deepfloyd_sides import Case

    case = Case(folder=tmp_path, parameters=0, steps=2)
    case.keep("ours", case.noise())
    case.keep("theirs", case.noise() / 2)
    assert case.deviation() == 1.0


def test_the_table_compares_with_ours() -> None:
    import deepfloyd
    from _peer_turns import Row

    rows = [
        Row("imagen_jax", 2_000_000, 1e9, 12e9, 0.5, 0.25, 2**30),
        Row("diffusers", 2_000_000, 0.0, 0.0, 0.75, 0.5, 2**31),
    ]
    line = "| diffusers | 2.0 M | 0.75 | 0.5 | 2.00 GiB | 1.50 x | 2.00 x |"
    assert deepfloyd.table(rows).splitlines()[-1] == line


def test_without_diffusers_one_sentence_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import _deepfloyd_sides
    from _peer_shapes import Missing

    monkeypatch.setitem(sys.modules, "diffusers", None)
    case = _deepfloyd_sides.Case(folder=tmp_path, parameters=0, steps=2)
    with pytest.raises(Missing, match=r"pip install 'imagen_jax\[diffusers\]'"):
        _deepfloyd_sides.theirs(case)
