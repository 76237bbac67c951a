"""Networks that a score runs: each makes rows of numbers of a batch of square images."""

import functools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8
from PIL import Image

from imagen_jax.data.images.decode import RGB
from imagen_jax.metrics import clip, clip_weights, inception, inception_weights
from imagen_jax.metrics.clip_config import ClipConfig, Preprocessing
from imagen_jax.metrics.clip_tokenizer import ClipTokenizer
from imagen_jax.metrics.clip_weights import LoadedClip
from imagen_jax.parallel import auto_layout, mesh
from imagen_jax.types import Tokens

INCEPTION, CMMD, CLIP = "inception", "cmmd", "clip"


class MetricNetwork(NamedTuple):
    """A network and what a score says of it."""

    name: str
    about: dict[str, Any]  # JSON: weights, preprocessing
    weights: Any
    prepare: Callable[[Sequence[RGB], Sequence[str]], tuple[np.ndarray, ...]]  # on the host
    compute: Callable[..., Array]  # of weights and what `prepare` gives, to rows; compiled


class Devices:
    """The mesh, and the networks on it: batches are split over all devices."""

    def __init__(self, networks: Sequence[MetricNetwork]) -> None:
        self.mesh = mesh.build(auto_layout.choose_axes())
        whole = mesh.replicated_sharding(self.mesh)
        self._weights = {n.name: mesh.to_global(n.weights, whole) for n in networks}
        self.networks = tuple(networks)

    def run(
        self, images: Sequence[RGB], captions: Sequence[str], batch_size: int
    ) -> dict[str, np.ndarray]:
        """Rows of each network; a batch that is not full is filled with its last image."""
        size = -(-batch_size // self.mesh.size) * self.mesh.size
        missing = size - len(images)
        images = [*images, *[images[-1]] * missing]
        captions = [*captions, *[captions[-1]] * missing]
        rows = mesh.batch_sharding(self.mesh)
        found = {}
        for network in self.networks:
            inputs = mesh.to_global(network.prepare(images, captions), rows)
            result = network.compute(self._weights[network.name], *inputs)
            found[network.name] = mesh.to_host(result)[: size - missing]
        return found


def load_inception(path: Path) -> MetricNetwork:
    """Load FID's network. Errors: as `inception_weights.load`."""
    loaded = inception_weights.load(path)
    about = {
        "network": "Inception-v3 of 2015-12-05, pool features",
        "file": str(path),
        "sha256": loaded.sha256,
        "source_sha256": loaded.source_sha256,
        "published": loaded.published,
        "resize": f"bilinear to {inception.SIDE} px as TensorFlow 1 does, no antialiasing",
        "scale": "(x - 128) / 128",
    }
    return MetricNetwork(INCEPTION, about, loaded.weights, _stack, _inception_program())


def load_cmmd(folder: Path) -> MetricNetwork:
    """Load CMMD's network, CLIP's image tower. Errors: as `clip_weights.load`."""
    loaded = clip_weights.load(folder)
    about = _about(loaded) | {
        "resize": f"bicubic to {loaded.config.side} px, antialiased, not rounded (jax.image.resize)"
    }
    compute = _program(_cmmd_embedding, loaded.config, loaded.preprocessing)
    return MetricNetwork(CMMD, about, loaded.weights, _stack, compute)


def load_clip(folder: Path) -> MetricNetwork:
    """Load the CLIP score's network. Errors: as `clip_weights.load` and `ClipTokenizer.load`."""
    loaded = clip_weights.load(folder)
    sizes = loaded.config
    tokenizer = ClipTokenizer.load(folder, context=sizes.context, vocabulary=sizes.vocabulary)
    about = _about(loaded) | {
        "resize": f"Pillow's bicubic to {loaded.config.side} px, rounded to whole levels",
        "context": f"{loaded.config.context} tokens; longer prompts are cut off",
    }

    def prepare(images: Sequence[RGB], captions: Sequence[str]) -> tuple[np.ndarray, ...]:
        small = [resize_as_pillow(image, loaded.config.side) for image in images]
        tokens, cut = tokenizer.tokenize(captions)
        if cut:
            warnings.warn(
                f"prompts of more than {loaded.config.context} tokens are cut off", stacklevel=2
            )
        return np.stack(small), tokens

    compute = _program(_clip_cosines, loaded.config, loaded.preprocessing)
    return MetricNetwork(CLIP, about, loaded.weights, prepare, compute)


def resize_as_pillow(image: RGB, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """A square image at another size, as transformers and open_clip resize it."""
    if image.shape[0] == side:
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def normalise(
    x: Float[Array, "b h w 3"], preprocessing: Preprocessing
) -> Float32[Array, "b h w 3"]:
    """Images in [0, 1] as CLIP reads them."""
    mean, std = (jnp.array(x, jnp.float32) for x in (preprocessing.mean, preprocessing.std))
    return (x - mean[None, None, None]) / std[None, None, None]


@functools.cache
def _inception_program() -> Callable[..., Any]:
    return jax.jit(inception.embed)


@functools.cache
def _program(
    function: Callable[..., Any], config: ClipConfig, preprocessing: Preprocessing
) -> Callable[..., Any]:
    """A function of CLIP's, compiled once for all models of the same sizes."""
    return jax.jit(functools.partial(function, config=config, preprocessing=preprocessing))


def _cmmd_embedding(
    weights: Any,
    pixels: UInt8[Array, "b h w 3"],
    *,
    config: ClipConfig,
    preprocessing: Preprocessing,
) -> Float32[Array, "b d"]:
    shape = (pixels.shape[0], config.side, config.side, 3)
    x = jax.image.resize(pixels.astype(jnp.float32) / 255.0, shape, "bicubic", precision=clip.EXACT)
    return clip.embed_images(weights, normalise(x, preprocessing), config=config)


def _clip_cosines(
    weights: Any,
    pixels: UInt8[Array, "b h w 3"],
    tokens: Tokens,
    *,
    config: ClipConfig,
    preprocessing: Preprocessing,
) -> Float32[Array, " b"]:
    x = normalise(pixels.astype(jnp.float32) / 255.0, preprocessing)
    images = clip.embed_images(weights, x, config=config)
    return (images * clip.embed_texts(weights, tokens, config=config)).sum(axis=-1)


def _stack(images: Sequence[RGB], captions: Sequence[str]) -> tuple[np.ndarray, ...]:
    return (np.stack(images),)


def _about(loaded: LoadedClip) -> dict[str, Any]:
    config = loaded.config
    return {
        "network": f"CLIP ViT, {config.image.layers} layers of {config.image.width}, patches of "
        f"{config.patch} px at {config.side} px",
        "file": str(loaded.folder),
        "sha256": loaded.sha256,
        "mean": list(loaded.preprocessing.mean),
        "std": list(loaded.preprocessing.std),
    }
