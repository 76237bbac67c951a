"""`imagen export CASCADE --out FOLDER`: one folder that samples anywhere."""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from imagen_jax import config
from imagen_jax.cli import parsing
from imagen_jax.config.sentences import shorten

if TYPE_CHECKING:
    from imagen_jax.export import BundleOptions, StageCheckpoint
    from imagen_jax.imagen import Imagen

USAGE = """Write a cascade into one folder that samples anywhere: averaged weights and configs, the
text encoder, and each stage's whole sampling loop as a program for cpu, cuda and tpu.

`imagen sample`, `imagen eval` and `imagen_jax.load` read that folder as they read a run's; other
programs run its *.stablehlo with jax alone. It appears complete or not at all, with the SHA-256 of
every file. Complete its README.md: machine, hours, scores.
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `imagen export`."""

    cascade: tyro.conf.Positional[str]
    """Folder of a run, or of the runs of a cascade, or of an exported one; or the name of an
    embedded cascade."""
    out: Path
    """Folder to make, or with --form lora a file; it must not exist."""
    dtype: Literal["bfloat16", "float32", "int8"] = "bfloat16"
    """Precision of the stored weights, of kernels alone for int8; they are float32 in memory. What
    rounding changes is measured and told."""
    text: Literal["embedded", "reference", "none"] | None = None
    """The text encoder: in the folder, by its name or place and a digest, or left out. Default:
    embedded, up to a gigabyte of weights; larger ones by reference."""
    programs: bool = True
    """The programs for other runtimes."""
    weights_only: bool = False
    """As --text reference --no-programs."""
    captions_of: str = ""
    """Data source, such as emoji/styles, that the cascade was trained on: the words of its captions
    go into the folder, and prompts with others are warned of."""
    data_dir: Path = Path("data")
    """Folder of that dataset, where it is an embedded one or TFDS's."""
    form: Literal["bundle", "orbax", "saved_model", "lora"] = "bundle"
    """orbax: only weights, float32, each stage's a standard Orbax checkpoint for other JAX code.
    saved_model: the programs as TensorFlow SavedModels (pip install 'imagen_jax[tensorflow]').
    lora: the adapters alone of a run that trained them, in one safetensors file."""

    def __post_init__(self) -> None:
        config.require(
            self.form not in ("orbax", "lora") or (self.text is None and not self.weights_only),
            f"--form {self.form} has weights alone; leave out --text and --weights-only",
        )
        config.require(
            self.form != "saved_model" or (self.programs and not self.weights_only),
            "--form saved_model is made of the programs; leave out --no-programs, --weights-only",
        )
        config.require(
            not self.weights_only or self.text in (None, "reference"),
            f"--weights-only has the text encoder by reference; leave out --text {self.text}",
        )
        config.require(
            self.form == "bundle" or not self.captions_of,
            f"--form {self.form} has no words of captions; leave out --captions-of",
        )


def run(argv: list[str]) -> None:
    """Parse, load, write, say what was written."""
    options = parsing.parse(Options, argv, prog="imagen export", description=USAGE)
    import imagen_jax
    from imagen_jax.io import atomic

    if options.form == "lora":
        _write_adapters(options)
        return
    if options.form == "saved_model":
        from imagen_jax.export import saved_model

        saved_model.check()
    atomic.check_new(options.out)  # before what takes long
    imagen = imagen_jax.load(options.cascade, offload=True)
    if options.form == "orbax":
        from imagen_jax.export import orbax

        orbax.write_params(options.out, _stages(imagen))
        print(f"the weights are in {options.out}, a checkpoint a stage in {orbax.PARAMS}/")
    elif options.form == "saved_model":
        with tempfile.TemporaryDirectory() as temporary:
            _write(imagen, options, Path(temporary) / "bundle")
            saved_model.write(options.out, Path(temporary) / "bundle")
        print(f"the SavedModels are in {options.out}")
    else:
        size = _write(imagen, options, options.out)
        print(f"the cascade is in {options.out}, {size / 1e6:.1f} MB; complete its README.md")


def _write_adapters(options: Options) -> None:
    from imagen_jax.io import workdir
    from imagen_jax.pretrained import lora

    if options.out.exists():
        raise FileExistsError(f"--out {options.out} is there already: give another place")
    lora.write_run(workdir.as_path(options.cascade), options.out)
    print(f"the adapters are in {options.out}, {options.out.stat().st_size / 1e6:.1f} MB")


def _write(imagen: "Imagen", options: Options, out: Path) -> int:
    """Write a bundle and say what is in it; its bytes."""
    from imagen_jax import export

    document = export.write_bundle(
        out, _stages(imagen), dtype=options.dtype, contents=_contents(options, imagen)
    )
    for name, facts in document["stages"].items():
        weights, network = facts["deviation"]["weights"], facts["deviation"]["network"]
        print(
            f"{name}: step {facts['step']}, {facts['bytes'] / 1e6:.1f} MB; off by {weights:.2%}, "
            f"what the network gives by {network:.2%}"
        )
    print(f"text encoder: {document['text']['encoder']}, {document['text']['kind']}")
    return sum(entry["bytes"] for entry in document["files"].values())


def _stages(imagen: "Imagen") -> "Iterator[StageCheckpoint]":
    """One after another: each leaves the devices when the next is asked for."""
    from imagen_jax import export

    for experiment, trained, step in zip(
        imagen.experiments, imagen.stages, imagen.steps, strict=True
    ):
        yield export.StageCheckpoint(
            experiment=experiment, params=trained.device_params(), step=step
        )
        trained.release()


def _contents(options: Options, imagen: "Imagen") -> "BundleOptions":
    """Return what to write besides the weights. Errors: ValueError for a missing encoder."""
    from imagen_jax import export
    from imagen_jax.text.offloaded import MissingTextEncoder, OffloadedTextEncoder

    programs = options.programs and not options.weights_only
    if isinstance(imagen.encoder, MissingTextEncoder):
        if options.text not in (None, "none") or options.weights_only:
            imagen.encoder.encode([])  # says what is missing
        return export.BundleOptions(text="none", programs=programs, words=_words(options, imagen))
    assert isinstance(imagen.encoder, OffloadedTextEncoder)  # of a cascade loaded with offload
    source = imagen.encoder.text
    kind = "reference" if options.weights_only else options.text or export.default_embedding(source)
    return export.BundleOptions(
        text=kind, source=source, programs=programs, words=_words(options, imagen)
    )


def _words(options: Options, imagen: "Imagen") -> frozenset[str]:
    """The words of captions that go into the bundle.

    Errors: as `addresses.open_source`; ValueError for a source without any.
    """
    if not options.captions_of:
        return imagen.words
    from imagen_jax.data import known_words
    from imagen_jax.data.sources import addresses

    address = addresses.parse_address(options.captions_of)
    source = addresses.open_source(address, options.data_dir)
    found = known_words.words_of_source(source)
    config.require(
        bool(found),
        f"--captions-of {shorten(options.captions_of)}: none of {len(source):,} examples has a "
        "caption with a word; give the source that the cascade was trained on, or leave it out",
    )
    return found
