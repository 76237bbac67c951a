"""A stage's weights where they are stored, until the stage's turn comes."""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
from jax.sharding import NamedSharding

from imagen_jax.types import Params


@dataclass(frozen=True, eq=False)
class LazyParams:
    """Weights that are read to the devices at their first use, and stay there if `keep`."""

    identity: str  # tells these weights from any others
    keep: bool
    read: Callable[[NamedSharding], Params] = field(repr=False)
    _placed: list[Params] = field(default_factory=list, repr=False)  # one or none

    def on(self, sharding: NamedSharding) -> Params:
        """The weights on the devices. Errors: those of `read`."""
        if not self._placed:
            self._placed.append(self.read(sharding))
        return jax.device_put(self._placed[0], sharding)

    def done(self) -> None:
        """Give their memory back, unless they are to stay."""
        if not self.keep:
            self._placed.clear()
