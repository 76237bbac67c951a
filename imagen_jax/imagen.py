"""`Imagen`: saved stages and prompts in, pictures out."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from imagen_jax import checkpoint, config, export, models, pixels, pretrained, workdir
from imagen_jax.sample import cascade
from imagen_jax.sample.following import Following, digest
from imagen_jax.sample.stored import Stored
from imagen_jax.text.borrowed import Absent, Borrowed
from imagen_jax.text.encoder import TextEncoder
from imagen_jax.types import Params
from imagen_jax.workdir import Workdir

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH_SIZE = 16  # pictures painted at once


@dataclasses.dataclass(frozen=True)
class Imagen:
    """A trained cascade: call it with prompts."""

    painters: tuple[cascade.Painter, ...]
    encoder: TextEncoder | Borrowed | Absent
    experiments: tuple[config.Experiment, ...] = ()  # the run behind each stage
    steps: tuple[int, ...] = ()  # and how many steps it had made
    unfinished: Path | None = None  # keeps batches of paintings that are cut short, to go on

    def __call__(
        self, prompts: Sequence[str], *, seed: int = 0, until: str | None = None
    ) -> list[Image]:
        """One PIL picture per prompt, of the last stage (or of stage `until`).

        An empty prompt paints unconditionally. Picture i depends on (seed, i, prompts[i]) only.
        Errors: ValueError for no prompts or an unknown stage.
        """
        from PIL import Image as pil

        painted = self.paint(prompts, seed=seed, until=until)
        return [pil.fromarray(picture) for picture in list(painted.values())[-1]]

    def paint(
        self,
        prompts: Sequence[str],
        *,
        seed: int = 0,
        until: str | None = None,
        low_res: np.ndarray | None = None,
        batch_size: int = BATCH_SIZE,
        progress: Callable[[str, int], None] | None = None,
    ) -> dict[str, np.ndarray]:
        """Pictures of every stage: {stage name: uint8 (p, side, side, 3)}.

        Shapes: low_res uint8 (p, h, w, 3) starts a cascade whose first stage is super-resolution.
        Errors: ValueError for no prompts, an unknown stage, or a prompt that is no string.
        """
        names = [p.stage.name for p in self.painters]
        if until is not None and until not in names:
            raise ValueError(f"no stage {until!r} in this cascade; it has {names}")
        chosen = self.painters[: names.index(until) + 1] if until else self.painters
        encoded = self.encode(prompts)  # first: a borrowed encoder has the devices for itself
        low = None if low_res is None else np.asarray(pixels.scale(low_res))
        painted = cascade.generate(
            chosen,
            encoded,
            seed=seed,
            batch_size=batch_size,
            low_res=low,
            following=Following(
                progress, self._kept(chosen, *vars(encoded).values(), seed, batch_size, low)
            ),
        )
        return {name: np.asarray(pixels.unscale(image)) for name, image in painted.items()}

    def _kept(self, painters: Sequence[cascade.Painter], *what: Any) -> Path | None:
        """A folder for batches of just this painting; of several processes none keeps any."""
        if self.unfinished is None or jax.process_count() > 1:
            return None
        stored = [p.params.identity for p in painters if isinstance(p.params, Stored)]
        # Vectors alone tell weights apart, too, and large kernels stay where they are.
        held = [p.params for p in painters if not isinstance(p.params, Stored)]
        vectors = [x for x in jax.tree.leaves(held) if x.ndim < 2]
        return self.unfinished / digest(vectors, stored, [p.stage for p in painters], *what)

    def encode(self, prompts: Sequence[str]) -> cascade.Prompts:
        """The prompts' encodings; warns, naming what was lost, for one that is too long."""
        if isinstance(prompts, str) or not prompts:
            raise ValueError(f"prompts must be a list of at least one string, got {prompts!r}")
        text, text_mask = self.encoder.encode(list(prompts))
        return cascade.Prompts(
            text=text,
            text_mask=text_mask,
            has_text=np.array([bool(p.strip()) for p in prompts]),
            indices=np.arange(len(prompts)),
        )

    def with_sampler(self, changes: dict[str, Any], *, stage: str | None = None) -> Imagen:
        """The same cascade with fields of `config.Sampler` (or `aug_level`) changed.

        For every stage, or for the one named. Errors: ValueError for an unknown stage or field.
        """
        names = [p.stage.name for p in self.painters]
        if stage is not None and stage not in names:
            raise ValueError(f"no stage {stage!r} in this cascade; it has {names}")
        return dataclasses.replace(
            self,
            painters=tuple(
                p if stage not in (None, p.stage.name) else _changed(p, changes)
                for p in self.painters
            ),
        )


def load(path: str | Workdir, *, encoder: str | Path = "", offload: bool = False) -> Imagen:
    """The cascade in `path`: one run's folder, or a folder of runs whose stages chain.

    A run, here or in a bucket (`gs://`), has Orbax checkpoints; here it may also have the weights
    that `imagen export` wrote. Without a folder `path`, the embedded cascade of that name.
    A stage's weights are read to the devices when it first paints. With `offload` they leave when
    it is done, as the text encoder does when prompts are encoded: a device has to hold the largest
    part, not the sum; each painting reads all again. `encoder` is the place or name of a text
    encoder to use instead of the one that the cascade names or holds.
    Errors: FileNotFoundError for no such cascade, or one without runs or weights; ValueError when
    the stages don't chain, weights don't fit their config or an exported file has changed.
    """
    folder = find(path)
    listed = _listed(_runs(folder))
    runs = {run: checkpoint.read_config(run) for run in listed}
    if len(runs) > 1:
        config.chain(list(runs.values()), where=str(folder))
    ordered = sorted(runs, key=lambda run: runs[run].stage.size)
    loaded = [_painter(run, runs[run], listed[run], keep=not offload) for run in ordered]
    text, bundle = runs[ordered[0]].text, _only(listed)
    if bundle is not None:
        text = bundle.text(text, given=str(encoder))
    elif encoder:
        text = dataclasses.replace(text, encoder=str(encoder), tokenizer="")
    return Imagen(
        painters=tuple(painter for painter, _ in loaded),
        encoder=_encoder(text, folder, offload=offload),
        experiments=tuple(runs[run] for run in ordered),
        steps=tuple(step for _, step in loaded),
    )


def _encoder(
    text: config.Text | None, where: Workdir, *, offload: bool
) -> TextEncoder | Borrowed | Absent:
    """The text encoder, checked; where there is none, what says so when it is needed."""
    if text is None:
        return Absent(str(where))
    check = functools.partial(_check_encoder, text=text, where=where)
    if offload:
        return Borrowed(text, check)
    found = TextEncoder.of(text, split="heads")
    check(found)
    return found


def _check_encoder(encoder: TextEncoder, text: config.Text, *, where: Workdir) -> None:
    """Refuse an encoder whose encodings a cascade was not trained on; other weights only warn.

    They may be the same in another precision, such as bfloat16 on disk.
    """
    if encoder.width != text.width:
        raise ValueError(
            f"{where}: text.width={text.width}, but {text.encoder!r} is {encoder.width} wide"
        )
    if text.vocabulary not in ("", encoder.vocabulary):
        raise ValueError(
            f"{where} was trained with vocabulary {text.vocabulary}, but that of {text.encoder!r} "
            f"is {encoder.vocabulary}: put the tokenizer of training there"
        )
    if text.identity not in ("", encoder.identity):
        warnings.warn(
            f"{where} was trained with text encoder {text.identity}, but {text.encoder!r} is "
            f"{encoder.identity}: unless its weights are the same, rounded, pictures will suffer",
            stacklevel=3,
        )


def find(path: str | Workdir) -> Workdir:
    """The folder of a cascade: `path` if it is one, else the embedded cascade of that name.

    Errors: FileNotFoundError that lists the embedded cascades.
    """
    folder = workdir.of(path)
    if folder.is_dir():
        return folder
    if str(path) in pretrained.names():
        return pretrained.folder(str(path))
    raise FileNotFoundError(f"no cascade at {path}: the folder does not exist, and {_embedded()}")


def _embedded() -> str:
    return f"the embedded cascades are: {', '.join(pretrained.names()) or 'none'}"


def _runs(folder: Workdir) -> list[Workdir]:
    if (folder / checkpoint.CONFIG).is_file():
        return [folder]
    runs = sorted(f.parent for f in folder.glob(f"*/{checkpoint.CONFIG}"))
    if not runs and isinstance(folder, Path) and (folder / export.MANIFEST).is_file():
        export.verify(folder)  # which names what is lost
    if not runs:
        hidden = " (this folder hides that one)" if str(folder) in pretrained.names() else ""
        raise FileNotFoundError(
            f"no cascade at {folder}: neither it nor a folder in it has a {checkpoint.CONFIG}; "
            f"train one with `imagen train CONFIG --workdir DIR`; {_embedded()}{hidden}"
        )
    return runs


def _is_exported(run: Workdir) -> bool:
    """Whether a run's weights are exported ones, or were until their file was lost.

    Errors: ValueError when it has checkpoints too.
    """
    has_weights = (run / export.WEIGHTS).is_file()
    has_checkpoints = (run / checkpoint.FOLDER).is_dir()
    if has_weights and has_checkpoints:
        raise ValueError(
            f"{run} has both {export.WEIGHTS} and {checkpoint.FOLDER}/: move one of them away"
        )
    if not isinstance(run, Path):
        if has_weights:
            raise ValueError(f"{run}: exported weights are read from a folder here: copy them")
        return False
    listed = (run.resolve().parent / export.MANIFEST).is_file()
    return has_weights or (listed and not has_checkpoints)


def _listed(runs: Sequence[Workdir]) -> dict[Workdir, export.Manifest | None]:
    """Each run with the manifest that its exported weights have been compared with, if any."""
    exported = [run for run in runs if _is_exported(run)]
    manifests = {place: export.verify(place) for place in {r.resolve().parent for r in exported}}
    return {run: manifests[run.resolve().parent] if run in exported else None for run in runs}


def _only(listed: Mapping[Workdir, export.Manifest | None]) -> export.Manifest | None:
    """The bundle that all runs are of, if there is one."""
    first, *others = {id(manifest): manifest for manifest in listed.values()}.values()
    return None if others else first


def _painter(
    run: Workdir, experiment: config.Experiment, listed: export.Manifest | None, *, keep: bool
) -> tuple[cascade.Painter, int]:
    """One run's EMA weights, to be read when they are needed, and their step."""
    if listed is not None:
        step, identity = export.inspect(Path(run), experiment, listed)
        read = functools.partial(export.read, Path(run), listed)
    else:
        shapes = models.shapes(experiment.stage, experiment.text)
        saved = checkpoint.Checkpoints(run, read_only=True)
        step = saved.latest() or 0
        identity = saved.identity({"ema": shapes}, step=step)
        read = functools.partial(_restored, saved, shapes, step)
    stored = Stored(identity=identity, keep=keep, read=read)
    module = models.build(experiment.stage.model)
    return cascade.Painter(stage=experiment.stage, module=module, params=stored), step


def _restored(
    saved: checkpoint.Checkpoints, shapes: Any, step: int, sharding: NamedSharding
) -> Params:
    """A checkpoint's EMA weights on the devices."""
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
    )
    return saved.restore({"ema": target}, step=step)["ema"]


def _changed(painter: cascade.Painter, changes: dict[str, Any]) -> cascade.Painter:
    stage = painter.stage
    known = {f.name for f in dataclasses.fields(config.Sampler)} | {"aug_level"}
    if unknown := sorted(set(changes) - known):
        raise ValueError(f"unknown sampler option {unknown[0]!r}; there are {sorted(known)}")
    sampler = {k: v for k, v in changes.items() if k != "aug_level"}
    noise = stage.noise_conditioning
    if "aug_level" in changes:
        noise = dataclasses.replace(noise, sample_level=changes["aug_level"])
    return dataclasses.replace(
        painter,
        stage=dataclasses.replace(
            stage, sampler=dataclasses.replace(stage.sampler, **sampler), noise_conditioning=noise
        ),
    )
