"""A parser of files that strangers give, and honest files to begin with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz.mutator import Files, read_files

CORPUS = Path(__file__).parent / "corpus"  # TARGET/NAME/, what once did harm
OVER = "over-"  # how names of folders begin whose files replace those of the first honest input


@dataclass(frozen=True, kw_only=True)
class Target:
    """One parser."""

    name: str
    corpus: Callable[[Path], list[Files]]  # honest inputs; they may be made in the folder given
    parse: Callable[[Path], object]  # reads the folder that an input was written to
    is_cheap: bool = True  # tens of microseconds to milliseconds an input
    focus: tuple[str, ...] = ("*",)  # patterns of the files that are changed
    is_confined: bool = False  # links that lead out of the folder are not followed
    seal: Callable[[Files], Files] | None = None  # writes checksums again, as a stranger can
    allows: frozenset[str] = frozenset()  # events of Python's audit that are the parser's own

    def inputs(self, scratch: Path) -> list[Files]:
        """Honest inputs, and those that once did harm."""
        place, honest = CORPUS / self.name, self.corpus(scratch)
        kept = sorted(place.iterdir()) if place.is_dir() else []
        under: list[Files] = [honest[0] if one.name.startswith(OVER) else {} for one in kept]
        return [*honest, *(u | read_files(one) for u, one in zip(under, kept, strict=True))]
