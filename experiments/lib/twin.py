"""`benchmarks/_twin.py`, found wherever an experiment is called from."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from _twin import count_parameters, twin

__all__ = ["count_parameters", "twin"]
