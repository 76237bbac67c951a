"""`load`: a trained cascade from a run, a folder of runs, an exported bundle or the package."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from imagen_jax import config
from imagen_jax.imagen import Imagen
from imagen_jax.io import run_dir
from imagen_jax.io.workdir import Workdir
from imagen_jax.parallel import backend, compilation_cache
from imagen_jax.pretrained import locate
from imagen_jax.pretrained.deepfloyd import load as deepfloyd
from imagen_jax.pretrained.text_encoder import open_encoder


def load(
    path: str | Workdir,
    *,
    text_encoder: str | Path = "",
    dtype: config.Dtype | None = None,
    text_encoder_dtype: config.EncoderDtype | None = None,
    offload: bool = False,
    compile_cache: bool = True,
) -> Imagen:
    """The cascade in `path`: one run's folder, or a folder of runs whose stages chain.

    A run, here or in a bucket (`gs://`), has Orbax checkpoints; here it may also have the weights
    that `imagen export` wrote. Without a folder `path`, the embedded cascade of that name.
    A stage's weights are read to the devices when it first samples. With `offload` they leave when
    it is done, as the text encoder does when prompts are encoded: a device has to hold the largest
    part, not the sum; each call reads all again. `text_encoder` is the place or name of one to use
    instead of the one that the cascade names or holds. `dtype` is that of the networks' products in
    place of their configs'; of DeepFloyd IF's the matrices are then kept in it, too.
    `text_encoder_dtype` is the text encoder's: int8 takes half of bfloat16's memory.
    Compiled programs are kept in ~/.cache/imagen_jax/xla, or where jax was told to keep them, so
    that the next start need not compile; `compile_cache=False` leaves jax's settings alone.
    Errors: FileNotFoundError for no such cascade, or one without runs or weights; ValueError when
    the stages don't chain, weights don't fit their config or an exported file has changed, or for
    runs beside pipelines of diffusers.
    """
    backend.refuse_x64()
    if compile_cache:
        compilation_cache.use_cache()
    folder = locate.find_cascade(path)
    opened = functools.partial(_load_runs, folder)
    if pipelines := deepfloyd.find_pipelines(folder):
        locate.require_no_runs(folder)
        opened = functools.partial(deepfloyd.load_pipelines, pipelines)
    return opened(
        text_encoder=str(text_encoder),
        dtype=dtype,
        text_encoder_dtype=text_encoder_dtype,
        offload=offload,
    )


def _load_runs(
    folder: Workdir,
    *,
    text_encoder: str,
    dtype: config.Dtype | None,
    text_encoder_dtype: config.EncoderDtype | None,
    offload: bool,
) -> Imagen:
    """The cascade of a run's folder, of one with several, or of a bundle. Errors: as `load`."""
    listed = locate.read_manifests(locate.find_in_folder(folder))
    found = {run: run_dir.read_config(run) for run in listed}
    if len(found) > 1:
        config.chain(list(found.values()), where=str(folder))
    ordered = sorted(found, key=lambda run: found[run].stage.size)
    loaded = [locate.load_stage(run, found[run], listed[run], keep=not offload) for run in ordered]
    trained_with, bundle = found[ordered[0]].text, locate.open_bundle(listed)
    text: config.Text | None = trained_with
    if bundle is not None:
        text = bundle.text(trained_with, given=text_encoder)
    elif text_encoder:
        text = dataclasses.replace(trained_with, encoder=text_encoder, tokenizer="")
    if text is not None and text_encoder_dtype is not None:
        text = dataclasses.replace(text, dtype=text_encoder_dtype)
    return Imagen(
        stages=tuple(trained.in_dtype(dtype) for trained, _ in loaded),
        encoder=open_encoder(text, folder, padding=trained_with.padding, offload=offload),
        experiments=tuple(_as_loaded(found[run]) for run in ordered),
        steps=tuple(step for _, step in loaded),
        dataset=found[ordered[0]].data.dataset,
        words=frozenset() if bundle is None else bundle.caption_words(),
    )


def _as_loaded(experiment: config.Experiment) -> config.Experiment:
    """The run without the places that its weights need no more: adapters are merged into them."""
    teacher = dataclasses.replace(experiment.teacher, folder="")
    return dataclasses.replace(experiment, lora=config.Lora(), teacher=teacher)
