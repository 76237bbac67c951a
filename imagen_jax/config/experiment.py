"""One stage's training run: stage, data, text, optimiser, mesh (sections 2, 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from imagen_jax.config.deepfloyd import DeepFloydUNet
from imagen_jax.config.distillation import Teacher
from imagen_jax.config.lora import Lora
from imagen_jax.config.names import check_line
from imagen_jax.config.optim import Optim
from imagen_jax.config.ranges import (
    BatchSize,
    Count,
    Length,
    NotNegative,
    Range,
    Seed,
    Share,
    Whole,
    Width,
    check_fields,
)
from imagen_jax.config.sentences import check_texts, shorten
from imagen_jax.config.stage import Stage
from imagen_jax.config.validate import require, require_divides

Padding = Literal["left_out", "encoded"]
# Of a text encoder. int8: matrices are kept so, with a scale a row, and multiplied in bfloat16.
EncoderDtype = Literal["float32", "bfloat16", "int8"]
Bytes = Annotated[int, Range(low=0, high=2**63 - 1)]
# Parts of a batch, on devices or one after another.
Chosen = Annotated[int, Range(low=1, high=2**20, also=(-1,), remedy="-1 has it chosen")]
Threads = Annotated[int, Range(low=0, high=2**10)]  # or processes of one machine
Prefetch = Annotated[int, Range(low=0, high=10**4)]
MOST_PROMPTS = 4096  # of which images are logged


@dataclass(frozen=True, kw_only=True)
class Data:
    """Data of a run: encoded image-text pairs, which `imagen encode` writes."""

    dataset: str = "shapes/full"
    split: str = "train"
    workers: Threads = 0  # worker processes of the loader; 0: threads of this process
    threads: Threads = 2
    prefetch: Prefetch = 8  # batches ready in advance
    max_damaged: Share = 0.01  # share of the records that may be damaged before the run stops
    examples: Whole = 0  # of the encoded dataset, which the run notes; 0: not known

    def __post_init__(self) -> None:
        check_fields(self, "data")
        for name in ("dataset", "split"):
            check_line(getattr(self, name), f"data: {name}")


@dataclass(frozen=True, kw_only=True)
class Text:
    """The frozen encoder (section 2.1)."""

    encoder: str = "t5_1_1_tiny"  # an embedded one's name, or a folder: T5X's or Hugging Face's
    tokenizer: str = ""  # a SentencePiece model; "": the one beside the encoder
    width: Width = 64  # of its output
    max_length: Length = 32  # tokens, end of sentence included
    # Of its matrices and products; norms and softmax stay float32. None: that of the encoded
    # dataset, float32 where one is yet to be encoded. int8 halves bfloat16's memory.
    dtype: EncoderDtype | None = None
    clean: bool = False  # strip markup and addresses from captions and prompts
    clean_caption: bool = False  # by DeepFloyd IF's cleaner, which makes lower case as well
    lower_case: bool = False  # captions and prompts in lower case, as DeepFloyd IF has them
    # Rows of the encoding behind a caption's end: left out, or encoded as DeepFloyd IF reads them,
    # all `max_length` of them.
    padding: Padding = "left_out"
    identity: str = ""  # digest of weights and tokenizer; "": taken from the encoded dataset
    vocabulary: str = ""  # digest of the tokenizer; "": as well

    def __post_init__(self) -> None:
        check_fields(self, "text")
        for name in ("encoder", "tokenizer", "identity", "vocabulary"):
            check_line(getattr(self, name), f"text: {name}")

    @property
    def computed_in(self) -> EncoderDtype:
        """The dtype that it encodes in."""
        return self.dtype or "float32"


@dataclass(frozen=True, kw_only=True)
class Train:
    """Length of a run and what it writes on the way."""

    steps: Count = 2_500_000
    batch_size: BatchSize = 2048  # over all devices
    micro_batches: Chosen = 1  # parts of a batch, one after another; -1: as many as fill TPU chips
    seed: Seed = 0
    log_every: Count = 50
    save_every: Count = 1000  # steps between checkpoints
    save_minutes: NotNegative = 10.0  # a checkpoint as well when the last one is so old; 0: never
    keep: Count = 2  # newest checkpoints kept
    keep_every: Whole = 0  # checkpoints whose step is a multiple of it are kept for good; 0: none
    max_skipped: Whole = 10  # steps skipped in a row: loss, gradient or update not finite
    sample_every: Whole = 0  # steps between sampled images in the log; 0: never
    sample_prompts: tuple[str, ...] = ()  # of a base stage; others enlarge records
    wandb_project: str = ""  # log to this project of Weights & Biases as well

    def __post_init__(self) -> None:
        check_fields(self, "train")
        check_line(self.wandb_project, "train: wandb_project")
        require(
            len(self.sample_prompts) <= MOST_PROMPTS,
            f"train: sample_prompts has {len(self.sample_prompts):,} prompts, more than "
            f"{MOST_PROMPTS:,}",
        )
        require_divides(
            abs(self.micro_batches), self.batch_size, "micro_batches", "train: batch_size"
        )
        check_texts(self.sample_prompts, what="train.sample_prompts: prompt")


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Mesh of the devices; an axis of -1 is chosen for their number, memory and the batch.

    Images are split over `data` and `fsdp`, their height over `spatial`; `data` takes what the
    other two leave, and spans slices where there are several.
    """

    data: Chosen = -1
    fsdp: Chosen = -1  # parameters, optimiser state and EMA are sharded over this axis
    spatial: Chosen = -1
    min_shard_bytes: Bytes = 4 * 2**20  # smaller arrays stay whole on every device

    def __post_init__(self) -> None:
        check_fields(self, "mesh")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Layout of a run: what `Mesh` and `Train.micro_batches` left open is chosen."""

    data: BatchSize
    fsdp: BatchSize
    spatial: BatchSize
    micro_batches: BatchSize

    def __post_init__(self) -> None:
        check_fields(self, "layout")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One stage's training run, whole.

    `layout` is no option: `train.resolve` chooses it for the devices that a run finds, again at
    every start, and it is stored beside the options that were asked for.
    """

    stage: Stage
    data: Data = Data()
    text: Text = Text()
    optim: Optim = Optim()
    train: Train = Train()
    mesh: Mesh = Mesh()
    lora: Lora = Lora()
    teacher: Teacher = Teacher()
    layout: Layout | None = None

    def __post_init__(self) -> None:
        check_fields(self, "experiment")
        require(
            self.stage.distillation is None or not self.lora.rank,
            f"lora.rank={self.lora.rank}: distillation trains all weights; give rank 0",
        )
        if not isinstance(self.stage.model, DeepFloydUNet):
            positions = self.stage.model.text.positions
            require(
                positions == 0 or positions >= self.text.max_length,
                f"text.max_length={self.text.max_length} exceeds model.text.positions={positions}",
            )
        require(
            not (self.lora.rank and self.optim.frozen),
            f"optim.frozen={shorten(self.optim.frozen)}: lora.rank={self.lora.rank} trains "
            "adapters alone; choose the modules that have one by lora.targets",
        )
        prompts, every = self.train.sample_prompts, self.train.sample_every
        if self.stage.is_super_resolution:
            require(
                not prompts,
                f"train.sample_prompts={shorten(prompts)}: stage {self.stage.name} enlarges "
                "records of the dataset instead; leave them out",
            )
        else:
            require(not every or bool(prompts), f"train: sample_every={every} needs sample_prompts")

    @property
    def micro_batches(self) -> int:
        """Parts of a batch, one after another, as the run was laid out."""
        asked = self.train.micro_batches
        require(
            self.layout is not None or asked > 0,
            f"train.micro_batches={asked} is not chosen yet: resolve the experiment first",
        )
        return self.layout.micro_batches if self.layout else asked
