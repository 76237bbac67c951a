"""`Imagen`: trained stages and prompts in, images out."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import jax
import numpy as np

from imagen_jax import config
from imagen_jax.data import known_words
from imagen_jax.diffusion.samplers import StepRule
from imagen_jax.image import to_uint8_by_batch
from imagen_jax.parallel import backend
from imagen_jax.sample import cascade
from imagen_jax.sample.nonfinite_images import NotFinite
from imagen_jax.sample.options import SampleOptions, check_prompts, read_options
from imagen_jax.sample.overrides import Changes, apply_overrides, check_used, with_step_rule
from imagen_jax.sample.progress import (
    NO_CALLBACKS,
    SamplingCallbacks,
    digest_of_request,
    progress_bar,
)
from imagen_jax.sample.request import PLAIN, Request
from imagen_jax.sample.sampler_inputs import EncodedText, SamplerInputs
from imagen_jax.sample.stage_program import TrainedStage
from imagen_jax.samples import ImageList, Samples
from imagen_jax.text.encoder import TextEncoder
from imagen_jax.text.offloaded import MissingTextEncoder, OffloadedTextEncoder

BATCH_SIZE = 16  # images sampled at once
BATCHES = 4  # that go through all stages together; no other images are in memory
OFFLOADED_BATCHES = 16  # the same, where weights are read again each time


@dataclasses.dataclass(frozen=True, repr=False)
class Imagen:
    """A trained cascade: call it with prompts."""

    stages: tuple[TrainedStage, ...]
    encoder: TextEncoder | OffloadedTextEncoder | MissingTextEncoder
    experiments: tuple[config.Experiment, ...] = ()  # the run behind each stage
    steps: tuple[int, ...] = ()  # and how many steps it had made
    cache_dir: Path | None = None  # keeps batches of a call that is interrupted, to resume it
    dataset: str = ""  # whose captions the cascade has seen; other words are warned of
    words: frozenset[str] = frozenset()  # of those captions; (): as `data.known_words` knows them

    def __repr__(self) -> str:
        sizes = (f"{s.stage.name} {s.stage.size}x{s.stage.size}" for s in self.stages)
        trained = f"; trained on {self.dataset}" if self.dataset else ""
        return f"Imagen({', '.join(sizes)}{trained})"

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        seed: int = 0,
        batch_size: int = BATCH_SIZE,
        request: Request = PLAIN,
        callbacks: SamplingCallbacks = NO_CALLBACKS,
        progress: bool | None = None,
        **options: Unpack[SampleOptions],
    ) -> ImageList:
        """PIL images of the last stage, one for each prompt; a list even for a single prompt.

        An empty prompt samples without text. An image depends on the seed, its prompt and its
        index only: that of prompts[i] is i, or i more than `first_index`.
        Arguments and errors: as `sample`.
        """
        parts = self.stream(
            prompts,
            seed=seed,
            batch_size=batch_size,
            request=request,
            callbacks=callbacks,
            progress=progress,
            **options,
        )
        lists = [part.last_images() for part in parts]
        images = [image for part in lists for image in part]
        return ImageList(images, prompts=[p for part in lists for p in part.prompts])

    def sample(
        self,
        prompts: str | Sequence[str],
        *,
        seed: int = 0,
        batch_size: int = BATCH_SIZE,
        request: Request = PLAIN,
        callbacks: SamplingCallbacks = NO_CALLBACKS,
        progress: bool | None = None,
        **options: Unpack[SampleOptions],
    ) -> Samples:
        """Images of every stage: {stage name: uint8 (p, h, w, 3)}; all are in memory.

        `options` are `images_per_prompt` and the fields of `Request`, over those of `request`;
        there images may also come from PIL, and one serves all prompts. `callbacks` gets each
        batch, and previews if it asks for them. `progress` shows a bar on stderr or hides it; by
        default there is one in a terminal or notebook.
        Errors: ValueError for no prompts, an unknown stage, a prompt that is no string, a seed or a
        batch size that is none, or images in the request that don't fit; TypeError for an unknown
        option; NotFinite, a FloatingPointError, for images that are not finite.
        """
        parts = self.stream(
            prompts,
            seed=seed,
            batch_size=batch_size,
            request=request,
            callbacks=callbacks,
            progress=progress,
            **options,
        )
        return Samples.join(parts)

    def stream(
        self,
        prompts: str | Sequence[str],
        *,
        seed: int = 0,
        batch_size: int = BATCH_SIZE,
        request: Request = PLAIN,
        callbacks: SamplingCallbacks = NO_CALLBACKS,
        progress: bool | None = None,
        **options: Unpack[SampleOptions],
    ) -> Iterator[Samples]:
        """Yield the images of `sample` some batches at a time, so that memory stays constant.

        Errors: as `sample`, those of the arguments before anything is sampled.
        """
        backend.refuse_x64()
        seed = config.check_value(seed, config.Seed, "seed")
        batch_size = config.check_value(batch_size, config.BatchSize, "batch_size")
        texts, request = read_options(prompts, request, options)
        chosen = self.select_stages(request.first_stage, request.last_stage)
        configs = [s.stage for s in chosen]
        cascade.check_request(configs, request, len(texts))
        cascade.warn_of_late_start(configs, request)
        # A power of two, so that another number of prompts is the same program.
        at_once = min(batch_size, 1 << (len(texts) - 1).bit_length())
        is_offloaded = isinstance(self.encoder, OffloadedTextEncoder)
        count = at_once * (OFFLOADED_BATCHES if is_offloaded else BATCHES)
        sample_part = functools.partial(self._sample_part, chosen, seed=seed, batch_size=at_once)

        def parts() -> Iterator[Samples]:
            with progress_bar(callbacks, len(texts) * len(chosen), progress) as reporting:
                for start in range(0, len(texts), count):
                    part = request.part(start, start + count)
                    yield sample_part(texts[start : start + count], part, callbacks=reporting)

        return parts()

    def _sample_part(
        self,
        stages: tuple[TrainedStage, ...],
        prompts: list[str],
        request: Request,
        *,
        seed: int,
        batch_size: int,
        callbacks: SamplingCallbacks,
    ) -> Samples:
        first = request.first_index
        # First of all: an offloaded encoder has the devices for itself.
        encoded = self.encode(prompts, negative_prompt=request.negative_prompt, first_index=first)
        if callbacks.cache_dir is None:
            folder = self._cache_of(stages, encoded, seed, batch_size, request)
            callbacks = dataclasses.replace(callbacks, cache_dir=folder)
        images = callbacks.load_images(
            first, stages=[stage.stage.name for stage in stages], count=len(prompts)
        )
        if images is None:
            options: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "request": request}
            try:
                sampled = cascade.generate(stages, encoded, **options, callbacks=callbacks)
            except NotFinite as error:
                raise error.with_prompts(prompts, first_index=first) from None
            images = {name: to_uint8_by_batch(x, batch_size) for name, x in sampled.items()}
            callbacks.finish_images(first, images)
        return Samples(images, prompts=prompts, first_index=first)

    def select_stages(
        self, first_stage: str | None = None, last_stage: str | None = None
    ) -> tuple[TrainedStage, ...]:
        """The stages from `first_stage`, or the first, to `last_stage`, or the last.

        Errors: ValueError for a stage that is not there, or for two in the wrong order.
        """
        names = [s.stage.name for s in self.stages]
        for name in (first_stage, last_stage):
            if name is not None and name not in names:
                raise ValueError(f"no stage {name!r} in this cascade; it has {names}")
        start = names.index(first_stage) if first_stage else 0
        chosen = self.stages[start : names.index(last_stage) + 1 if last_stage else len(names)]
        if not chosen:
            raise ValueError(
                f"stage {last_stage!r} comes before {first_stage!r}: the cascade has {names}"
            )
        return chosen

    def stage_steps(self) -> dict[str, int]:
        """How many steps the run behind each stage had made, by the stage's name, where known."""
        return dict(zip((s.stage.name for s in self.stages), self.steps, strict=False))

    def _cache_of(self, stages: Sequence[TrainedStage], *request: Any) -> Path | None:
        """A folder for the batches of just this request.

        Several processes keep none, and a step rule from outside has no name that outlives it.
        """
        if self.cache_dir is None or jax.process_count() > 1 or any(s.step_rule for s in stages):
            return None
        return self.cache_dir / digest_of_request(stages, *request)

    def encode(
        self,
        prompts: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] = "",
        first_index: int = 0,
        batch_size: int = 256,
    ) -> SamplerInputs:
        """The prompts' encodings, of at most `batch_size` texts at once.

        Warns of what is lost of one that is too long, or outside the encoder's vocabulary, and of
        words that the cascade has never seen.
        Errors: ValueError for no prompts, or one that is no string or no Unicode text.
        """
        prompts = [prompts] if isinstance(prompts, str) else prompts
        check_prompts(prompts)
        negative = negative_prompt
        if isinstance(negative, str):
            negative = [negative] * len(prompts)
        config.check_texts(negative, what="negative prompt")
        self._warn_of_unseen([*prompts, *negative])
        distinct = sorted(set(filter(str.strip, negative)))
        # At once: an offloaded encoder is loaded for each call.
        # Where padding is encoded, the null caption is the encoding of the empty prompt.
        wants_empty = bool(distinct) or self.encoder.padding == "encoded"
        texts = [*prompts, *distinct, *([""] if wants_empty else [])]
        text, text_mask = self.encoder.encode(texts, batch_size=batch_size)
        encoded = EncodedText(text, text_mask, np.array([bool(t.strip()) for t in texts]))

        def rows(which: Sequence[int]) -> EncodedText:
            return EncodedText(*(x[np.array(which)] for x in encoded))

        negatives = None
        if wants_empty:
            where = {t: len(prompts) + i for i, t in enumerate(distinct)}
            negatives = rows([where.get(t, len(texts) - 1) for t in negative])
        count = range(len(prompts))
        indices = (first_index + np.arange(len(count))).astype(np.int32)
        return SamplerInputs(captions=rows(count), indices=indices, negatives=negatives)

    def _warn_of_unseen(self, texts: Sequence[str]) -> None:
        if words := known_words.unknown_words(texts, dataset=self.dataset, seen=self.words):
            of = f"of {self.dataset}, on which this cascade was trained,"
            warnings.warn(
                f"no caption {'in training' if self.words else of} has the word "
                f"{config.join_values(words)}: the images may show anything for it",
                stacklevel=3,
            )

    def with_caption_cleaner(self) -> "Imagen":
        """The same cascade, whose prompts go through DeepFloyd IF's cleaner of captions first.

        Errors: ValueError, when it encodes, where ftfy or beautifulsoup4 is not installed.
        """
        return dataclasses.replace(self, encoder=self.encoder.with_caption_cleaner())

    def with_sampler(self, changes: dict[str, Any], *, stage: str | None = None) -> Imagen:
        """The same cascade with fields of `config.Sampler` (or `aug_level`) changed.

        For every stage, or for the one named.
        Errors: ValueError for an unknown stage or field, or one that no stage of them reads.
        """
        changed = self.with_samplers([(stage, changes)])
        check_used([s.stage for s in changed.stages], [(stage, changes)])
        return changed

    def with_samplers(self, changes: Changes) -> Imagen:
        """`with_sampler` for several (stage or None, changes), the later ones over the earlier.

        Errors: ValueError for an unknown stage or field.
        """
        return dataclasses.replace(self, stages=apply_overrides(self.stages, changes))

    def with_step_rule(self, step_rule: StepRule, *, stage: str | None = None) -> Imagen:
        """The same cascade with a step rule of your own in place of `config.Sampler.kind`'s.

        `step_rule(step, denoise)` returns z_s; `diffusion.samplers` says what a step has, and has
        the rules that come with the package. It is traced by jax, and another function is another
        program. For every stage, or for the one named.
        Errors: ValueError for an unknown stage; TypeError for a rule that can't be called.
        """
        return dataclasses.replace(self, stages=with_step_rule(self.stages, step_rule, stage))
