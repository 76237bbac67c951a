"""Adapters of DeepFloyd IF's networks: diffusers' names and layouts, whole."""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors import numpy as tensors

import imagen_jax
from imagen_jax import lora, models, rng
from imagen_jax.config import Lora
from imagen_jax.imagen import Imagen
from imagen_jax.pretrained.lora import is_convolution, module_names, with_lora

FOLDER = Path(__file__).parents[2] / "fixtures" / "deepfloyd_if_tiny"
WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


def open_tiny(folder: Path) -> Imagen:
    return imagen_jax.load(folder, offload=True)


def drawn(cascade: Imagen, options: Lora) -> lora.Adapters:
    trained, experiment = cascade.stages[0], cascade.experiments[0]
    shapes = models.parameter_shapes(trained.stage, experiment.text)
    fresh = jax.eval_shape(lambda: lora.init(shapes, options, rng.root(0)))
    draw = np.random.default_rng(0)
    weights = jax.tree.map(
        lambda x: draw.standard_normal(x.shape).astype(np.float32), fresh.weights
    )
    return lora.from_weights(weights, options.scale)


def write(cascade: Imagen, adapters: lora.Adapters, file: Path) -> None:
    stage = cascade.stages[0].stage
    lora.write_adapters(
        file,
        adapters,
        modules=module_names(stage, cascade.experiments[0].text),
        as_convolution=lambda module: is_convolution(stage, module),
    )


@pytest.mark.parametrize("part", ["if_I", "if_II"])
def test_module_names_are_those_of_diffusers_tensors(part: str) -> None:
    cascade = open_tiny(FOLDER / part)
    names = module_names(cascade.stages[0].stage, cascade.experiments[0].text)
    stored = tensors.load_file(next((FOLDER / part / "unet").glob("*.safetensors")))
    kernels = {n.removesuffix(".weight") for n, x in stored.items() if x.ndim > 1}
    assert set(names) == kernels - {"add_embedding.pool.positional_embedding"}


@pytest.mark.slow
def test_merged_weights_are_those_of_torchs_own_sum(tmp_path: Path) -> None:
    """The reference adds B A to diffusers' tensors in their own layout."""
    cascade = open_tiny(FOLDER / "if_I")
    adapters = drawn(cascade, Lora(rank=2, alpha=6.0, targets=("all",)))
    file = tmp_path / "adapters.safetensors"
    write(cascade, adapters, file)
    shutil.copytree(FOLDER / "if_I", tmp_path / "summed")
    place = next((tmp_path / "summed" / "unet").glob("*.safetensors"))
    stored: dict[str, Any] = {n: np.array(x) for n, x in tensors.load_file(place).items()}
    named = tensors.load_file(file)
    for name in [n for n in named if n.endswith("lora_A.weight")]:
        module = name.removeprefix("unet.").removesuffix(".lora_A.weight")
        down, up = named[name], named[name.replace("lora_A", "lora_B")]
        kernel = stored[f"{module}.weight"]
        change = np.einsum("or,ri->oi", up.reshape(up.shape[:2]), down.reshape(len(down), -1))
        stored[f"{module}.weight"] = (
            kernel.astype(np.float32) + 3.0 * change.reshape(kernel.shape)
        ).astype(np.float32)
    tensors.save_file(stored, place)
    merged = with_lora(cascade, file).stages[0].device_params()
    wanted = open_tiny(tmp_path / "summed").stages[0].device_params()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-5), merged, wanted
    )


def test_a_file_of_the_other_stage_is_refused(tmp_path: Path) -> None:
    first, second = open_tiny(FOLDER / "if_I"), open_tiny(FOLDER / "if_II")
    file = tmp_path / "adapters.safetensors"
    write(first, drawn(first, Lora(rank=2)), file)
    with pytest.raises(ValueError, match=r"adapters\.safetensors|do not fit this network"):
        with_lora(second, file)
