"""Collectives: the bytes that a compiled program sends between chips, read from its text.

A loop's body is read once, whatever the number of its turns.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")
_LINE = re.compile(
    r"^\s*(?:ROOT )?%?[\w.-]+ = (?P<type>.+?) (?P<kind>"
    + "|".join(KINDS)
    + r")(?P<start>-start)?\("
)
_SHAPE = re.compile(r"(pred|[a-z]+[0-9]+\w*)\[([0-9,]*)\]")
_BITS = re.compile(r"\d+")


@dataclass(frozen=True, kw_only=True)
class CollectiveTraffic:
    """Collectives of one kind in one step of one device."""

    count: int
    payload: int  # bytes of their results

    def times(self, calls: int) -> "CollectiveTraffic":
        """Return the traffic of so many calls."""
        return CollectiveTraffic(count=calls * self.count, payload=calls * self.payload)


def read_collectives(text: str) -> Mapping[str, CollectiveTraffic]:
    """Count the collectives of a compiled program (`compiled.as_text()`), by kind."""
    found: dict[str, list[int]] = defaultdict(list)
    for line in text.splitlines():
        if (match := _LINE.match(line)) is not None:
            found[match["kind"]].append(
                _payload(match["type"], match["kind"], bool(match["start"]))
            )
    return {
        kind: CollectiveTraffic(count=len(found[kind]), payload=sum(found[kind]))
        for kind in KINDS
        if kind in found
    }


def bytes_sent(traffic: Mapping[str, CollectiveTraffic]) -> int:
    """Bytes that a device has to send at least: a ring sends all but its own part, at most all.

    An all-reduce is a reduce-scatter and an all-gather.
    """
    rounds = {"all-reduce": 2}
    return sum(rounds.get(kind, 1) * found.payload for kind, found in traffic.items())


def _payload(types: str, kind: str, is_start: bool) -> int:
    """Bytes of a result; the start of an asynchronous one lists its operands before it."""
    sizes = [_bytes(dtype, sides) for dtype, sides in _SHAPE.findall(types)]
    if is_start and kind == "all-gather":
        return sum(sizes[len(sizes) // 2 :])
    if is_start and kind == "collective-permute":  # operand, result, two numbers
        return sizes[1]
    return sum(sizes)


def _bytes(dtype: str, sides: str) -> int:
    count = math.prod(int(side) for side in sides.split(",") if side)
    found = _BITS.search(dtype)
    bits = int(found[0]) if found else 8  # a pred is a byte
    return count * bits // 8
