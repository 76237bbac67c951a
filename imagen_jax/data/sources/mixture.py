"""Several sources as one, by weight: which example comes when is arithmetic, not chance."""

import heapq
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, SupportsIndex

import numpy as np

from imagen_jax.config.sentences import join_texts
from imagen_jax.data.sources.base import SkipLog, SkippedNames, Source

LONGEST = 100_000  # examples after which the order of sources repeats, at most


@dataclass(frozen=True, eq=False)
class Mixture:
    """Sources interleaved, so that at every point each has its share to within one example.

    It ends when every source has been read once; those that are done sooner begin again.
    """

    sources: tuple[Source, ...]
    weights: tuple[float, ...]  # of examples, in any unit

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.weights) or not self.sources:
            raise ValueError(f"{len(self.weights)} weights for {len(self.sources)} sources")
        for weight in self.weights:
            if not 0 < weight < math.inf:
                raise ValueError(f"weight {weight} of a source must be positive and finite")
        for number, source in enumerate(self.sources):
            if not len(source):
                raise ValueError(f"source {number} of a mixture has no examples")
        if sum(self._parts) > LONGEST:
            raise ValueError(
                f"weights {join_texts(map(str, self.weights))} mix evenly over "
                f"{sum(self._parts):,} examples only, more than {LONGEST:,}: give them fewer digits"
            )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        number, within = self.place(operator.index(index))
        return self.sources[number][within]

    def key(self, index: int) -> str:
        """The number of the source, and the key that the example has there."""
        number, within = self.place(index)
        return f"{number}/{self.sources[number].key(within)}"

    @property
    def skipped(self) -> Mapping[str, SkippedNames]:
        """The names that the sources leave out, behind the number of the source."""
        skips = SkipLog()
        for number, source in enumerate(self.sources):
            skips.extend(source.skipped, f"{number}/")
        return skips.collect()

    def place(self, index: int) -> tuple[int, int]:
        """Source and index in it of an example."""
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        order, ranks = self._period
        times, place = divmod(index, len(order))
        number = int(order[place])
        within = times * self._parts[number] + int(ranks[place])
        return number, within % len(self.sources[number])

    @cached_property
    def _parts(self) -> list[int]:
        """Examples of each source in one period."""
        shares = [Fraction(str(weight)) for weight in self.weights]
        unit = math.lcm(*(share.denominator for share in shares))
        parts = [int(share * unit) for share in shares]
        common = math.gcd(*parts)
        return [part // common for part in parts]

    @cached_property
    def _order(self) -> np.ndarray:
        return np.array(interleave(self._parts), np.int32)

    @cached_property
    def _period(self) -> tuple[np.ndarray, np.ndarray]:
        """The source of each example of a period, and its rank among those of that source."""
        order = self._order
        ranks = np.zeros_like(order)
        for places in self._places:
            ranks[places] = np.arange(len(places))
        return order, ranks

    @cached_property
    def _places(self) -> list[np.ndarray]:
        """The places of each source's examples in a period."""
        ends = np.cumsum(self._parts)[:-1]
        return np.split(np.argsort(self._order, kind="stable"), ends)

    @cached_property
    def _count(self) -> int:
        order = self._order
        ends = []
        for number, source in enumerate(self.sources):
            times, rank = divmod(len(source) - 1, self._parts[number])
            ends.append(times * len(order) + int(self._places[number][rank]) + 1)
        return max(ends)


def interleave(parts: Sequence[int]) -> list[int]:
    """An order with `parts[i]` times each i: any n first ones have n parts[i] / sum, within one.

    Source: Tijdeman, The chairman assignment problem (1980): of those that are due by more than
    1 / (2k - 2) behind, the one whose deadline is next.
    """
    total, slack = sum(parts), 2 * max(len(parts) - 1, 1)

    def due(i: int, taken: int) -> tuple[int, int]:
        """From which example on the next of `i` is due, after `taken` of it."""
        return -(-total * (1 + slack * taken) // (slack * parts[i])), i

    taken, order = [0] * len(parts), []
    waiting = [due(i, 0) for i in range(len(parts))]
    heapq.heapify(waiting)
    ready: list[tuple[Fraction, int]] = []  # deadlines, in units of 1 / slack
    for n in range(1, total + 1):
        while waiting and waiting[0][0] <= n:
            _, i = heapq.heappop(waiting)
            deadline = Fraction(total * (slack - 1 + slack * taken[i]), parts[i])
            heapq.heappush(ready, (deadline, i))
        _, chosen = heapq.heappop(ready)
        taken[chosen] += 1
        order.append(chosen)
        heapq.heappush(waiting, due(chosen, taken[chosen]))
    return order
