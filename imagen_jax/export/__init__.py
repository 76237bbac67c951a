"""The inference bundle: one folder from which a cascade samples anywhere, written and read.

| in the folder | holds |
|---|---|
| `manifest.json` | format, versions, text encoder, stages; size and SHA-256 of every file |
| `README.md` | a card, to be completed by hand |
| `STAGE/config.json`, `weights.safetensors` | a stage's resolved config and averaged weights |
| `STAGE/sample.stablehlo` | its whole sampling loop, for cpu, cuda and tpu |
| `words.txt` | the words of the captions in training, where they were given: others are warned of |
| `text/` | the text encoder as `imagen convert text` writes it, and `encode.stablehlo` |

| file | holds |
|---|---|
| `bundle.py` | `write` and `read` |
| `stored_stage.py` | the same of weights in other files, tensor by tensor |
| `manifest.py` | what the folder holds, compared with what it should |
| `text_encoder.py` | the text encoder: embedded, by reference or left out |
| `stablehlo.py` | sampling loop and text encoder as StableHLO |
| `rounding_error.py` | what rounding changes, measured |
| `model_card.py`, `licences.py` | the card; licences of weights that others trained |
| `orbax.py` | for other JAX programs, instead of a bundle: weights as Orbax checkpoints |
| `saved_model.py` | for TensorFlow, instead of a bundle: its programs as SavedModels |

Everything is data: JSON, safetensors, a SentencePiece model, and StableHLO, which is compiled and
reads and writes nothing but its arguments.
"""

from imagen_jax.export.bundle import (
    BundleOptions,
    StageCheckpoint,
    inspect_bundle,
    read_stage,
    write_bundle,
)
from imagen_jax.export.licences import LICENCES
from imagen_jax.export.manifest import CARD, FORMAT, MANIFEST, Manifest, verify_bundle
from imagen_jax.export.stored_stage import StoredStage, write_stored
from imagen_jax.export.text_encoder import TextEncoderEntry, default_embedding

__all__ = [
    "CARD",
    "FORMAT",
    "LICENCES",
    "MANIFEST",
    "BundleOptions",
    "Manifest",
    "StageCheckpoint",
    "StoredStage",
    "TextEncoderEntry",
    "default_embedding",
    "inspect_bundle",
    "read_stage",
    "verify_bundle",
    "write_bundle",
    "write_stored",
]
