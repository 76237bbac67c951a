"""`--lora`: adapters that a command merges into the cascade that it has loaded."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from imagen_jax import config

if TYPE_CHECKING:
    from imagen_jax import Imagen

WEIGHT = re.compile(r"-?[0-9]{1,9}(\.[0-9]{0,20})?")


def merge(cascade: "Imagen", given: str) -> "Imagen":
    """The cascade with the adapters of one FILE or FILE=WEIGHT.

    Errors: ValueError for a weight that is none; as `imagen_jax.with_lora`.
    """
    import imagen_jax

    path, separator, written = given.rpartition("=")
    if not separator or Path(given).exists():
        return imagen_jax.with_lora(cascade, given)
    if not WEIGHT.fullmatch(written):
        raise ValueError(
            f"--lora {config.shorten(given)}: {config.shorten(written)} is no weight, and no file "
            "has that name; give FILE, or FILE=WEIGHT such as style.safetensors=0.7"
        )
    return imagen_jax.with_lora(cascade, path, weight=float(written))
