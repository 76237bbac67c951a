"""A bundle's programs as TensorFlow SavedModels, by orbax-export; an optional extra."""

from pathlib import Path

from safetensors.numpy import load_file

from imagen_jax import extras
from imagen_jax.export import stablehlo
from imagen_jax.io.atomic import new_folder

SIGNATURE = "serving_default"


def check() -> None:
    """Refuse, by a ValueError, where TensorFlow or orbax-export is not installed."""
    extras.require("tensorflow", "a SavedModel needs")
    extras.require("orbax.export", "a SavedModel needs")


def write(folder: Path, bundle: Path) -> None:
    """Write FOLDER/STAGE and FOLDER/text, each a SavedModel with the signature `serving_default`.

    Its arguments are the program's, by name; its variables are the stored tensors. They hold the
    StableHLO of the bundle: no operation is TensorFlow's.
    Errors: ValueError without the libraries; FileExistsError when `folder` exists.
    """
    check()
    with new_folder(folder) as unfinished:
        for file in sorted(bundle.glob("[!.]*/[!.]*.stablehlo")):
            _write(unfinished / file.parent.name, file)


def _write(place: Path, file: Path) -> None:
    """One program with its tensors."""
    import tensorflow as tf
    from orbax.export import ExportManager, JaxModule, ServingConfig

    program = stablehlo.read_program(file)
    names = sorted(file.parent.glob("[!.]*.safetensors"))
    files = [load_file(found) for found in names]
    tensors = {name: x for tensors in files for name, x in tensors.items()}
    arguments = stablehlo.describe_program(program)["arguments"]
    shapes = {name: _shape(text) for name, text in arguments.items()}
    module = JaxModule(
        tensors,
        program.call,
        trainable=False,
        input_polymorphic_shape={
            name: f"({', '.join(map(str, shape))})" if "b" in shape else None
            for name, (_, shape) in shapes.items()
        },
        jax2tf_kwargs={"native_serialization_platforms": stablehlo.PLATFORMS},
    )
    signature = {
        name: tf.TensorSpec([None if side == "b" else side for side in shape], dtype, name=name)
        for name, (dtype, shape) in shapes.items()
    }
    ExportManager(module, [ServingConfig(SIGNATURE, input_signature=[signature])]).save(str(place))


def _shape(text: str) -> tuple[str, list[int | str]]:
    """`float32[b,8,8,3]` as its dtype and sides, of which the batch is a letter."""
    dtype, _, sides = text.removesuffix("]").partition("[")
    return dtype, [int(side) if side.isdecimal() else side for side in sides.split(",") if side]
