"""The report on a data source: percentiles, what is left out, duplicates, a contact sheet."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imagen_jax.data.sources import base
from imagen_jax.data.sources.base import SkippedNames
from imagen_jax.io import image_grid
from imagen_jax.io.atomic import write_atomic

SHOWN = 5  # names of each reason; check.json has more
QUANTILES = (0, 1, 50, 99, 100)  # percent
COLUMNS = ("width", "height", "tokens", "captions", "bytes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """An inspected source; arrays have one number for each example that can be read."""

    name: str  # address of the source
    examples: int  # of the source
    looked_at: int
    width: np.ndarray  # pixels
    height: np.ndarray  # pixels
    tokens: np.ndarray  # of the longest caption
    captions: np.ndarray
    bytes: np.ndarray
    left_out: dict[str, SkippedNames]  # lost by the source, its images or a filter: keys by reason
    again: dict[str, SkippedNames]  # examples that come again
    contact_sheet: Image.Image | None = None
    seconds: float = 0.0  # of looking at the examples

    def to_markdown(self) -> str:
        """Return percentiles, reasons and duplicates as Markdown."""
        short = np.minimum(self.width, self.height)
        rows = {
            "short side, pixels": short,
            "long side by short side": np.maximum(self.width, self.height) / np.maximum(short, 1),
            "caption, tokens": self.tokens,
            "captions of an image": self.captions,
            "kilobytes": self.bytes / 1000,
        }
        lines = [
            f"# {base.make_printable(self.name)}",
            "",
            f"{self.examples:,} examples, {self.looked_at:,} checked, "
            f"{len(self.width):,} readable.",
            "",
            "| | minimum | 1st percentile | median | 99th percentile | maximum |",
            "|---|---|---|---|---|---|",
        ]
        for what, values in rows.items():
            cells = np.percentile(values, QUANTILES) if len(values) else [np.nan] * len(QUANTILES)
            lines.append(f"| {what} | " + " | ".join(f"{x:.4g}" for x in cells) + " |")
        for title, names in (("left out", self.left_out), ("duplicates", self.again)):
            lines += ["", f"{title}: {'none' if not names else ''}".rstrip()]
            for reason, keys in names.items():
                more = ", ..." if keys.total > SHOWN else ""
                lines.append(f"* {reason}: {keys.total:,} ({', '.join(keys[:SHOWN])}{more})")
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return the content of check.json."""
        names = {
            kind: {reason: {"total": n.total, "keys": list(n)} for reason, n in group.items()}
            for kind, group in (("left_out", self.left_out), ("duplicates", self.again))
        }
        keys = list(map(str, QUANTILES))
        quantiles = {
            name: dict(zip(keys, np.percentile(values, QUANTILES).tolist(), strict=True))
            for name in COLUMNS
            if len(values := getattr(self, name))
        }
        return {
            "examples": self.examples,
            "looked_at": self.looked_at,
            "readable": len(self.width),
            "percentiles": quantiles,
            **names,
        }

    def write(self, folder: Path) -> None:
        """Write report.md, check.json and contact_sheet.png."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "report.md", self.to_markdown().encode())
        write_atomic(folder / "check.json", json.dumps(self.to_dict(), indent=2) + "\n")
        if self.contact_sheet is not None:
            image_grid.save_image(self.contact_sheet, folder / "contact_sheet.png")

    def _repr_markdown_(self) -> str:  # Jupyter shows it
        return self.to_markdown()
