"""Protocols of the field as data: which prompts, how many images, how they are compared.

The prompts themselves are their authors' files, which users name by path.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from imagen_jax.evaluate.prompt_file import PromptColumns

Layout = Literal["geneval", "dpg"]
ProtocolName = Literal["coco-30k", "drawbench", "partiprompts", "geneval", "dpg-bench"]


@dataclass(frozen=True)
class Protocol:
    """What a protocol says; a command's options come first."""

    file: str  # its prompts, in words
    source: str  # the paper
    count: int | None = None  # prompts to draw by the seed; None: all
    columns: PromptColumns = PromptColumns()
    images_per_prompt: int = 1
    size: int | None = None  # pixels of images and reference: short side resized, middle cropped
    metrics: tuple[str, ...] = ()
    layout: Layout | None = None


PROTOCOLS: Mapping[ProtocolName, Protocol] = {
    "coco-30k": Protocol(
        file="captions_val2014.json of MS-COCO 2014: 30,000 images, one caption of each",
        source="Imagen (arXiv:2205.11487) section 4.1: zero-shot FID-30K at 256 px",
        count=30_000,
        size=256,
        metrics=("fid", "clip"),
    ),
    "drawbench": Protocol(
        file="DrawBench's table as .csv: Prompts, Category; 200 prompts, 11 categories",
        source="Imagen (arXiv:2205.11487) section 4.2: sets of 8 images, judged by people",
        columns=PromptColumns("Prompts", "Category"),
        images_per_prompt=8,
        metrics=("clip",),
    ),
    "partiprompts": Protocol(
        file="PartiPrompts.tsv: Prompt, Category, Challenge, Note; about 1,600 prompts",
        source="Parti (arXiv:2206.10789) section 4",
        columns=PromptColumns("Prompt", "Category"),
        metrics=("clip",),
    ),
    "geneval": Protocol(
        file="evaluation_metadata.jsonl of GenEval: tag, include, prompt; 553 prompts",
        source="GenEval (arXiv:2310.11513): 4 images a prompt, judged by its own program",
        columns=PromptColumns("prompt", "tag"),
        images_per_prompt=4,
        layout="geneval",
    ),
    "dpg-bench": Protocol(
        file="the folder dpg_bench/prompts of ELLA: 1,065 texts",
        source="ELLA (arXiv:2403.05135): grids of 4 images, judged by its own program",
        images_per_prompt=4,
        layout="dpg",
    ),
}
assert set(PROTOCOLS) == set(get_args(ProtocolName))
NO_PROTOCOL = Protocol(file="any file of prompts", source="")
