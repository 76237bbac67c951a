"""A store of (image, encoding) pairs as `imagen encode` and `imagen data build` describe it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from imagen_jax import config
from imagen_jax.cli.experiments import load_experiments

if TYPE_CHECKING:
    from imagen_jax.data.prepare.jobs import EncodeJob

MAX_LENGTH = 128  # tokens, where neither an option nor a config says it


@dataclasses.dataclass(frozen=True)
class StoreOptions:
    """The store that is made of a data source."""

    out: str | None = None
    """Folder of the pairs of a data source, here or in a bucket (gs://); `imagen train --pairs`
    takes it."""
    for_config: Annotated[str | None, tyro.conf.arg(name="for")] = None
    """Config or cascade that will train on the pairs: encoder, tokenizer, sizes, max_length, dtype
    and clean are the config's, unless an option here says otherwise; needs --out."""
    encoder: str | None = None
    """Text encoder: an embedded one's name, or a folder, T5X's (or gs://) or Hugging Face's; needs
    --out."""
    tokenizer: str = ""
    """SentencePiece model; needs --out; default: the *.model next to the encoder."""
    sizes: config.Sides = ()
    """Sides of the images to store, in pixels, such as 64 256; needs --out."""
    max_length: config.Length | None = None
    """Maximum tokens of a caption, end of sentence included; needs --out; default: 128."""
    dtype: Literal["float32", "bfloat16", "int8"] | None = None
    """Precision of the encoder's matrices and products; needs --out; default: float32; bfloat16 on
    accelerators; int8 keeps matrices so, in half of bfloat16's memory, and multiplies in it."""
    clean: bool = False
    """Strip HTML, addresses and file names from captions; needs --out."""
    clean_caption: bool = False
    """Pass captions through DeepFloyd IF's cleaner, as its networks were trained; needs --out and
    `pip install 'imagen_jax[deepfloyd]'`."""
    framing: Annotated[config.Framing, tyro.conf.arg(name="")] = config.Framing()
    """Cropping of images of any size to squares; needs --out: a config's images are squares."""
    filters: Annotated[config.Filters, tyro.conf.arg(name="")] = config.Filters()
    """Filters of examples, besides unreadable ones and ones smaller than the sizes; need --out."""
    text_dtype: Literal["bfloat16", "float32", "int8"] = "bfloat16"
    """Precision of the stored encodings; int8 has a scale for each token."""
    shard_records: config.Images | None = None
    """Pairs in a file, default 8,192; its captions are encoded together, in memory."""
    batch_tokens: Annotated[int, config.Range(low=1, high=2**24)] | None = None
    """Tokens that are encoded at once; default 16,384."""

    def check(self) -> None:
        """For the `__post_init__` of a command's options: from there errors are its usage.

        Errors: ValueError for options that don't go together.
        """
        config.check_options(self)
        config.require(
            self.out is None
            or self.for_config is not None
            or (self.encoder is not None and bool(self.sizes)),
            f"--out {self.out} needs --for CONFIG, the config that will train on the pairs, or "
            "--encoder and --sizes: SOURCE is then a data source",
        )
        largest = max(self.sizes, default=1)
        config.require(
            all(largest % size == 0 for size in self.sizes),
            f"--sizes {' '.join(map(str, self.sizes))}: each has to divide the largest",
        )

    def changed_options(self) -> list[str]:
        """Options that are not at their defaults, as they are typed but for the dashes."""
        return [
            "for" if field.name == "for_config" else field.name.replace("_", "-")
            for options in (self.framing, self.filters, self)
            for field in dataclasses.fields(options)
            if getattr(options, field.name) != field.default
            and field.name not in ("framing", "filters")
        ]

    def storage(self) -> dict[str, Any]:
        """Fields of a job about how pairs are computed and stored, whatever they are of."""
        given = {"shard_records": self.shard_records, "batch_tokens": self.batch_tokens}
        chosen = {name: value for name, value in given.items() if value is not None}
        return {"text_dtype": self.text_dtype, **chosen}

    def job(self, sources: Sequence[str], data_dir: Path) -> EncodeJob:
        """The store of a data source, or of several that are one; `out` is given.

        Errors: ValueError for an address that is none, an encoder that is not there, or a bucket
        without its driver.
        """
        from imagen_jax.data.prepare import jobs
        from imagen_jax.data.sources import addresses, bare_paths
        from imagen_jax.io import workdir

        assert self.out is not None
        address = addresses.parse_address(bare_paths.join_addresses(sources))
        text, sizes = self._wanted()
        largest = max(sizes)
        config.require(
            all(largest % size == 0 for size in sizes),
            f"sizes {' '.join(map(str, sizes))} of {self.for_config}: each has to divide the "
            "largest; give --sizes",
        )
        return jobs.EncodeJob(
            address=address,
            data_dir=data_dir,
            text=text,
            sizes=sizes,
            folder=workdir.as_path(self.out),
            framing=self.framing,
            filters=self.filters,
            **self.storage(),
        )

    def _wanted(self) -> tuple[config.Text, tuple[int, ...]]:
        """The encoder and the sizes: the config's of --for, but for what options say.

        Errors: ValueError for an encoder that is not there; as `config.load`.
        """
        from imagen_jax.data.prepare import jobs

        given = {"max_length": self.max_length, "dtype": self.dtype}
        options: dict[str, Any] = {n: value for n, value in given.items() if value is not None}
        options |= {"tokenizer": self.tokenizer} if self.tokenizer else {}
        options |= {n: True for n in ("clean", "clean_caption") if getattr(self, n)}
        if self.for_config is None:
            assert self.encoder is not None
            options = {"max_length": MAX_LENGTH, "dtype": "float32"} | options
            return jobs.text_settings(self.encoder, **options), self.sizes
        stages = load_experiments(self.for_config)
        text = dataclasses.replace(stages[0].text, **options)
        if self.encoder is not None and self.encoder != text.encoder:
            text = dataclasses.replace(
                text,
                encoder=self.encoder,
                width=jobs.text_settings(self.encoder).width,
                tokenizer=self.tokenizer,
                identity="",
                vocabulary="",
            )
        return text, self.sizes or tuple(sorted({e.stage.size for e in stages}))
