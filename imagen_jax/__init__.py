"""Imagen (arXiv:2205.11487) in JAX: `load` a trained cascade, call it with prompts.

Importing the package loads no jax; the names below are imported at their first use.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagen_jax.imagen import Imagen
    from imagen_jax.pretrained.load import load
    from imagen_jax.pretrained.lora import with_lora
    from imagen_jax.sample.progress import Preview, SamplingCallbacks
    from imagen_jax.sample.request import Request
    from imagen_jax.samples import ImageList, Samples

__version__ = "0.1.0"
__all__ = [
    "ImageList",
    "Imagen",
    "Preview",
    "Request",
    "Samples",
    "SamplingCallbacks",
    "load",
    "with_lora",
]
_HOMES = {
    "Imagen": "imagen",
    "load": "pretrained.load",
    "with_lora": "pretrained.lora",
    "Preview": "sample.progress",
    "SamplingCallbacks": "sample.progress",
    "Request": "sample.request",
    "ImageList": "samples",
    "Samples": "samples",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'imagen_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"imagen_jax.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
