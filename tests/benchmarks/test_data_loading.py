"""The benchmark of data reads what the sources and the store are today."""

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "benchmarks" / "data_loading.py"


def test_every_source_is_measured() -> None:
    options = ["--images", "8", "--pixels", "128", "--side", "16", "--repeats", "1"]
    command = [sys.executable, str(BENCH), *options]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    measured = {line.partition(":")[0] for line in found.stdout.splitlines() if "images/s" in line}
    stores = {"store, an embedded encoder", "store, T5-XXL"}
    assert measured == {"decoder", "bare loop", "folder", "tars", "parquet", "tfds"} | stores
