"""`Imagen`: saved stages and prompts in, pictures out."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from imagen_jax import config
from imagen_jax.data import known_words
from imagen_jax.image import to_uint8
from imagen_jax.io import run_dir
from imagen_jax.io.workdir import Workdir
from imagen_jax.parallel import backend, compilation_cache
from imagen_jax.pretrained import locate
from imagen_jax.sample import cascade
from imagen_jax.sample.finite import NotFinite
from imagen_jax.sample.overrides import Changes, apply_overrides, check_used
from imagen_jax.sample.progress import NO_CALLBACKS, SamplingCallbacks, digest_of
from imagen_jax.sample.request import PLAIN, Request
from imagen_jax.sample.stage_program import EncodedPrompts, EncodedText, TrainedStage
from imagen_jax.sample.stored import LazyParams
from imagen_jax.text.encoder import TextEncoder
from imagen_jax.text.offloaded import MissingTextEncoder, OffloadedTextEncoder

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH_SIZE = 16  # pictures painted at once
BATCHES = 4  # that go through all stages together; all others' pictures are not in memory
BORROWED_BATCHES = 16  # the same, where weights are read anew each time


class Samples(NamedTuple):
    """Some of the pictures asked for, of every stage."""

    first_index: int  # of the first of them
    images: dict[str, np.ndarray]  # uint8 (p, h, w, 3), by stage


@dataclasses.dataclass(frozen=True)
class Imagen:
    """A trained cascade: call it with prompts."""

    painters: tuple[TrainedStage, ...]
    encoder: TextEncoder | OffloadedTextEncoder | MissingTextEncoder
    experiments: tuple[config.Experiment, ...] = ()  # the run behind each stage
    steps: tuple[int, ...] = ()  # and how many steps it had made
    unfinished: Path | None = None  # keeps batches of paintings that are cut short, to go on
    dataset: str = ""  # whose captions the cascade has seen; other words are warned of

    def __call__(
        self,
        prompts: Sequence[str],
        *,
        seed: int = 0,
        until: str | None = None,
        request: Request = PLAIN,
        first_index: int | None = None,
    ) -> list[Image]:
        """One PIL picture per prompt, of the last stage (or of stage `until`).

        An empty prompt paints unconditionally. A picture depends on the seed, its prompt and its
        index only: that of prompts[i] is i, or i more than `first_index`, the request's by default.
        Errors: as `paint`.
        """
        from PIL import Image as pil

        if first_index is not None:
            request = dataclasses.replace(request, first_index=first_index)
        parts = self.stream(prompts, seed=seed, until=until, request=request)
        return [pil.fromarray(x) for part in parts for x in list(part.images.values())[-1]]

    def paint(
        self,
        prompts: Sequence[str],
        *,
        seed: int = 0,
        until: str | None = None,
        request: Request = PLAIN,
        batch_size: int = BATCH_SIZE,
        following: SamplingCallbacks = NO_CALLBACKS,
    ) -> dict[str, np.ndarray]:
        """Pictures of every stage: {stage name: uint8 (p, h, w, 3)}; all are in memory.

        `request` says what is wanted besides the prompts; `following` is told of each batch, and
        of unfinished pictures if it asks for them.
        Errors: ValueError for no prompts, an unknown stage, a prompt that is no string, a seed or a
        batch size that is none, or pictures in the request that don't fit; NotFinite, a
        FloatingPointError, for pictures that are none.
        """
        options = {"seed": seed, "until": until, "request": request}
        parts = [
            part.images
            for part in self.stream(prompts, **options, batch_size=batch_size, following=following)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def stream(
        self,
        prompts: Sequence[str],
        *,
        seed: int = 0,
        until: str | None = None,
        request: Request = PLAIN,
        batch_size: int = BATCH_SIZE,
        following: SamplingCallbacks = NO_CALLBACKS,
    ) -> Iterator[Samples]:
        """As `paint`, some batches at a time, so that memory does not grow with the prompts.

        Errors: as `paint`, those of the arguments before anything is painted.
        """
        backend.refuse_x64()
        seed = config.check_value(seed, config.Seed, "seed")
        batch_size = config.check_value(batch_size, config.Count, "batch_size")
        chosen = self.chosen(request.start, until)
        _check_prompts(prompts)
        cascade.check_request([p.stage for p in chosen], request, len(prompts))
        at_once = min(batch_size, len(prompts))
        borrowed = isinstance(self.encoder, OffloadedTextEncoder)
        count = at_once * (BORROWED_BATCHES if borrowed else BATCHES)

        def paint(start: int) -> Samples:
            part, texts = request.part(start, start + count), prompts[start : start + count]
            # First of all: a borrowed encoder has the devices for itself.
            encoded = self.encode(texts, negative=part.negative, first_index=part.first_index)
            kept = following
            if following.folder is None:
                folder = self._kept(chosen, encoded, seed, at_once, part)
                kept = dataclasses.replace(following, folder=folder)
            images = kept.recall_all(part.first_index)
            if images is None:
                options = {"seed": seed, "batch_size": at_once, "request": part, "following": kept}
                try:
                    painted = cascade.generate(chosen, encoded, **options)
                except NotFinite as error:
                    raise error.naming(texts, first_index=part.first_index) from None
                images = {name: np.asarray(to_uint8(x)) for name, x in painted.items()}
                kept.finished_all(part.first_index, images)
            return Samples(part.first_index, images)

        return map(paint, range(0, len(prompts), count))

    def chosen(self, start: str | None, until: str | None) -> tuple[TrainedStage, ...]:
        """The stages from `start`, or the first, to `until`, or the last.

        Errors: ValueError for a stage that is not there, or for two in the wrong order.
        """
        names = [p.stage.name for p in self.painters]
        for name in (start, until):
            if name is not None and name not in names:
                raise ValueError(f"no stage {name!r} in this cascade; it has {names}")
        chosen = slice(
            names.index(start) if start else 0, names.index(until) + 1 if until else len(names)
        )
        if not self.painters[chosen]:
            raise ValueError(f"stage {until!r} comes before {start!r}: the cascade has {names}")
        return self.painters[chosen]

    def _kept(self, painters: Sequence[TrainedStage], *what: Any) -> Path | None:
        """A folder for batches of just this painting; of several processes none keeps any."""
        if self.unfinished is None or jax.process_count() > 1:
            return None
        stored = [p.params.identity for p in painters if isinstance(p.params, LazyParams)]
        # Vectors alone tell weights apart, too, and large kernels stay where they are.
        held = [p.params for p in painters if not isinstance(p.params, LazyParams)]
        vectors = [x for x in jax.tree.leaves(held) if x.ndim < 2]
        parts = [x for part in what for x in (vars(part).values() if _has_parts(part) else [part])]
        return self.unfinished / digest_of(
            vectors,
            stored,
            [p.stage for p in painters],
            *jax.tree.leaves(parts, is_leaf=lambda x: x is None),
        )

    def encode(
        self, prompts: Sequence[str], *, negative: str | Sequence[str] = "", first_index: int = 0
    ) -> EncodedPrompts:
        """The prompts' encodings.

        Warns of what is lost of one that is too long, or outside the encoder's vocabulary, and of
        words that the cascade has never seen.
        Errors: ValueError for no prompts, or one that is no string or no Unicode text.
        """
        _check_prompts(prompts)
        if isinstance(negative, str):
            negative = [negative] * len(prompts)
        config.check_texts(negative, what="negative prompt")
        self._warn_of_unseen([*prompts, *negative])
        distinct = sorted(set(filter(str.strip, negative)))
        # At once: a borrowed encoder is loaded for each call.
        texts = [*prompts, *distinct, *([""] if distinct else [])]
        text, text_mask = self.encoder.encode(texts)
        encoded = EncodedText(text, text_mask, np.array([bool(t.strip()) for t in texts]))

        def rows(which: Sequence[int]) -> EncodedText:
            return EncodedText(*(x[np.array(which)] for x in encoded))

        negatives = None
        if distinct:
            where = {t: len(prompts) + i for i, t in enumerate(distinct)}
            negatives = rows([where.get(t, len(texts) - 1) for t in negative])
        count = range(len(prompts))
        indices = first_index + np.arange(len(count))
        return EncodedPrompts(captions=rows(count), indices=indices, negatives=negatives)

    def _warn_of_unseen(self, texts: Sequence[str]) -> None:
        if words := known_words.unknown_words(texts, dataset=self.dataset):
            warnings.warn(
                f"no caption of {self.dataset}, on which this cascade was trained, has the word "
                f"{config.join_values(words)}: what is painted for it is anybody's guess",
                stacklevel=3,
            )

    def with_sampler(self, changes: dict[str, Any], *, stage: str | None = None) -> Imagen:
        """The same cascade with fields of `config.Sampler` (or `aug_level`) changed.

        For every stage, or for the one named.
        Errors: ValueError for an unknown stage or field, or one that no stage of them reads.
        """
        changed = self.with_samplers([(stage, changes)])
        check_used([p.stage for p in changed.painters], [(stage, changes)])
        return changed

    def with_samplers(self, changes: Changes) -> Imagen:
        """`with_sampler` for several (stage or None, changes), the later ones over the earlier.

        Errors: ValueError for an unknown stage or field.
        """
        return dataclasses.replace(self, painters=apply_overrides(self.painters, changes))


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
    backend.refuse_x64()
    compilation_cache.use_cache()
    folder = locate.find_cascade(path)
    listed = locate.read_manifests(locate.find_in_folder(folder))
    found = {run: run_dir.read_config(run) for run in listed}
    if len(found) > 1:
        config.chain(list(found.values()), where=str(folder))
    ordered = sorted(found, key=lambda run: found[run].stage.size)
    loaded = [locate.load_stage(run, found[run], listed[run], keep=not offload) for run in ordered]
    text, bundle = found[ordered[0]].text, locate.open_bundle(listed)
    if bundle is not None:
        text = bundle.text(text, given=str(encoder))
    elif encoder:
        text = dataclasses.replace(text, encoder=str(encoder), tokenizer="")
    return Imagen(
        painters=tuple(painter for painter, _ in loaded),
        encoder=_encoder(text, folder, offload=offload),
        experiments=tuple(found[run] for run in ordered),
        steps=tuple(step for _, step in loaded),
        dataset=found[ordered[0]].data.dataset,
    )


def _encoder(
    text: config.Text | None, where: Workdir, *, offload: bool
) -> TextEncoder | OffloadedTextEncoder | MissingTextEncoder:
    """The text encoder, checked; where there is none, what says so when it is needed."""
    if text is None:
        return MissingTextEncoder(str(where))
    check = functools.partial(_check_encoder, text=text, where=where)
    if offload:
        return OffloadedTextEncoder(text, check)
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


def _check_prompts(prompts: Sequence[str]) -> None:
    if isinstance(prompts, str | bytes) or not hasattr(prompts, "__len__") or not len(prompts):
        raise ValueError(
            f"prompts must be a list of at least one string, got {config.shorten(prompts)}"
        )
    config.check_texts(prompts, what="prompt")


def _has_parts(thing: Any) -> bool:
    return isinstance(thing, EncodedPrompts | Request)
