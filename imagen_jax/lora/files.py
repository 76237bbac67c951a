"""Adapters in safetensors files and in PEFT's folders.

Written ones are uniform, with the header that diffusers reads rank and alpha from. Every tensor of
a file that is read has to be part of an adapter: what is left over is refused, never dropped.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors import numpy as tensors

from imagen_jax import config
from imagen_jax.config.decode import decode
from imagen_jax.io import atomic, json_reader, torch_layout
from imagen_jax.io.safetensors import open_tensors
from imagen_jax.lora import tensor_names
from imagen_jax.lora.adapters import DOWN, UP, Adapters
from imagen_jax.lora.tensor_names import ALPHA

HEADER = "lora_adapter_metadata"  # of diffusers: JSON in the file's metadata
FACTS = "imagen_jax"  # ours
PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
UNET = "unet."  # before the keys of the header
REMEDY = "download it again, or export it again"
# Keys of PEFT's configs that change what the tensors mean.
UNREAD = {"use_dora": False, "lora_bias": False, "fan_in_fan_out": False, "bias": "none"}
DTYPES = ("F16", "BF16", "F32")
WHOLE = ("I32", "I64")  # of alpha, too: diffusers' converter to kohya's form writes the rank

Modules = Mapping[str, str]  # ours, "mid/attn_0/query", by a file's, "mid_block.attentions.0.to_q"
Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Ranks and alphas as a header or PEFT's config has them, by patterns of modules' names."""

    alpha: float | None = None  # None: each module's rank
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    root_of_rank: bool = False  # divide by the root of the rank, in its place

    def scale(self, module: str, rank: int) -> float:
        """Return the factor of one module's change."""
        named = [
            value
            for pattern, value in self.alpha_pattern.items()
            if module == pattern or module.endswith(f".{pattern}")
        ]
        alpha = named[0] if named else self.alpha
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.root_of_rank else rank)


def dotted_names(modules: Mapping[str, Any]) -> Modules:
    """Return our modules by their names in files of our own networks: with dots."""
    return {module.replace("/", "."): module for module in modules}


def read_adapters(path: Path, modules: Modules) -> Adapters:
    """Read the adapters in a safetensors file, or in a PEFT folder, of any known spelling.

    `modules` has every module that may have one, ours by the file's name.
    Errors: FileNotFoundError; ValueError for a damaged file, tensors that belong to no module or
    lack their partner, another dtype, a rank of 0, values that are not finite.
    """
    file, scaling = _open(path)
    with open_tensors(file) as opened:
        found: dict[str, dict[str, Array]] = {}
        left_over = []
        known = tensor_names.spellings(modules)
        for name in sorted(opened.keys()):
            part = tensor_names.parse_name(name)
            if part is None or part.module not in known:
                left_over.append(name)
                continue
            allowed = (*DTYPES, *WHOLE) if part.which == ALPHA else DTYPES
            _check_dtype(opened.get_slice(name).get_dtype(), allowed, file=file, name=name)
            found.setdefault(known[part.module], {})[part.which] = opened.get_tensor(name)
    if left_over:
        raise ValueError(
            f"{file}: {len(left_over)} tensors are of no module of this network: "
            f"{config.join_values(left_over)}; give the adapters of this network alone"
        )
    if not found:
        raise ValueError(f"{file} has no adapter: {REMEDY}")
    return _assemble(found, scaling, modules=modules, file=file)


def write_adapters(
    file: Path,
    adapters: Adapters,
    *,
    modules: Modules,
    as_convolution: Callable[[str], bool] = lambda module: False,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write adapters under the file's names of their modules, float32, in torch's layouts.

    `as_convolution` tells which of our dense modules the file's network has as convolutions of
    1 x 1; `facts` is kept in the file's metadata. Adapters of several ranks or scales have these
    multiplied into their second matrix, as the header has one of each.
    Errors: OSError.
    """
    theirs = {ours: name for name, ours in modules.items()}
    pairs = adapters.modules()
    uniform = len({(p[UP].shape[0], adapters.scales[m]) for m, p in pairs.items()}) == 1
    named = {}
    for module, pair in pairs.items():
        scale = 1.0 if uniform else adapters.scales[module]
        for which, matrix in ((DOWN, pair[DOWN]), (UP, np.float32(scale) * pair[UP])):
            array = _to_torch(np.asarray(matrix, np.float32), which, pair[DOWN].ndim == 4)
            if as_convolution(module):
                array = array[:, :, None, None]
            named[tensor_names.uniform_name(theirs[module], which)] = np.ascontiguousarray(array)
    metadata = {FACTS: json.dumps(dict(facts or {}), sort_keys=True)}
    if uniform:
        module, pair = next(iter(pairs.items()))
        rank = pair[UP].shape[0]
        header = {
            "r": rank,
            "lora_alpha": _plain(adapters.scales[module] * rank),
            "target_modules": sorted(theirs[m] for m in pairs),
        }
        metadata[HEADER] = json.dumps({UNET + key: value for key, value in header.items()})
    atomic.write_atomic(file, tensors.save(named, metadata=metadata))


def read_facts(file: Path) -> Mapping[str, Any]:
    """Read the facts that `write_adapters` was given; none of other programs' files.

    Errors: FileNotFoundError; ValueError for a damaged file.
    """
    if file.is_dir():
        return {}
    with open_tensors(file) as opened:
        text = (opened.metadata() or {}).get(FACTS, "{}")
    return json_reader.parse_object(text, where=f"{file}: {FACTS}", remedy=REMEDY)


def _open(path: Path) -> tuple[Path, Scaling]:
    """Return the file of tensors, and what stands beside them."""
    if path.is_dir():
        place = path / PEFT_CONFIG
        fields = json_reader.read_object(place, remedy=REMEDY)
        if "lora_alpha" not in fields:
            raise ValueError(f"{place} has no lora_alpha: {REMEDY}")
        return path / PEFT_WEIGHTS, _scaling(fields, place)
    with open_tensors(path) as opened:
        text = (opened.metadata() or {}).get(HEADER)
    where = f"{path}: {HEADER}"
    fields = {} if text is None else json_reader.parse_object(text, where=where, remedy=REMEDY)
    other = [key for key in fields if not key.startswith(UNET)]
    if other:
        raise ValueError(
            f"{where} speaks of {config.join_values(other)}: give a file of U-Net adapters alone"
        )
    return path, _scaling({key.removeprefix(UNET): value for key, value in fields.items()}, where)


def _scaling(fields: Mapping[str, Any], where: object) -> Scaling:
    if fields.get("peft_type", "LORA") != "LORA":
        kind = config.shorten(fields["peft_type"])
        raise ValueError(f"{where}: peft_type is {kind}, but only LORA is read")
    for key, plain in UNREAD.items():
        if fields.get(key, plain) not in (plain, None):
            raise ValueError(
                f"{where}: {key}={config.shorten(fields[key])} is not read: train without it"
            )
    alpha = fields.get("lora_alpha")
    return Scaling(
        alpha=None if alpha is None else _positive(alpha, f"{where}: lora_alpha"),
        alpha_pattern={
            name: _positive(value, f"{where}: alpha_pattern")
            for name, value in decode(
                Mapping[str, float], fields.get("alpha_pattern") or {}, f"{where}: alpha_pattern"
            ).items()
        },
        root_of_rank=decode(bool, fields.get("use_rslora") or False, f"{where}: use_rslora"),
    )


def _positive(value: Any, where: str) -> float:
    return float(config.check_value(value, config.Positive, where))


def _check_dtype(dtype: str, allowed: Sequence[str], *, file: Path, name: str) -> None:
    if dtype not in allowed:
        raise ValueError(
            f"{file}: {config.shorten(name)} holds {dtype}, wanted {', '.join(allowed)}: {REMEDY}"
        )


def _assemble(
    found: Mapping[str, Mapping[str, Array]], scaling: Scaling, *, modules: Modules, file: Path
) -> Adapters:
    """Return adapters of the tensors of each module. Errors: ValueError as `read_adapters`."""
    weights: dict[str, Array] = {}
    scales = {}
    for module, parts in found.items():
        where = f"{file}: {module}"
        if missing := {DOWN, UP} - set(parts):
            raise ValueError(f"{where} has no {' and no '.join(sorted(missing))}: {REMEDY}")
        down, up = (_from_torch(parts[which], where, which) for which in (DOWN, UP))
        rank = up.shape[0]
        if not rank or down.shape[-1] != rank:
            raise ValueError(
                f"{where}: {DOWN} has rank {down.shape[-1]} and {UP} has {rank}: {REMEDY}"
            )
        if not (np.isfinite(down).all() and np.isfinite(up).all()):
            raise ValueError(f"{where} has values that are not finite: {REMEDY}")
        ours = modules[module]
        weights[f"{ours}/{DOWN}"], weights[f"{ours}/{UP}"] = down, up
        scales[ours] = scaling.scale(module, rank)
        if ALPHA in parts:
            scales[ours] = _alpha(parts[ALPHA], where) / rank
    return Adapters(weights=traverse_util.unflatten_dict(weights, sep="/"), scales=scales)


def _alpha(stored: Array, where: str) -> float:
    if stored.size != 1:
        raise ValueError(f"{where}.{ALPHA} has {stored.size:,} values, wanted 1: {REMEDY}")
    return _positive(float(stored.reshape(())), f"{where}.{ALPHA}")


def _to_torch(matrix: Array, which: str, convolution: bool) -> Array:
    """(..., i, r) as (r, i, ...) and (r, o) as (o, r), or (o, r, 1, 1) of a convolution."""
    if which == DOWN:
        return torch_layout.to_torch(matrix)
    return torch_layout.to_pointwise(matrix) if convolution else matrix.T


def _from_torch(stored: Array, where: str, which: str) -> Array:
    """Undo `_to_torch`; a convolution of 1 x 1 stays one, see `adapters.fit`."""
    array = np.asarray(stored, np.float32)
    if array.ndim == 4 and which == UP and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    if array.ndim != 2 and not (array.ndim == 4 and which == DOWN):
        raise ValueError(f"{where}.{which} has shape {array.shape}, which no adapter has: {REMEDY}")
    return torch_layout.from_torch(array)


def _plain(number: float) -> float | int:
    """Return a whole number as one: PEFT's alphas are mostly."""
    nearest = round(number)
    return nearest if math.isclose(number, nearest, rel_tol=1e-12) else number
