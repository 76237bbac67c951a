"""The persistent compilation cache: the second start of a program compiles nothing."""

import os
from pathlib import Path
from typing import Any

import jax

DEFAULT = Path("~/.cache/imagen_jax/xla")
LEAST = "jax_persistent_cache_min_compile_time_secs"
JAX_LEAST = 1.0  # its value where nobody chose one


def use_cache(folder: Path = DEFAULT) -> None:
    """Keep compiled programs in a local folder, unless jax was told of another or to keep none.

    An entry serves one program on one topology and jax version. Small programs are kept, too,
    unless jax was told otherwise: a start has dozens, each of which compiles in 0.05 to 1 s and is
    read in 0.01.
    """
    settings: Any = jax.config
    if not settings.jax_enable_compilation_cache:
        return
    if settings.jax_compilation_cache_dir is None:
        settings.update("jax_compilation_cache_dir", str(folder.expanduser()))
    if getattr(settings, LEAST) == JAX_LEAST and LEAST.upper() not in os.environ:
        settings.update(LEAST, 0.0)


def run_once(devices: jax.sharding.Mesh) -> dict[str, Any]:
    """Options of the compiler for a program that runs once, such as that of fresh weights.

    On a CPU optimising its loops, one or more for each array, takes two thirds of compiling.
    Numbers differ by rounding.
    """
    on_cpu = devices.devices.flat[0].platform == "cpu"
    return {"xla_backend_optimization_level": 0} if on_cpu else {}
