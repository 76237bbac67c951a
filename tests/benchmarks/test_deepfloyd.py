"""The folder that the benchmarks of DeepFloyd IF write has the published networks' sizes."""

import re
from pathlib import Path

import deepfloyd_folder
import numpy as np
import pytest

import imagen_jax
from imagen_jax.pretrained.deepfloyd.unet_config import parse_unet_config
from imagen_jax.text import t5

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "deepfloyd-if.md"

SIZES = {  # tensors, parameters in millions: of the published checkpoints
    "I-M": (775, 371.6),
    "I-L": (775, 935.4),
    "I-XL": (775, 4304.7),
    "II-L": (939, 1243.3),
}


@pytest.mark.slow
@pytest.mark.parametrize("network", SIZES)
def test_networks_have_their_published_sizes(network: str) -> None:
    kinds = deepfloyd_folder.network_tensors(
        parse_unet_config(deepfloyd_folder.unet_fields(network))
    )
    millions = sum(np.prod(kind.shape, dtype=np.int64) for kind in kinds.values()) / 1e6
    assert (len(kinds), round(float(millions), 1)) == SIZES[network]


@pytest.mark.slow
@pytest.mark.parametrize("network", ["I-XL", "II-L"])
def test_a_folder_without_room_is_opened(tmp_path: Path, network: str) -> None:
    deepfloyd_folder.write_folder(tmp_path, network, zeros=True)
    (stage,) = imagen_jax.load(tmp_path, offload=True).stages
    assert stage.stage.size == (256 if network == "II-L" else 64)


def test_the_page_has_the_memory_of_these_sizes() -> None:
    """Parameters in millions, gigabytes in four bytes a number and in two; II-M's is its name's."""
    found = {
        name: (float(millions.replace(",", "")), float(four), float(two))
        for name, millions, four, two in re.findall(
            r"^\| ([\w-]+)(?:, encoder)? \| ([\d,.]+) M[^|]*\| ([\d.]+) \| ([\d.]+) \|$",
            PAGE.read_text(),
            re.MULTILINE,
        )
    }
    shapes = t5.parameter_shapes(t5.SIZES["t5_1_1_xxl"]).values()
    text = sum(np.prod(shape, dtype=np.int64) for shape in shapes) / 1e6
    millions = {name: size for name, (_, size) in SIZES.items()}
    millions |= {"II-M": 450.0, "T5-XXL": round(float(text), 1)}
    assert found.keys() == millions.keys()
    for name, (parameters, four, two) in found.items():
        assert parameters == millions[name]
        digits = 1 if name == "II-M" else 2
        assert (four, two) == (round(4e-3 * parameters, digits), round(2e-3 * parameters, digits))
