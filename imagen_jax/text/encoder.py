"""The frozen text encoder as a whole: captions in, encodings and their mask out (section 2.1)."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float32

from imagen_jax import config as settings
from imagen_jax import mesh
from imagen_jax.text import loading, t5
from imagen_jax.text.t5 import Dtype, T5Config
from imagen_jax.text.tokenizer import Tokenizer, pad
from imagen_jax.types import Params

EMBEDDED = {name: Path(__file__).parent / name for name in ("t5_1_1_tiny", "t5_1_1_mini")}
LEAST_SHARD = 2**20  # bytes; smaller parameters are whole on every device
DIGEST = 16  # hexadecimal digits
PIECE = 2**22  # elements that are digested at a time
LENGTH_STEP = 8  # captions are encoded with others of their length, rounded up to this

_encode = jax.jit(t5.encode, static_argnames=("config", "dtype"))


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A T5 encoder with its tokenizer; `max_length` counts the end-of-sentence token.

    Its parameters lie on this process's devices: processes encode each for itself.
    """

    config: T5Config
    params: Params
    tokenizer: Tokenizer
    max_length: int
    devices: Mesh
    dtype: Dtype
    digest: str  # of the weights

    @classmethod
    def load(cls, name_or_path: str, *, max_length: int, dtype: Dtype = "float32") -> "TextEncoder":
        """The embedded encoder of that name, or that of a folder.

        A folder is a T5X checkpoint or holds one, or is Hugging Face's; a SentencePiece `*.model`
        is in it or beside it. With `dtype` bfloat16 matrices are kept and multiplied as such.
        Errors: FileNotFoundError or ValueError that names the place, what is wrong and a remedy.
        """
        folder = EMBEDDED.get(name_or_path, Path(name_or_path))
        if not folder.is_dir():
            raise FileNotFoundError(
                f"no text encoder {name_or_path!r}: it is neither a folder with a T5X checkpoint "
                f"nor embedded ({', '.join(EMBEDDED)})"
            )
        if max_length < 1:
            raise ValueError(f"max_length={max_length} must be at least 1: eos takes one token")
        model = _tokenizer_file(folder)
        tokenizer = Tokenizer.load(model)
        sizes, layout = loading.inspect(folder)
        if tokenizer.size > sizes.vocab:
            raise ValueError(
                f"{model} has {tokenizer.size} pieces, but the embedding in {folder} only "
                f"{sizes.vocab} rows: they belong to different encoders"
            )
        devices = _devices(sizes, dtype)
        put = _Placer(devices, dtype)
        params = loading.read(layout, put)
        return cls(sizes, params, tokenizer, max_length, devices, dtype, put.digest())

    @property
    def width(self) -> int:
        """Length of one token's encoding."""
        return self.config.width

    @cached_property
    def identity(self) -> str:
        """What caches are keyed by: a digest of weights and tokenizer, whatever their files."""
        digest = hashlib.sha256(self.tokenizer.model)
        digest.update(self.digest.encode())
        return digest.hexdigest()[:DIGEST]

    def lost(self, caption: str) -> str:
        """The end of a caption that does not fit into `max_length`; "" if all of it does."""
        return self.tokenizer.lost(caption, max_length=self.max_length)

    def encode(
        self, captions: Sequence[str], *, batch_size: int = 256
    ) -> tuple[Float32[np.ndarray, "b n d"], Bool[np.ndarray, "b n"]]:
        """Encodings of captions and the mask of their tokens; zero where the mask is false.

        Warns, naming what was lost, when captions are longer than `max_length` tokens.

        Shapes: text (b, max_length, width), text_mask (b, max_length).
        Errors: ValueError if `batch_size` is below 1; TypeError if `captions` is one string.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        ragged = self.tokenizer.ragged(captions, max_length=self.max_length)
        # Only a row that is full can have lost something: few are tokenised twice.
        full = [c for c, ids in zip(captions, ragged, strict=True) if len(ids) == self.max_length]
        if lost := [end for end in map(self.lost, full) if end]:
            warnings.warn(
                f"{len(lost)} of {len(ragged)} captions are longer than the encoder's "
                f"{self.max_length} tokens and were cut; the first lost {lost[0]!r}",
                stacklevel=2,
            )
        text = np.zeros((len(ragged), self.max_length, self.width), np.float32)
        for length, rows in _buckets(ragged, max_length=self.max_length).items():
            size = min(batch_size, _power_of_two(len(rows)))
            for start in range(0, len(rows), size):
                chosen = rows[start : start + size]
                batch = [ragged[row] for row in chosen] + [[]] * (size - len(chosen))
                encoded = _encode(
                    self.params, *self._placed(batch, length), config=self.config, dtype=self.dtype
                )
                text[chosen, :length] = np.asarray(encoded)[: len(chosen)]
        _, text_mask = pad(ragged, length=self.max_length)
        return text, text_mask

    def _placed(self, batch: Sequence[Sequence[int]], length: int) -> tuple[jax.Array, jax.Array]:
        """Tokens and mask on the devices: rows split where they divide, else whole on each."""
        splits = len(batch) % self.devices.size == 0
        where = mesh.batch_sharding(self.devices) if splits else mesh.replicated(self.devices)
        tokens, text_mask = pad(batch, length=length)
        return jax.device_put(tokens, where), jax.device_put(text_mask, where)


class _Placer:
    """Puts parameters onto devices as they are read, and digests them."""

    def __init__(self, devices: Mesh, dtype: Dtype) -> None:
        self._devices, self._dtype = devices, dtype
        self._digests: dict[str, str] = {}

    def __call__(self, name: str, array: np.ndarray) -> jax.Array:
        self._digests[name] = _digest(array)
        # Vectors and tables of positions are added or multiplied in float32, and small.
        is_matrix = array.ndim == 2 and "relpos" not in name
        kept = jax.ShapeDtypeStruct(array.shape, self._dtype if is_matrix else np.float32)
        where = mesh.state_shardings(kept, self._devices, min_shard_bytes=LEAST_SHARD)
        return jax.make_array_from_callback(
            array.shape, where, lambda part: np.array(array[part], kept.dtype, order="C")
        )

    def digest(self) -> str:
        """Of all weights as float32, whatever the order and dtype in which they were stored."""
        return hashlib.sha256(repr(sorted(self._digests.items())).encode()).hexdigest()


def _digest(array: np.ndarray) -> str:
    digest = hashlib.sha256(repr(array.shape).encode())
    rows = max(1, PIECE * len(array) // max(1, array.size))
    for start in range(0, len(array), rows):
        digest.update(np.array(array[start : start + rows], np.float32, order="C"))
    return digest.hexdigest()


def _devices(sizes: T5Config, dtype: Dtype) -> Mesh:
    """This process's devices, over which weights that are too large for one are split."""
    count = sum(np.prod(shape) for shape in t5.parameter_shapes(sizes).values())
    state = float(count) * np.dtype(jax.dtypes.canonicalize_dtype(dtype)).itemsize
    workload = mesh.Workload(images=1, rows=1, state_bytes=state)
    return mesh.build(settings.Mesh(spatial=1), workload=workload, devices=jax.local_devices())


def config_of(name_or_path: str) -> T5Config:
    """The sizes of an encoder: embedded, in a folder, or one of Google's by its name.

    Errors: ValueError for none of these; as `loading.inspect` for a folder.
    """
    folder = EMBEDDED.get(name_or_path, Path(name_or_path))
    if folder.is_dir():
        return loading.inspect(folder)[0]
    if name_or_path in t5.SIZES:
        return t5.SIZES[name_or_path]
    raise ValueError(
        f"no text encoder {name_or_path!r}: it is no folder with a T5X checkpoint and none of "
        f"{', '.join((*EMBEDDED, *t5.SIZES))}"
    )


def _buckets(ragged: Sequence[Sequence[int]], *, max_length: int) -> dict[int, list[int]]:
    """Rows by the length that they are padded to."""
    buckets: dict[int, list[int]] = {}
    for row, ids in enumerate(ragged):
        length = min(-(-len(ids) // LENGTH_STEP) * LENGTH_STEP, max_length)
        buckets.setdefault(length, []).append(row)
    return buckets


def _power_of_two(number: int) -> int:
    """The next one, so that batches of many sizes share few compilations."""
    return 1 << (number - 1).bit_length()


def _tokenizer_file(folder: Path) -> Path:
    """The only `*.model` file in a folder, else in its parent."""
    for place in (folder, folder.absolute().parent):
        found = sorted(place.glob("*.model"))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found)
            raise ValueError(f"{place} has several tokenizers ({names}): keep the encoder's own")
    raise FileNotFoundError(
        f"no SentencePiece *.model file in {folder} or its parent: put the encoder's there"
    )
