"""DeepFloyd IF's folders to a bundle, tensor by tensor in the dtypes that they have."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagen_jax import config, export
from imagen_jax.export.text_encoder import Kind as TextKind
from imagen_jax.io import safetensors, tensor_writer
from imagen_jax.pretrained.deepfloyd import load
from imagen_jax.pretrained.deepfloyd.load import Pipeline
from imagen_jax.pretrained.text_encoder import check_width
from imagen_jax.text import encoder_folders

COMMAND = "imagen convert deepfloyd"


def open_folders(folders: Sequence[Path]) -> list[Pipeline]:
    """The pipelines in folders, each of which is one or holds both; nothing large is read.

    Errors: ValueError for a folder without one; as `load.open_pipelines`.
    """
    found: list[Path] = []
    for folder in folders:
        pipelines = load.find_pipelines(folder)
        if not pipelines:
            raise ValueError(
                f"{folder} is no folder of DeepFloyd IF: neither it nor a folder in it has a "
                f"{load.INDEX} with an IF...Pipeline; download it whole, with its *.json"
            )
        found += pipelines
    return load.open_pipelines(found)


def write_bundle(
    folder: Path, pipelines: Sequence[Pipeline], *, kind: TextKind, text: config.Text | None
) -> Mapping[str, Any]:
    """Write pipelines into a new folder, which appears complete or not at all; its manifest.

    Memory holds the largest tensor twice, and of the text encoder as much as `native.write` says.
    Errors: FileExistsError when `folder` exists; OSError where too little of the disk is free;
    ValueError for a text encoder of another width, or a tensor that can't be stored.
    """
    if text is not None:
        width = encoder_folders.read_t5_config(text.encoder).width
        check_width(width, text, where=pipelines[0].folder)
    stages = [_stored(pipeline, text or pipeline.text) for pipeline in pipelines]
    contents = export.BundleOptions(text="none" if text is None else kind, progress=True)
    return export.write_stored(folder, stages, contents=contents, command=COMMAND)


def _stored(pipeline: Pipeline, text: config.Text) -> export.StoredStage:
    """A stage whose tensors are read by name."""
    files = {tensor.where for tensor, _ in pipeline.layout}
    dtypes = {file: safetensors.read_dtypes(Path(file)) for file in files}
    held = {p.name: (tensor, p) for tensor, parts in pipeline.layout for p in parts}
    kinds = {
        name: tensor_writer.Kind(p.shape, np.dtype(dtypes[tensor.where][tensor.name].dtype))
        for name, (tensor, p) in held.items()
    }

    def read(name: str) -> np.ndarray:
        tensor, parameter = held[name]
        return parameter.view(tensor.read())

    return export.StoredStage(experiment=pipeline.experiment(text), kinds=kinds, read=read)
