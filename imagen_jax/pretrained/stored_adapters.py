"""Adapters where they are stored, and weights that have them merged when they are read."""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from imagen_jax import lora
from imagen_jax.config import shorten
from imagen_jax.io.workdir import Workdir
from imagen_jax.sample.lazy_params import LazyParams
from imagen_jax.sample.stage_program import TrainedStage
from imagen_jax.types import Params

ReadParams = Callable[[NamedSharding], Params]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredAdapters:
    """Adapters that are read when they are needed, and what is known of the weights they change."""

    where: Workdir
    identity: str  # tells them from any others
    read: Callable[[NamedSharding], lora.Adapters] = dataclasses.field(repr=False)
    base: str = ""  # the digest of the weights that they were trained on; "": not known
    remedy: str = ""  # against other weights, which are refused; "": these are warned of
    weight: float = 1.0

    def check_base(self, found: str) -> None:
        """Compare the digest of the weights to change. Errors: ValueError for another, if asked."""
        if self.base in ("", found):
            return
        said = f"{self.where}: the adapters were trained on weights {shorten(self.base)}, and "
        said += f"those here are {found}"
        if self.remedy:
            raise ValueError(f"{said}: {self.remedy}")
        warnings.warn(f"{said}: images may not be what they were trained for", stacklevel=2)


@dataclasses.dataclass(frozen=True)
class MergedRead:
    """Read weights, compare them with those that each of the adapters is for, and merge them.

    Called with a sharding. Errors: those of reading; as `StoredAdapters.check_base`; as
    `lora.merge`.
    """

    read: ReadParams
    adapters: tuple[StoredAdapters, ...]

    def __call__(self, sharding: NamedSharding) -> Params:
        params = self.read(sharding)
        if any(one.base for one in self.adapters) and _is_whole(params):
            found = lora.identity(params)
            for one in self.adapters:
                one.check_base(found)
        read = [one.read(sharding) for one in self.adapters]
        return lora.merge(params, read, [one.weight for one in self.adapters])


def add_adapters(trained: TrainedStage, adapters: StoredAdapters) -> TrainedStage:
    """The stage with these adapters beside those that it has."""
    params = trained.params
    if isinstance(params, LazyParams):
        own, keep, read = params.identity, params.keep, params.read
    else:
        own, keep, read = lora.identity(params), True, functools.partial(_put, params)
    before = read if isinstance(read, MergedRead) else MergedRead(read, ())
    merged = LazyParams(
        identity=f"{own} + {adapters.identity} x {adapters.weight}",
        keep=keep,
        read=dataclasses.replace(before, adapters=(*before.adapters, adapters)),
    )
    return dataclasses.replace(trained, params=merged)


def _is_whole(params: Params) -> bool:
    """Tell whether weights are float32, as they are trained on: rounded ones have other digests."""
    return all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))


def _put(params: Any, sharding: NamedSharding) -> Params:
    return jax.device_put(params, sharding)
