"""Tars of captioned images, as img2dataset and webdataset write them, by random access.

An example is an image (.jpg, .jpeg, .png, .webp) and the .txt or .json of the same name. Nothing
is unpacked: where its members lie is indexed once (`tar_index`), then their bytes are read.
"""

import dataclasses
import operator
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from tqdm import tqdm

from imagen_jax.data import worker_pool
from imagen_jax.data.sources import base, tar_index, tar_members
from imagen_jax.data.sources.base import SkipLog, SkippedNames
from imagen_jax.data.sources.tar_index import Index
from imagen_jax.io import remote_files
from imagen_jax.io.buckets import is_bucket
from imagen_jax.io.errors import CorruptDataError
from imagen_jax.io.remote_files import RangeReader, SourceFile

THREADS = 16
MUCH = 1 << 32  # bytes of tars that take longer to index than processes to start
GAP = 1 << 16  # bytes between image and text that are cheaper to read than to leave out


@dataclass(frozen=True, eq=False)
class Tars:
    """The examples of several tars, in the order of the tars' names and of the images in them."""

    files: tuple[SourceFile, ...]
    firsts: np.ndarray  # number of the first example of each file
    rows: np.ndarray  # of ROW
    keys: bytes
    field: str  # of .json members that has the captions; "": .txt, else `caption`
    skipped: Mapping[str, SkippedNames]
    reader: RangeReader = dataclasses.field(default_factory=RangeReader)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """The example at an index.

        Errors: CorruptDataError where its tar is no longer what was indexed.
        """
        number = self._checked(index)
        file = self.files[self._file(number)]
        offset, size, text, text_size, in_json, _ = self.rows[number].item()
        start, end = min(offset, text), max(offset + size, text + text_size)
        if end - start <= size + text_size + GAP:
            both = self.reader.read(file, start, end - start)
            image = both[offset - start :][:size]
            words = both[text - start :][:text_size]
        else:
            image = self.reader.read(file, offset, size)
            words = self.reader.read(file, text, text_size)
        if not in_json:
            return base.make_example(image, base.make_texts(words))
        try:
            captions = tar_index.captions_in(tar_index.parse_member(words), self.field)
        except (ValueError, TypeError) as error:
            raise CorruptDataError(
                f"{file.path} has changed: .json of {self.key(number)}: {error}"
            ) from None
        return base.make_example(image, captions)

    def key(self, index: int) -> str:
        """`00000.tar/000000012`: the tar and the name of the example in it."""
        number = self._checked(index)
        end = int(self.rows["key_end"][number])
        start = int(self.rows["key_end"][number - 1]) if number else 0
        name = base.key(self.files[self._file(number)].name)
        return f"{name}/{self.keys[start:end].decode()}"

    def _checked(self, index: SupportsIndex) -> int:
        number = operator.index(index)
        if not 0 <= number < len(self):
            raise IndexError(f"example {number} of {len(self)}")
        return number

    def _file(self, number: int) -> int:
        return int(self.firsts.searchsorted(number, side="right")) - 1


def open_tars(pattern: str, *, field: str = "", cache: Path) -> Tars:
    """The examples of tars: one, a folder of them, or several as in `remote_files.find_files`.

    `field` names the field of .json members that has the captions, one or a list; without it they
    are in .txt, and in the field `caption` where there is none. Indices are next to the tars or
    in `cache`.
    Errors: FileNotFoundError where there are no tars, ValueError when no example is in them;
    OSError when one cannot be read, or its index not be kept.
    """
    files, skips = tuple(_found(pattern)), SkipLog()
    for name in tar_members.list_compressed(pattern):
        skips.add("compressed tar", f"{name}: unpack it, then it is read")
    indices = _indices(files, field, cache)
    for index in indices:
        skips.extend(index.skipped)
    rows = np.concatenate([index.rows for index in indices])
    if not len(rows):
        raise base.NoExampleError(
            f"{pattern}: no image with a caption in {len(files)} tars; "
            f"left out: {base.summarise_skips(skips.collect()) or 'nothing'}"
        )
    # The ends of each tar's keys begin where the tar before ended.
    lengths = [len(index.keys) for index in indices]
    counts = [len(index.rows) for index in indices]
    rows["key_end"] += np.repeat(np.cumsum([0, *lengths[:-1]]).astype(np.uint64), counts)
    return Tars(
        files=files,
        firsts=np.cumsum([0, *counts[:-1]]),
        rows=rows,
        keys=b"".join(index.keys for index in indices),
        field=field,
        skipped=skips.collect(),
    )


def _found(pattern: str) -> list[SourceFile]:
    """The tars of a pattern. Errors: FileNotFoundError where there are none."""
    try:
        return remote_files.find_files(pattern, ending="tar")
    except FileNotFoundError as error:
        if compressed := tar_members.list_compressed(pattern):
            raise FileNotFoundError(
                f"{error}, but the compressed {compressed[0]}: unpack it, since examples are read "
                "at any place of a tar"
            ) from error
        raise


def _indices(files: Sequence[SourceFile], field: str, cache: Path) -> list[Index]:
    """The index of each tar; those that are not there are built."""
    with ThreadPoolExecutor(THREADS) as pool:
        found: list[Any] = list(pool.map(partial(tar_index.load, field=field, cache=cache), files))
    todo = [n for n, index in enumerate(found) if index is None]
    if not todo:
        return found
    with _workers([files[n] for n in todo]) as pool:
        build = partial(tar_index.index_of, field=field, cache=cache)
        built = pool.map(build, [files[n] for n in todo])
        bar = tqdm(built, "indexing", len(todo), unit=" tars", disable=None)
        for n, index in zip(todo, bar, strict=True):
            found[n] = index
    return found


def _workers(files: Sequence[SourceFile]) -> Executor:
    """Threads, which wait for a bucket; for much on this machine processes, as headers take CPU."""
    here = [file.size for file in files if not is_bucket(file.path)]
    if len(here) > 1 and sum(here) >= MUCH:
        return worker_pool.start_pool(min(os.cpu_count() or 1, len(here)))
    return ThreadPoolExecutor(THREADS)
