"""Speed of encoding captions on this machine, and the computation that packing them saves.

    python benchmarks/text_encoding.py                       T5 v1.1 small, random weights, float32
    python benchmarks/text_encoding.py --size t5_1_1_base --dtype bfloat16

Where PyTorch and transformers are installed, their T5EncoderModel of the same sizes encodes the
same batches in turn with ours. Times are medians of warm calls, compiling apart.
"""

import dataclasses
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from imagen_jax.parallel import flops
from imagen_jax.text import packing, t5
from imagen_jax.text.encoder import TextEncoder
from imagen_jax.text.t5 import T5Config

SHAPES = ((64, 24), (8, 128))  # captions and tokens: short ones padded alike, full rows
PEERS = ("torch", "transformers")
CAPTIONS, LONGEST = 8192, 128


@dataclasses.dataclass(frozen=True)
class Options:
    """Measured encoder."""

    size: Literal[tuple(t5.SIZES)] = "t5_1_1_small"  # type: ignore[valid-type]
    """Size of the encoder, whose weights are random."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of matrices and products, ours and theirs."""
    repeats: int = 9
    """Timed calls of each, in turns; the median counts."""


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options, description=__doc__)
    sizes = t5.SIZES[options.size]
    where = f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
    print(f"{options.size} in {options.dtype}, {where}")
    encoders = {"imagen_jax": _ours(sizes, options.dtype)}
    if all(importlib.util.find_spec(name) for name in PEERS):
        encoders["transformers"] = _theirs(sizes, options.dtype)
    for captions, tokens in SHAPES:
        seconds = _in_turns(encoders, captions, tokens, options.repeats)
        for name, found in seconds.items():
            print(
                f"{captions} x {tokens} tokens, {name}: {captions * tokens / found:,.0f} tokens/s"
            )
        if len(seconds) > 1:
            ratio = seconds["transformers"] / seconds["imagen_jax"]
            print(f"  imagen_jax / transformers: {ratio:.2f}")
    _tokenizing(options.repeats)
    _packing(options.repeats)


def _ours(sizes: T5Config, dtype: Any) -> Callable[[np.ndarray, np.ndarray], Any]:
    params = jax.jit(t5.init, static_argnums=1)(jax.random.key(0), sizes)
    params = jax.tree.map(lambda x: x.astype(dtype) if x.ndim == 2 else x, params)
    run = jax.jit(t5.encode, static_argnames=("config", "dtype"))

    def encode(tokens: np.ndarray, mask: np.ndarray) -> Any:
        return jax.block_until_ready(run(params, tokens, mask, config=sizes, dtype=dtype))

    return encode


def _theirs(sizes: T5Config, dtype: str) -> Callable[[np.ndarray, np.ndarray], Any]:
    import torch
    import transformers

    config = transformers.T5Config(
        vocab_size=sizes.vocab,
        d_model=sizes.width,
        d_kv=sizes.head_dim,
        d_ff=sizes.mlp_width,
        num_layers=sizes.layers,
        num_heads=sizes.heads,
        feed_forward_proj="gated-gelu",
    )
    model = transformers.T5EncoderModel(config).eval().to(getattr(torch, dtype))
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; transformers "
        f"{transformers.__version__}"
    )

    def encode(tokens: np.ndarray, mask: np.ndarray) -> Any:
        with torch.inference_mode():
            return model(
                input_ids=torch.from_numpy(tokens).long(), attention_mask=torch.from_numpy(mask)
            )

    return encode


def _in_turns(
    encoders: dict[str, Callable], captions: int, tokens: int, repeats: int
) -> dict[str, float]:
    """Median seconds of each encoder on the same batch, after one call that is not timed."""
    ids = np.random.default_rng(0).integers(2, 1000, (captions, tokens), dtype=np.int32)
    mask = np.ones((captions, tokens), bool)
    times: dict[str, list[float]] = {name: [] for name in encoders}
    for turn in range(repeats + 1):
        for name, encode in encoders.items():
            start = time.perf_counter()
            encode(ids, mask)
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def web_lengths() -> np.ndarray:
    """Lengths as captions on the web have them: 20 tokens on average, tail to 128."""
    drawn = np.random.default_rng(0).lognormal(np.log(16), 0.65, CAPTIONS)
    return np.clip(np.round(drawn), 2, LONGEST).astype(int)


def _tokenizing(repeats: int) -> None:
    tokenizer = TextEncoder.load("t5_1_1_tiny", max_length=LONGEST).tokenizer
    draw = np.random.default_rng(0)
    captions = [
        tokenizer.processor.decode(draw.integers(3, tokenizer.size, n).tolist())
        for n in web_lengths()
    ]
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        tokenizer.ragged_ids(captions, max_length=LONGEST)
        times.append(time.perf_counter() - start)
    rate = len(captions) / statistics.median(times)
    print(f"tokenizing: {rate:,.0f} captions/s on {os.cpu_count()} cores")


def _packing(repeats: int) -> None:
    """Useful tokens, FLOPs against no padding at all, and against padding to the longest."""
    lengths = web_lengths()
    ragged = [[1] * int(n) for n in lengths]
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        plan = packing.plan_rows(ragged, length=LONGEST, batch_rows=128, devices=8)
        times.append(time.perf_counter() - start)
    print(
        f"packing: {len(ragged) / statistics.median(times):,.0f} captions/s; of {CAPTIONS:,} "
        f"captions of {lengths.mean():.1f} tokens {plan.useful / plan.computed:.1%} of the tokens "
        "computed are useful"
    )
    for name in ("t5_1_1_small", "t5_1_1_xxl"):
        rows = sum(batch.rows for batch in plan.batches)
        packed = rows * _flops(t5.SIZES[name], LONGEST, packed=True)
        padded = CAPTIONS * _flops(t5.SIZES[name], LONGEST, packed=False)
        count = np.bincount(lengths)
        each = {n: _flops(t5.SIZES[name], int(n), packed=False) for n in np.flatnonzero(count)}
        alone = sum(count[n] * work for n, work in each.items())
        print(
            f"  {name}: {packed / alone - 1:.1%} more FLOPs than without any padding, "
            f"{padded / packed:.1f} times fewer than padded to {LONGEST}"
        )


def _flops(sizes: T5Config, tokens: int, *, packed: bool) -> float:
    """FLOPs of one row of so many tokens."""
    params = jax.eval_shape(lambda key: t5.init(key, sizes), jax.random.key(0))
    ids = jax.ShapeDtypeStruct((1, tokens), jnp.int32)
    if packed:
        return flops.count_flops(lambda p, x: t5.encode_packed(p, x, x, config=sizes), params, ids)
    return flops.count_flops(lambda p, x: t5.encode(p, x, x > 0, config=sizes), params, ids)


if __name__ == "__main__":
    main()
