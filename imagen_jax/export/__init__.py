"""The inference bundle: one folder from which a cascade paints anywhere, written and read.

| in the folder | holds |
|---|---|
| `manifest.json` | format, versions, text encoder, stages; size and SHA-256 of every file |
| `README.md` | a card, to be completed by hand |
| `STAGE/config.json`, `weights.safetensors` | a stage's resolved config and averaged weights |
| `STAGE/sample.stablehlo` | its whole sampling loop, for cpu, cuda and tpu |
| `text/` | the text encoder as `imagen convert text` writes it, and `encode.stablehlo` |

| file | holds |
|---|---|
| `bundle.py` | `write` and `read` |
| `manifest.py` | what the folder holds, compared with what it should |
| `words.py` | the text encoder: embedded, by reference or left out |
| `programs.py` | sampling loop and text encoder as StableHLO |
| `deviation.py` | what rounding changes, measured |
| `card.py` | the card |
| `plain.py` | for other JAX programs, instead of a bundle: weights as Orbax checkpoints |
| `saved_model.py` | for TensorFlow, instead of a bundle: its programs as SavedModels |
| `fresh.py` | a new folder, complete or not at all |

Everything is data: JSON, safetensors, a SentencePiece model, and StableHLO, which is compiled and
reads and writes nothing but its arguments.
"""

from imagen_jax.export.bundle import Contents, Trained, inspect, read, write
from imagen_jax.export.manifest import CARD, FORMAT, MANIFEST, Manifest, verify
from imagen_jax.export.text_encoder import Words, chosen

__all__ = [
    "CARD",
    "FORMAT",
    "MANIFEST",
    "Contents",
    "Manifest",
    "Trained",
    "Words",
    "chosen",
    "inspect",
    "read",
    "verify",
    "write",
]
