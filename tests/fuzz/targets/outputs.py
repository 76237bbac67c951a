"""What commands leave for later ones: kept batches, plans, notes of copies, programs, steps."""

import io
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from fuzz.mutator import Files
from fuzz.target import Target
from jax import export

from imagen_jax.cli import plan
from imagen_jax.data.store import block_cache
from imagen_jax.export import stablehlo
from imagen_jax.plan import report
from imagen_jax.runtime import supervisor
from imagen_jax.sample import kept_batches

PLAN = {
    "what": "train",
    "name": "base64",
    "topology": "v5e:2x4",
    "slices": 1,
    "mesh": {"data": 8},
    "remat": None,
    "local_images": 8,
    "images": 64,
    "hbm_per_device": {"total_gib": 1.5, "capacity_gib": 16.0, "fits": True},
    "roofline_seconds": {"binds": "compute", "compute": 0.5},
    "images_per_s": 5.0,
}


def _programs(_: Path) -> list[Files]:
    @jax.jit
    def double(tensors: dict[str, jax.Array], given: dict[str, jax.Array]) -> jax.Array:
        return tensors["a"] * 2 + given["b"]

    shapes = ({"a": jax.ShapeDtypeStruct((2,), "float32")},) * 1
    made = export.export(double)(*shapes, {"b": jax.ShapeDtypeStruct((2,), jnp.float32)})
    return [{stablehlo.SAMPLE: made.serialize()}]


def _parse_program(folder: Path) -> None:
    stablehlo.read_program(folder / stablehlo.SAMPLE)


def _batches(_: Path) -> list[Files]:
    images, whole = io.BytesIO(), io.BytesIO()
    np.save(images, np.zeros((2, 4, 4, 3), np.float32))
    np.savez(whole, base=np.zeros((2, 4, 4, 3), np.uint8), sr=np.ones((2, 8, 8, 3), np.uint8))  # type: ignore[arg-type]
    return [{"base_0000000.npy": images.getvalue()}, {"0000000.npz": whole.getvalue()}]


def _parse_batches(folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        found = kept_batches.read_batches if file.suffix == ".npz" else kept_batches.read_batch
        found(file)


def _plans(_: Path) -> list[Files]:
    return [{"plan.json": json.dumps({"plans": [PLAN, PLAN]}).encode()}]


def _parse_plans(folder: Path) -> None:
    report.plan_table(plan.read_plans(folder / "plan.json"))


def _notes(_: Path) -> list[Files]:
    return [{block_cache.ABOUT: json.dumps({"bytes": 4096, "files": ["gs://a/b"]}).encode()}]


def _parse_note(folder: Path) -> None:
    assert type(block_cache._reserved(folder)) is int


def _steps(_: Path) -> list[Files]:
    return [{"step": b"step 12 of base64".ljust(supervisor.STEP_WIDTH)}, {"step": b""}]


def _parse_step(folder: Path) -> None:
    found = supervisor.read_step(folder / "step")
    assert found is None or found.strip()


TARGETS = [
    Target(name="stablehlo", corpus=_programs, parse=_parse_program),
    Target(name="kept_batches", corpus=_batches, parse=_parse_batches),
    Target(name="plan_report", corpus=_plans, parse=_parse_plans),
    Target(name="block_cache_note", corpus=_notes, parse=_parse_note),
    Target(name="last_step", corpus=_steps, parse=_parse_step),
]
