"""The classes that the files of a TFDS dataset name: TFDS imports, and so runs, their modules."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from imagen_jax.config import shorten
from imagen_jax.data.sources.base import Address
from imagen_jax.io import json_reader, whole_files

PACKAGES = ("tensorflow_datasets", "imagen_jax")  # whose classes are features
FILES = ("features.json", "dataset_info.json")
NAMES = ("pythonClassName", "python_class_name")  # JSON of protocol buffers has both spellings
MAX_BYTES = 1 << 24  # of such a file; those with a million labels have less


def check_classes(address: Address, name: str, data_dir: Path | str) -> None:
    """Check the classes before TFDS imports their modules.

    Errors: ValueError for a class of another module than the address allows, and for files that are
    damaged. A dataset that is not there is left to TFDS.
    """
    from tensorflow_datasets.core import read_only_builder, registered
    from tensorflow_datasets.core.utils import error_utils

    with error_utils.reraise_with_context(registered.DatasetNotFoundError):
        found = read_only_builder._find_builder_dir(name, data_dir=str(data_dir))
    if found is None:
        return
    for file in FILES:
        path = epath.Path(found) / file
        if path.exists():
            for named in _find_names(_read(path), path):
                _check(named, path, address)


def _check(named: str, path: epath.Path, address: Address) -> None:
    module = named.rpartition(".")[0]
    package = module.partition(".")[0]
    words = all(word.isidentifier() for word in named.split("."))
    allowed = package in PACKAGES or (address.module and module == address.module)
    if words and module and allowed:
        return
    known = " nor ".join(PACKAGES)
    remedy = ""
    if words and module:
        remedy = (
            f": read that module, which would run, then allow it by "
            f"{address.dataset}?module={module} on the command line"
        )
    raise ValueError(f"{path} names {shorten(named)}, a class of neither {known}{remedy}")


def _read(path: epath.Path) -> Any:
    """Errors: ValueError for no JSON, or too much of it."""
    if (size := path.stat().length) > MAX_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, and {MAX_BYTES:,} at most are read")
    data = whole_files.read_whole(path)
    return json_reader.parse_json(data, where=path, remedy="copy the dataset again")


def _find_names(value: Any, path: epath.Path) -> Iterator[str]:
    """Names of classes at any depth, in today's form and in that of before TFDS 4.3.

    In the latter a class is a `type` with a `content`. Both have JSON in strings, too.
    Errors: ValueError for a string that may be JSON, and is nested too deeply to be looked through.
    """
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str) and one.lstrip()[:1] in ("{", "["):
            if json_reader.is_deeper(one):
                raise ValueError(f"{path} has JSON in a string that is nested too deeply")
            with contextlib.suppress(ValueError):  # then no JSON for TFDS either
                waiting.append(json.loads(one))  # a part of what was read within bounds
        if isinstance(one, list):
            waiting += one
        if isinstance(one, dict):
            old = [one["type"]] if "type" in one and "content" in one else []
            yield from (n for n in [*old, *map(one.get, NAMES)] if isinstance(n, str))
            waiting += one.values()
