"""The index of a store and the header of an unfinished one, as JSON text; and their differences."""

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from imagen_jax.config.decode import decode_values
from imagen_jax.config.names import check_line, check_name
from imagen_jax.config.ranges import Images, Length, Sides, Whole, Width, check_value
from imagen_jax.config.sentences import join_clauses, shorten
from imagen_jax.io import json_reader
from imagen_jax.io.workdir import Workdir

if TYPE_CHECKING:
    from imagen_jax.data.store.store import Store

VERSION = 3
INDEX = "store.json"  # written last: a folder without it is not a store
HEADER = "unfinished.json"  # written first: what the shards of an unfinished store are of
EMPTY = "empty.array_record"  # the encoding of the empty caption
COMMAND = "imagen encode"  # makes a store
# As stores of before have them.
UNWRITTEN = {"clean_caption": False, "lower_case": False, "padding": "left_out"}
RANGES = {"sizes": Sides, "width": Width, "max_length": Length, "shard_records": Images}


def to_text(store: "Store") -> str:
    """Return all that is known of a store, but for where it is and is copied to."""
    fields = {f.name: getattr(store, f.name) for f in dataclasses.fields(store)}
    fields |= {name: [part._asdict() for part in fields[name]] for name in ("files", "skipped")}
    fields["filters"] = dataclasses.asdict(store.filters)
    fields["framing"] = store.framing and dataclasses.asdict(store.framing)
    del fields["folder"], fields["cache"]
    for name, default in UNWRITTEN.items():
        if fields[name] == default:
            del fields[name]
    return json.dumps({"version": VERSION, **fields}, indent=2) + "\n"


def parse(text: str, file: Workdir) -> dict[str, Any]:
    """Return the fields of a store, but for its folder, that `to_text` made the text of `file` of.

    Errors: ValueError that names the folder, the damage and the remedy.
    """
    try:
        given = json_reader.parse_object(text, where="its text", remedy="nothing can mend it")
    except ValueError as error:
        raise unreadable(file, error) from error
    version = given.pop("version", VERSION if not given else None)
    if version != VERSION:
        damage = f"{file.name} has format {shorten(version)}, and this program reads format "
        raise ValueError(describe_damage(file.parent, f"{damage}{VERSION}"))
    try:
        fields = _typed(given)
    except ValueError as error:
        raise unreadable(file, error) from error
    found = sum(one.count for one in fields.get("files", ()) if one.name != EMPTY)
    if file.name == INDEX and (found != fields.get("count") or not found):
        damage = f"{file.name} promises {fields.get('count')} records, but its files {found}"
        raise ValueError(describe_damage(file.parent, damage))
    return fields


def _typed(given: dict[str, Any]) -> dict[str, Any]:
    """Turn what JSON has into a store's fields; older stores lack those of framing."""
    from imagen_jax.data.store.store import Store  # here: it imports this module

    fields = decode_values(Store, given, "store", without=("folder", "cache"))
    for one in fields.get("files", ()):
        check_name(one.name, "the name of a shard")
        if not 0 <= one.count <= one.bytes:
            raise ValueError(f"{one.name} would have {one.count} records in {one.bytes} bytes")
    for name in ("dataset", "split", "encoder", "identity", "vocabulary"):
        check_line(fields[name], name)
    for total in fields.get("skipped", ()):
        check_line(total.reason, "the reason of what was skipped")
        check_value(total.count, Whole, f"skipped as {total.reason}")
    for name, hint in RANGES.items():
        if name in fields:
            check_value(fields[name], hint, name)
    return fields


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
            f"{found.folder} holds another encoding: {join_clauses(differing)}; "
            "delete it or encode into another folder"
        )
