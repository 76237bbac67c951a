"""Text encoders: our form, Hugging Face's, T5X's two layouts, and the tokenizer."""

import json
from pathlib import Path

import numpy as np
import t5_checkpoints
from fuzz.mutator import Files, read_files
from fuzz.target import Target

from imagen_jax.text import encoder_folders
from imagen_jax.text.checkpoints import load, native
from imagen_jax.text.tokenizer import Tokenizer

CAPTIONS = ("a red circle", "", "é№", "x" * 300)


def _keep(_: str, array: np.ndarray) -> np.ndarray:
    assert array.dtype.kind in "fV"
    return array


def _parse(folder: Path) -> None:
    load.load_parameters(folder, place=_keep)


def _encoders(scratch: Path) -> list[Files]:
    """Our form, of weights that are small enough to write thousands of times."""
    place = scratch / "native"
    if not place.is_dir():
        tensors = t5_checkpoints.per_layer()
        rows = np.zeros((_words().size, t5_checkpoints.WIDTH), np.float32)
        inlined = t5_checkpoints.Writer(inlined=r"")
        inlined.write(scratch / "whole", {**tensors, "token_embedder.embedding": rows})
        sizes, layout = load.find_layout(scratch / "whole")
        native.write(place, sizes, layout, tokenizer=_words(), dtype="float32", progress=False)
    files = read_files(place)
    return [files]


def _words() -> Tokenizer:
    return Tokenizer.load(encoder_folders.find_tokenizer(encoder_folders.EMBEDDED["t5_1_1_tiny"]))


def _hugging_face(scratch: Path) -> list[Files]:
    whole = scratch / "hugging_face"
    if not whole.is_dir():
        t5_checkpoints.write_hugging_face(whole, t5_checkpoints.per_layer())
    files = read_files(whole)
    weights = files["model.safetensors"]
    assert isinstance(weights, bytes)
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    shard = "model-00001-of-00001.safetensors"
    index = {"metadata": {}, "weight_map": {n: shard for n in header if n != "__metadata__"}}
    sharded: Files = {shard: weights, "config.json": files["config.json"]}
    sharded["model.safetensors.index.json"] = json.dumps(index).encode()
    return [files, sharded]


def _t5x(scratch: Path, writer: t5_checkpoints.Writer, name: str) -> list[Files]:
    if not (scratch / name).is_dir():
        writer.write(scratch / name, t5_checkpoints.per_layer())
    return [read_files(scratch / name)]


def _t5x_trees(scratch: Path) -> list[Files]:
    plain = t5_checkpoints.Writer(inlined=r"")
    return _t5x(scratch, plain, "tree")


def _t5x_arrays(scratch: Path) -> list[Files]:
    mixed = t5_checkpoints.Writer(inlined=r"^(?!.*layers_0\.mlp)")
    own = t5_checkpoints.Writer(inlined=r"^(?!.*layers_0\.mlp)", dotfiles=False)
    return [*_t5x(scratch, mixed, "arrays"), *_t5x(scratch, own, "bare")]


def _t5x_databases(scratch: Path) -> list[Files]:
    if not (scratch / "database").is_dir():
        t5_checkpoints.write_orbax(scratch / "database", t5_checkpoints.per_layer())
    return [read_files(scratch / "database")]


def _tokenizers(_: Path) -> list[Files]:
    return [{"spiece.model": _words().model}]


def _parse_tokenizer(folder: Path) -> None:
    words = Tokenizer.load(folder / "spiece.model")
    tokens, _ = words.tokenize(CAPTIONS, max_length=8)
    assert tokens.max(initial=0) < max(words.size, words.eos + 1)
    words.cut_text(CAPTIONS[-1], max_length=4)
    words.unknown_pieces(CAPTIONS[2])
    words.knows_any(CAPTIONS[0])


TARGETS = [
    Target(name="encoder", is_confined=True, corpus=_encoders, parse=_parse, is_cheap=False),
    Target(name="hugging_face", corpus=_hugging_face, parse=_parse, is_cheap=False),
    Target(name="t5x_tree", corpus=_t5x_trees, parse=_parse, is_cheap=False),
    Target(name="t5x_arrays", corpus=_t5x_arrays, parse=_parse, is_cheap=False),
    Target(name="t5x_database", corpus=_t5x_databases, parse=_parse, is_cheap=False),
    Target(name="tokenizer", corpus=_tokenizers, parse=_parse_tokenizer, is_cheap=False),
]
