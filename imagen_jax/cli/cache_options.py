"""The copies that a machine keeps of pairs in a bucket, as `imagen train` describes them."""

import dataclasses
import re
from pathlib import Path

from imagen_jax.config.sentences import abridge
from imagen_jax.data.store import block_cache
from imagen_jax.data.store.block_cache import CacheSettings

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class CacheOptions:
    """Copies of pairs in a bucket."""

    cache_dir: Path = block_cache.FOLDER
    """Folder on a disk of this machine for copies of --pairs that are in a bucket."""
    cache_size: str = f"{block_cache.SIZE >> 30}G"
    """Most bytes in --cache-dir, such as 800M, 50G or 2T (of 1,024 each); copies of other pairs
    that were not read for the longest time make room. Pairs that are larger are read record by
    record, without copies."""

    def settings(self) -> CacheSettings:
        """Return what a store takes. Errors: ValueError for a size that is none."""
        found = re.fullmatch(r"([0-9]{1,15})([KMGT]?)(i?B)?", self.cache_size.strip())
        if found is None:
            raise ValueError(
                f"--cache-size {abridge(self.cache_size)} is no number of bytes, such as 800M, "
                "50G or 2T"
            )
        return CacheSettings(folder=self.cache_dir, size=int(found[1]) * UNITS[found[2]])
