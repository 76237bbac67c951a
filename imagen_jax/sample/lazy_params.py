"""Weights that are read when a stage first samples: one part of a cascade at a time on a device."""

import dataclasses
import threading
from collections.abc import Callable

import jax
from jax.sharding import NamedSharding

from imagen_jax.types import Params


@dataclasses.dataclass(frozen=True, eq=False)
class LazyParams:
    """Weights that are read to the devices at their first use, and stay there if `keep`."""

    identity: str  # tells these weights from any others
    keep: bool
    read: Callable[[NamedSharding], Params] = dataclasses.field(repr=False)
    _placed: list[Params] = dataclasses.field(default_factory=list, repr=False)  # one or none
    _reading: threading.Lock = dataclasses.field(default_factory=threading.Lock, repr=False)

    def get(self, sharding: NamedSharding) -> Params:
        """The weights on the devices, from any thread. Errors: those of `read`."""
        with self._reading:
            if not self._placed:
                self._placed.append(self.read(sharding))
        return jax.device_put(self._placed[0], sharding)

    def release(self) -> None:
        """Free their memory, unless they are to stay."""
        if not self.keep:
            self._placed.clear()
