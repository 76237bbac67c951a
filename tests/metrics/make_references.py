"""Write tests/fixtures/metrics/references.npz from the field's own packages.

Run it with the extra `parity` installed: `python tests/metrics/make_references.py`. Weights are
random, of a seed: `tests/support/random_weights.py` makes them again.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "fixtures" / "metrics" / "references.npz"
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import metric_oracles as oracles  # noqa: E402
import random_weights  # noqa: E402


def main() -> None:
    """Compute and write."""
    images = random_weights.images(3, 64)
    found = {"inception": oracles.inception(random_weights.inception_tensors(), images, divide=8)}
    with tempfile.TemporaryDirectory() as folder:
        model = random_weights.write_clip(Path(folder))
        ids = oracles.clip_ids(model, oracles.TEXTS)
        found |= {"ids": ids, "pixels": oracles.clip_pixels(model, images)}
        found |= oracles.clip(model, found["pixels"], ids)
    first, second = oracles.features(0), oracles.features(1)
    found["fid"] = np.array(oracles.fid(first, second))
    found["precision_recall"] = np.array(oracles.precision_recall(first, second))
    found["cmmd"] = np.array(oracles.cmmd(first, second))
    np.savez_compressed(FILE, **found)
    print(FILE, FILE.stat().st_size, {name: array.shape for name, array in found.items()})


if __name__ == "__main__":
    main()
