"""Keys of TensorStore's key-value stores, of which a database of Orbax (OCDBT) may be anybody's.

A database is a tree of nodes in files. TensorStore lists a node as often as others refer to it: a
few that share others have any number of keys. Those of an honest tree have one place each.
Source: TensorStore's documentation, "OCDBT format".
"""

from typing import Any

import tensorstore

from imagen_jax import limits
from imagen_jax.limits import Limit


def list_keys(store: Any) -> list[bytes]:
    """List all keys of an open store.

    Errors: ValueError for a database whose nodes share others, or claim to be too large; those of
    the store.
    """
    if store.base is not None:
        _check_tree(store.base)
    return store.list().result()


def read_key(store: Any, key: str | bytes, limit: Limit = limits.FILE_BYTES) -> Any:
    """Read a key of an open key-value store; its `state` tells whether it is there.

    Errors: ValueError for more bytes than `limit` allows; those of the store.
    """
    most = limit.value()
    try:
        behind = store.read(key, byte_range=slice(most, most + 1)).result()
    except ValueError as error:
        if not str(error).startswith("OUT_OF_RANGE"):  # it ends before
            raise
        return store.read(key).result()
    shown = key if isinstance(key, str) else key.decode(errors="backslashreplace")
    limit.check(most + len(behind.value), f"{shown} has at least")
    return behind


def _check_tree(base: Any) -> None:
    """Look through the nodes that have others below them."""
    versions = tensorstore.ocdbt.dump(base).result().get("versions")
    if not versions:
        raise ValueError("its database has no version in its manifest")
    newest = versions[-1]
    seen: set[tuple[str, ...]] = set()
    level = _places([newest["root"]], seen)
    for _ in range(newest["root_height"]):
        waiting = [tensorstore.ocdbt.dump(base, place) for place in level]
        nodes = [future.result() for future in waiting]
        level = _places([entry for node in nodes for entry in node["entries"]], seen)


def _places(entries: list[Any], seen: set[tuple[str, ...]]) -> list[str]:
    """Where nodes are; an empty database has none. Errors: ValueError for one that was seen."""
    places = [entry["location"] for entry in entries if "location" in entry]
    for place in places:
        name, offset, length = place.rsplit(":", 2)
        limits.FILE_BYTES.check(int(length), "a node of its database has")
        # A name has two parts, which may be cut anywhere.
        node = (name.replace(":", ""), offset)
        if node in seen:
            raise ValueError("a node of its database belongs to several others")
        seen.add(node)
    return places
