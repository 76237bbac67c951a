"""The index of a store and the header of an unfinished one, as JSON text; and their differences."""

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from imagen_jax.config import Filters, Framing
from imagen_jax.data.store.shard_file import ShardFile
from imagen_jax.data.store.skipped import Total
from imagen_jax.io.workdir import Workdir

if TYPE_CHECKING:
    from imagen_jax.data.store.store import Store

VERSION = 3
INDEX = "store.json"  # written last: a folder without it is not a store
HEADER = "unfinished.json"  # written first: what the shards of an unfinished store are of
EMPTY = "empty.array_record"  # the encoding of the empty caption
COMMAND = "imagen encode"  # makes a store


def to_text(store: "Store") -> str:
    """Return all that is known of a store, but for where it is and is copied to."""
    fields = {f.name: getattr(store, f.name) for f in dataclasses.fields(store)}
    fields |= {name: [part._asdict() for part in fields[name]] for name in ("files", "skipped")}
    fields["filters"] = dataclasses.asdict(store.filters)
    fields["framing"] = store.framing and dataclasses.asdict(store.framing)
    del fields["folder"], fields["cache"]
    return json.dumps({"version": VERSION, **fields}, indent=2) + "\n"


def parse(text: str, file: Workdir) -> dict[str, Any]:
    """Return the fields of a store, but for its folder, that `to_text` made the text of `file` of.

    Errors: ValueError that names the folder, the damage and the remedy.
    """
    try:
        fields = json.loads(text)
        version = fields.pop("version")
        if version != VERSION:
            damage = f"{file.name} has format {version}, and this program reads format {VERSION}"
            raise ValueError(describe_damage(file.parent, damage))
        fields |= _parsed(fields)
        found = sum(one.count for one in fields["files"] if one.name != EMPTY)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise unreadable(file, error) from error
    if file.name == INDEX and (found != fields.get("count") or not found):
        damage = f"{file.name} promises {fields.get('count')} records, but its files {found}"
        raise ValueError(describe_damage(file.parent, damage))
    return fields


def _parsed(fields: dict[str, Any]) -> dict[str, Any]:
    """Parse the fields that are more than JSON has; older stores lack those of framing."""
    framing = fields.get("framing")
    return {
        "sizes": tuple(fields["sizes"]),
        "files": tuple(ShardFile(**file) for file in fields["files"]),
        "skipped": tuple(Total(**total) for total in fields.get("skipped", ())),
        "framing": framing and Framing(**framing),
        "filters": Filters(**fields.get("filters", {})),
    }


def unreadable(file: Workdir, error: Exception) -> ValueError:
    """Return the error about an index or header that is none."""
    return ValueError(describe_damage(file.parent, f"{file.name} cannot be read ({error})"))


def describe_damage(folder: Workdir, damage: str, command: str = COMMAND) -> str:
    """Return the sentence about a damaged store, with the command that makes it."""
    return f"the encoded dataset in {folder} is damaged: {damage}; delete it, then `{command}`"


def refuse_other(found: "Store", wanted: "Store") -> None:
    """Errors: ValueError naming every field in which a store there is not the one wanted."""
    if found.files:  # a finished one may have more sizes, in shards of another length
        more = found.sizes if set(wanted.sizes) <= set(found.sizes) else wanted.sizes
        wanted = dataclasses.replace(wanted, sizes=more, shard_records=found.shard_records)
        found = dataclasses.replace(found, count=found.examples, skipped=())
    differing = [
        f"{f.name} {getattr(found, f.name)!r} there, {getattr(wanted, f.name)!r} wanted"
        for f in dataclasses.fields(found)
        if f.name not in ("folder", "files", "cache")
        and getattr(found, f.name) != getattr(wanted, f.name)
    ]
    if differing:
        raise ValueError(
            f"{found.folder} holds another encoding: {'; '.join(differing)}; "
            "delete it or encode into another folder"
        )
