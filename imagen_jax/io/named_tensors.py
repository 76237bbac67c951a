"""Tensors by name, in whatever files: a mapping that reads them one by one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from imagen_jax.io.safetensors import Shapes


@dataclass(frozen=True)
class NamedTensors(Mapping[str, np.ndarray]):
    """Tensors by the paths of their parameters, each read when it is asked for."""

    shapes: Shapes
    read: Callable[[str], np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)
