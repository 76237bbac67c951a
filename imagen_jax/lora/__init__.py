"""Low-rank adapters: a transform of parameters that no network knows of.

| file | holds |
|---|---|
| `adapters.py` | `Adapters`: `init`, `merge`, `unmerge`, dropout |
| `targets.py` | the kernels that a config's groups and patterns select |
| `files.py` | safetensors files and PEFT's folders, read and written |
| `tensor_names.py` | the spellings of tensors that other programs use |
"""

from imagen_jax.lora.adapters import (
    Adapters,
    drop_inputs,
    fit,
    from_weights,
    identity,
    init,
    merge,
    require_fitting,
    unmerge,
)
from imagen_jax.lora.files import read_adapters, write_adapters

__all__ = [
    "Adapters",
    "drop_inputs",
    "fit",
    "from_weights",
    "identity",
    "init",
    "merge",
    "read_adapters",
    "require_fitting",
    "unmerge",
    "write_adapters",
]
