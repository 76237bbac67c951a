"""Weights of FID's Inception-v3: PyTorch's file, or one safetensors form of the same names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from imagen_jax.io import safetensors, torch_file, torch_layout
from imagen_jax.io.atomic import create_atomic
from imagen_jax.io.file_digest import sha256
from imagen_jax.metrics.inception import CONVS, EPSILON, Weights

PUBLISHED = "6726825d"  # how the SHA-256 of pt_inception-2015-12-05 begins; its name has it
SOURCE = "source_sha256"  # metadata of the safetensors form: the file that it was made of
INPUTS = 3  # channels of an image
NORMS = ("weight", "bias", "running_mean", "running_var")
REMEDY = "give pt_inception-2015-12-05-6726825d.pth, or what `imagen convert inception` made of it"


@dataclass(frozen=True)
class LoadedInception:
    """The network's weights, batch norms folded into kernels, and where they are from."""

    weights: Weights
    sha256: str  # of the file
    source_sha256: str  # of PyTorch's file, from which the file was made or which it is

    @property
    def published(self) -> bool:
        """Whether these are the weights that published FIDs are computed with."""
        return self.source_sha256.startswith(PUBLISHED)


def load(path: Path) -> LoadedInception:
    """Load weights of either form.

    Errors: FileNotFoundError; ValueError for a damaged file, other weights, or numbers that are
    not finite.
    """
    tensors, source = read_tensors(path)
    digest = sha256(path)
    return LoadedInception(fold(tensors), digest, source or digest)


def convert(path: Path, out: Path) -> int:
    """Write the safetensors form of PyTorch's file; returns the number of parameters.

    Errors: as `load`; FileExistsError for other bytes at `out`.
    """
    if path.suffix == ".safetensors":
        raise ValueError(f"{path} is safetensors already: {REMEDY}")
    tensors, _ = read_tensors(path)
    about = {SOURCE: sha256(path)}

    def write(file: Path) -> None:
        safetensors.save_params(file, tensors, dtype="float32", metadata=about)

    create_atomic(out, write)
    return sum(tensor.size for tensor in tensors.values())


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The tensors that the network needs, and the digest of their source; "" for PyTorch's file.

    Errors: as `load`.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: {REMEDY}")
    source = ""
    if path.suffix == ".safetensors":
        source = safetensors.read_metadata(path).get(SOURCE, "")
        found = safetensors.read_named(path)
    else:
        found = torch_file.read_state_dict(path)
    wanted = tensor_shapes(_width(found))
    shapes = {name: tensor.shape for name, tensor in found.items()}
    if wrong := safetensors.tensor_mismatches(shapes, wanted, extra=False):
        few = "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        raise ValueError(f"{path} is not FID's Inception ({few}): {REMEDY}")
    tensors = {name: np.asarray(found[name], np.float32) for name in wanted}
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"{path}: {name} has values that are not finite; download it again")
    return tensors, source


def tensor_shapes(width: float = 1.0) -> dict[str, tuple[int, ...]]:
    """Shapes of PyTorch's tensors by name, of a network with `width` times the channels."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, conv in CONVS.items():
        channels = INPUTS if conv.inputs == INPUTS else int(conv.inputs * width)
        features = int(conv.features * width)
        shapes[f"{name}.conv.weight"] = (features, channels, *conv.size)
        shapes |= {f"{name}.bn.{part}": (features,) for part in NORMS}
    return shapes


def fold(tensors: Mapping[str, np.ndarray]) -> Weights:
    """Kernels (y, x, in, out) that do what the batch norms do, and biases; folded in float64."""
    folded = {}
    for name in CONVS:
        scale, shift, mean, variance = (
            tensors[f"{name}.bn.{part}"].astype(np.float64) for part in NORMS
        )
        factor = scale / np.sqrt(variance + EPSILON)
        kernel = torch_layout.from_torch(tensors[f"{name}.conv.weight"]) * factor
        bias = shift - mean * factor
        folded[name] = jnp.asarray(kernel, jnp.float32), jnp.asarray(bias, jnp.float32)
    return folded


def _width(found: Mapping[str, np.ndarray]) -> float:
    """How many of the published channels a network has, by its first kernel."""
    first = found.get("Conv2d_1a_3x3.conv.weight")
    full = CONVS["Conv2d_1a_3x3"].features
    fits = first is not None and first.ndim == 4 and len(first) in (full // 8, full // 4, full // 2)
    return len(first) / full if fits and first is not None else 1.0
