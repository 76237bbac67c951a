"""The folder that the benchmarks of DeepFloyd IF write has the published networks' sizes."""

from pathlib import Path

import deepfloyd_folder
import numpy as np
import pytest

import imagen_jax
from imagen_jax.pretrained.deepfloyd.unet_config import parse_unet_config

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
