"""Imagen (arXiv:2205.11487) in JAX: `load` a trained cascade, call it with prompts.

Importing the package loads no jax; the names below are imported at their first use.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagen_jax.imagen import Imagen, Request, SamplingCallbacks, load

__version__ = "0.1.0"
__all__ = ["Imagen", "Request", "SamplingCallbacks", "load"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'imagen_jax' has no attribute {name!r}")
    from imagen_jax import imagen

    return getattr(imagen, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
