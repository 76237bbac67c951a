"""The tiny DeepFloyd IF pipelines in tests/fixtures, and what diffusers computed with them."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors import numpy as tensors

FOLDER = Path(__file__).parents[1] / "fixtures" / "deepfloyd_if_tiny"
UNET = "unet/diffusion_pytorch_model"
FP16 = f"{UNET}.fp16.safetensors"  # of stage I


def read_reference(name: str) -> dict[str, np.ndarray]:
    """Arrays of a file in `refs` by name; images are (b, h, w, c), numbers float32."""
    with np.load(FOLDER / "refs" / f"{name}.npz") as file:
        return {key: _ours(file[key]) for key in file.files}


def _ours(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def relative_error(found: object, wanted: np.ndarray) -> float:
    """The largest difference by the largest number."""
    difference = np.asarray(jnp.asarray(found), np.float64) - wanted
    return float(np.abs(difference).max() / np.abs(wanted).max())


def attend_to_text_alone(folder: Path) -> None:
    """Make a folder's network one without keys of the image, and so without their tensors."""
    file = folder / "unet" / "config.json"
    fields = json.loads(file.read_text()) | {"only_cross_attention": True}
    file.write_text(json.dumps(fields))
    whole = tensors.load_file(folder / FP16)
    kept = {n: x for n, x in whole.items() if ".to_k." not in n and ".to_v." not in n}
    assert 0 < len(kept) < len(whole)
    tensors.save_file(kept, folder / FP16)
