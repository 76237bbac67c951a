"""Runs and bundles: configs, weights, manifests, checkpoints, and the networks they ask for."""

import dataclasses
import hashlib
import json
from pathlib import Path

import jax
import numpy as np
from fuzz.mutator import Files, Link, read_files, write_files
from fuzz.target import Target

from imagen_jax import config, export, models, pretrained
from imagen_jax.export import manifest, text_encoder
from imagen_jax.io import checkpoints, run_dir, safetensors
from imagen_jax.pretrained import load as pretrained_load

NEST = {"stem": {"kernel": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float32)}}
STAGE = "base8"


def _tiny() -> config.Experiment:
    return config.load("tiny")[0]


def _configs(_: Path) -> list[Files]:
    names = ("tiny", "quickstart", "imagen/base64_2b", "imagen/sr256", "imagen/sr1024")
    found = [one for name in names for one in config.load(name)]
    return [{run_dir.CONFIG: config.to_json(one).encode()} for one in found]


def _parse_config(folder: Path) -> config.Experiment:
    return run_dir.read_config(folder)


def _small_configs(_: Path) -> list[Files]:
    return [{run_dir.CONFIG: config.to_json(one).encode()} for one in config.load("tiny")]


def _parse_network(folder: Path) -> None:
    experiment = run_dir.read_config(folder)
    models.parameter_shapes(experiment.stage, experiment.text)


def _weights(scratch: Path) -> list[Files]:
    found = []
    for dtype in ("float32", "bfloat16", "int8"):
        file = scratch / dtype / run_dir.WEIGHTS
        file.parent.mkdir(parents=True, exist_ok=True)
        safetensors.save_params(file, NEST, dtype=dtype, metadata={"step": "3"})  # type: ignore[arg-type]
        found.append(read_files(file.parent))
    return found


def _parse_weights(folder: Path) -> None:
    file = folder / run_dir.WEIGHTS
    safetensors.read_metadata(file)
    one = safetensors.load_params(file)
    other, _ = safetensors.load_with_digest(file, place=lambda array: array)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    safetensors.check_params(file, NEST)


def _facts(kind: str) -> dict[str, object]:
    described = text_encoder.TextEncoderEntry(
        kind=kind,  # type: ignore[arg-type]
        encoder="t5_1_1_tiny",
        tokenizer="",
        identity="",
        vocabulary="",
        width=64,
        max_length=24,
        dtype="float32",
        clean=False,
    )
    facts: dict[str, object] = {"dtype": "float32", "versions": {"imagen_jax": "0.1.0"}}
    return facts | {"dataset": "shapes/tiny", "text": dataclasses.asdict(described)}


def _manifests(scratch: Path) -> list[Files]:
    folder = scratch / "manifest"
    if not folder.is_dir():
        write_files({"base8/config.json": b"{}", "base8/weights.safetensors": b"x"}, folder)
        manifest.write_manifest(folder, {**_facts("reference"), "stages": {STAGE: {"step": 3}}})
    return [read_files(folder)]


def _seal(files: Files) -> Files:
    """Sign a bundle again: sizes and digests of its files, and the manifest's own."""
    stated = files.get(export.MANIFEST)
    try:
        facts = json.loads(stated) if isinstance(stated, bytes) else None
    except (ValueError, RecursionError):
        return files
    if not isinstance(facts, dict):
        return files
    listed = facts.get("files")
    for name in listed if isinstance(listed, dict) else ():
        data = files.get(name)
        if isinstance(data, bytes):
            listed[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    facts.pop("sha256", None)
    try:
        facts["sha256"] = manifest._digest(facts)
        text = json.dumps(facts)
    except (ValueError, RecursionError):
        return files
    return {**files, export.MANIFEST: text.encode(errors="surrogatepass")}


def _seal_manifest(files: Files) -> Files:
    return _seal({n: x for n, x in files.items() if not isinstance(x, Link)})


def _parse_manifest(folder: Path) -> None:
    found = export.verify_bundle(folder)
    assert isinstance(found.version, str)
    found.text(_tiny_text())


def _tiny_text() -> config.Text:
    return config.Text(encoder="t5_1_1_tiny", width=64, max_length=24)


def _bundles(scratch: Path) -> list[Files]:
    folder = scratch / "bundle"
    if not folder.is_dir():
        experiment = _tiny()
        shapes = models.parameter_shapes(experiment.stage, experiment.text)
        params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        run_dir.write_config(folder / STAGE, experiment)
        file = folder / STAGE / run_dir.WEIGHTS
        safetensors.save_params(file, params, dtype="int8", metadata={"step": "3"})
        manifest.write_manifest(folder, {**_facts("none"), "stages": {STAGE: {"step": 3}}})
    return [read_files(folder)]


def _parse_bundle(folder: Path) -> None:
    """Find a cascade, and read its weights as they are read when it samples."""
    loaded = pretrained_load.load(str(folder), compile_cache=False)
    (device, *_) = jax.devices()
    mesh = jax.sharding.Mesh(np.array([device]), ("data",))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    for stage in loaded.stages:
        stage.params.read(whole)


def _saved_runs(scratch: Path) -> list[Files]:
    folder = scratch / "run"
    if not folder.is_dir():
        experiment = _tiny()
        run_dir.write_config(folder, experiment)
        saved = checkpoints.Checkpoints(folder)
        state = {"ema": jax.tree.map(jax.numpy.asarray, NEST)}
        saved.save(3, state, experiment)
        saved.wait()
        saved.close()
    return [read_files(folder)]


def _parse_checkpoint(folder: Path) -> None:
    saved = checkpoints.Checkpoints(folder, read_only=True)
    try:
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), {"ema": NEST}
        )
        saved.identity(target, step=saved.latest() or 0)
        saved.restore(target)
    finally:
        saved.close()


def _names(_: Path) -> list[Files]:
    return [{"name": name.encode()} for name in pretrained.list_names()]


TARGETS = [
    Target(name="run_config", corpus=_configs, parse=_parse_config),
    Target(name="network", corpus=_small_configs, parse=_parse_network, is_cheap=False),
    Target(name="weights", corpus=_weights, parse=_parse_weights),
    Target(
        name="bundle_manifest",
        is_confined=True,
        corpus=_manifests,
        parse=_parse_manifest,
        seal=_seal_manifest,
    ),
    Target(
        name="bundle",
        is_confined=True,
        corpus=_bundles,
        parse=_parse_bundle,
        seal=_seal_manifest,
        is_cheap=False,
    ),
    Target(name="run_checkpoint", corpus=_saved_runs, parse=_parse_checkpoint, is_cheap=False),
]
