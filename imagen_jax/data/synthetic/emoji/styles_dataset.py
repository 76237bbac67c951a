"""The embedded dataset of emoji in several styles: sets of several designers, by the same names.

`build_styles` writes it, `open_styles` reads it; neither needs TensorFlow. Each image has its
licence, and whom to name.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from imagen_jax.data.images import transforms
from imagen_jax.data.synthetic import tfds_builder
from imagen_jax.data.synthetic.emoji import (
    annotations,
    emoji_names,
    image_sets,
    near_duplicates,
    style_captions,
    style_splits,
)
from imagen_jax.data.synthetic.emoji.annotations import Annotations
from imagen_jax.data.synthetic.emoji.bitmaps import SIDE
from imagen_jax.data.synthetic.emoji.image_sets import STYLES
from imagen_jax.data.synthetic.emoji.near_duplicates import Look
from imagen_jax.data.synthetic.emoji.set_readers import EmojiSet, code_of
from imagen_jax.data.synthetic.emoji.style_splits import Drawing, Place
from imagen_jax.data.synthetic.tfds_builder import SPLITS, TfdsSource

NAME = "emoji/styles"


@dataclass(frozen=True)
class Inputs:
    """What the images and their captions are made of."""

    sets: Mapping[str, EmojiSet]
    annotations: Annotations = field(default_factory=Annotations)
    categories: tuple[str, ...] = ()  # of Unicode's subgroups, with times; (): all once

    def emoji(self) -> dict[str, int]:
        """The emoji that are drawn, and how often training sees each in every style.

        Errors: as `annotations.select_categories`.
        """
        known = emoji_names.known_emoji()
        if not self.categories:
            return dict.fromkeys(known, 1)
        times = annotations.select_categories(self.annotations, self.categories)
        return {text: times[code_of(text)] for text in known if code_of(text) in times}

    def digests(self) -> str:
        """JSON of what each of them is."""
        found: dict[str, str | list[str]] = {name: one.digest for name, one in self.sets.items()}
        chosen = {"categories": sorted(self.categories)} if self.categories else {}
        return json.dumps(found | {"keywords": self.annotations.digest} | chosen)


@dataclass(eq=False, kw_only=True)
class StylesConfig(tfds.core.BuilderConfig):
    """Every emoji of each set."""

    def recipe(self) -> str:
        """What the code does with the sets; stored with the images and the sets' digests."""
        rules = f"{emoji_names.VALIDATION=} {emoji_names.HOLDING=} {style_splits.HOLDING=}"
        looks = f"{near_duplicates.BITS=} {near_duplicates.COLOUR=}"
        words = [f"{name}: {style.words}, {style.adjective}" for name, style in STYLES.items()]
        return f"{SIDE=} {rules} {looks} {words}"


class EmojiStyles(  # type: ignore[call-arg]  # TFDS has no types
    tfds_builder.Builder, skip_registration=True
):
    """Emoji on white, 128 x 128, in several styles, with English names, aliases and keywords."""

    name = "emoji"  # of the family: its other datasets are those of `dataset.Emoji`
    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS = (StylesConfig(name="styles", description="Every emoji of several sets."),)

    SIDE = SIDE
    TEXTS = ("caption", "emoji", "style", "licence", "attribution", "held_out")
    SEVERAL = ("captions",)
    inputs: Inputs | None

    def _origins(self) -> dict[str, str]:
        return {
            "inputs": self.inputs.digests() if self.inputs else "",
            "names": f"emoji {metadata.version('emoji')}",
        }

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator[tuple[int, dict]]]:
        """Draws every emoji once, all splits together: what is held out depends on all."""
        assert self.inputs is not None  # `build_styles` gave them
        emoji = self.inputs.emoji()
        drawings, look = draw_sets(self.inputs.sets, tuple(emoji))
        places = style_splits.place_drawings(drawings, look)
        for split in SPLITS:
            if split not in {place.split for place in places}:
                raise ValueError(
                    f"the sets have {len(drawings)} images and none of the split {split}: take "
                    "sets with more"
                )
        examples = describe(drawings, places, self.inputs.annotations)
        by_split: dict[str, list[dict]] = {split: [] for split in SPLITS}
        for example, place in zip(examples, places, strict=True):
            by_split[place.split].append(example)
        by_split["train"] = repeat_examples(by_split["train"], emoji)
        return {split: self._generate_examples(found) for split, found in by_split.items()}

    def _generate_examples(self, examples: Sequence[dict]) -> Iterator[tuple[int, dict]]:
        for number, example in enumerate(examples):
            # Encoded bytes need no TensorFlow.
            yield number, example | {"image": io.BytesIO(example["image"])}


def repeat_examples(examples: Sequence[dict], times: Mapping[str, int]) -> list[dict]:
    """Each example as often as its emoji is to be seen: all of them, then those seen again."""
    rounds = range(max(times.values()))
    return [one for turn in rounds for one in examples if times[one["emoji"]] > turn]


def build_styles(
    data_dir: str | Path,
    *,
    styles: tuple[str, ...] = (),
    keywords: str | Path | None = None,
    categories: tuple[str, ...] = (),
) -> EmojiStyles:
    """Draw the dataset under `data_dir`, unless it is there.

    `styles` are words such as `noto` and `openmoji=PATH`; `keywords` is the place of
    `emojibase-data`; None: where npm installed it, if it did. `categories` are Unicode's subgroups
    or how they begin (`animal-bird`, `food`), with the times that training is to see each of their
    images (`food=4`); (): every emoji, once.
    Errors: as `image_sets.open_sets` and `annotations.read_annotations`; ValueError for sets
    other than those of the dataset that is there, and for an unusable dataset.
    """
    found = tfds_builder.find_built(EmojiStyles, NAME, data_dir)
    if found is not None and not styles and keywords is None and not categories:
        return found
    inputs = open_inputs(styles, keywords, categories)
    if found is None:
        config = tfds_builder.config_of(EmojiStyles, NAME)
        found = EmojiStyles(config=config, data_dir=data_dir, inputs=inputs)
        tfds_builder.write_dataset(found)
    elif inputs.digests() != found.info.metadata["inputs"]:
        raise ValueError(
            f"the emoji in {found.data_dir} were made of other sets, keywords or categories than "
            "these: delete that folder and run `imagen data` again"
        )
    return found


def open_inputs(
    styles: tuple[str, ...], keywords: str | Path | None, categories: tuple[str, ...]
) -> Inputs:
    """What a dataset is made of. Errors: as `build_styles`."""
    if not styles:
        raise ValueError(f"{NAME} needs --styles, two or more of {', '.join(STYLES)}")
    installed = Path(image_sets.MODULES, annotations.PACKAGE)
    place = Path(keywords) if keywords else installed if installed.is_dir() else None
    known = annotations.read_annotations(place) if place else Annotations()
    if categories and place is None:
        raise ValueError(
            f"--categories {' '.join(categories)}: which emoji are in a category is said by npm's "
            f"{annotations.PACKAGE}, which is not in {image_sets.MODULES}: npm pack "
            f"{annotations.PACKAGE}, then give --keywords FILE.tgz"
        )
    inputs = Inputs(image_sets.open_sets(styles), known, categories)
    inputs.emoji()  # an unknown category is named before anything is drawn
    return inputs


def open_styles(split: str, data_dir: str | Path) -> TfdsSource:
    """A split of the dataset: image (PNG bytes), captions, and the texts in `EmojiStyles.TEXTS`.

    Errors: as `tfds_builder.open_built`.
    """
    return tfds_builder.open_built(EmojiStyles, NAME, split, data_dir)


def draw_sets(sets: Mapping[str, EmojiSet], emoji: Sequence[str]) -> tuple[list[Drawing], Look]:
    """Those of the emoji that a set has; those of a set that look alike are one drawing.

    They are in the order of the emoji, so that no part of a split is of one style.
    Errors: ValueError for an image that cannot be used.
    """
    alike: dict[tuple[str, bytes], list[str]] = {}
    looks = []
    for text in tqdm(emoji, "emoji", unit=" emoji"):
        for name, images in sets.items():
            pixels = _pixels(text, name, images)
            if pixels is not None:
                key = name, transforms.encode(pixels)
                if key not in alike:
                    looks.append(near_duplicates.looks([pixels]))
                alike.setdefault(key, []).append(text)
    if not looks:
        raise ValueError(
            f"the sets {', '.join(sets)} have no image of a known emoji: give packages whose files "
            "are named by code points, such as 1f353.png"
        )
    drawings = [
        Drawing(name, tuple(sorted(_shown(texts), key=emoji_names.plainness)), image)
        for (name, image), texts in alike.items()
    ]
    return drawings, Look(*(np.concatenate(part) for part in zip(*looks, strict=True)))


def _shown(texts: Sequence[str]) -> Sequence[str]:
    """Of emoji that look alike those without a skin tone: where one is, the image shows none."""
    return [text for text in texts if not emoji_names.combination(text)[1]] or texts


def describe(
    drawings: Sequence[Drawing], places: Sequence[Place], known: Annotations
) -> list[dict]:
    """Examples as they are stored; no caption of a held-out image is one of another, too."""
    emoji = [style_splits.held_first(d, p) for d, p in zip(drawings, places, strict=True)]
    captions = [_captions(d.style, own, known) for d, own in zip(drawings, emoji, strict=True)]
    held = [place.split == "held_out" for place in places]
    apart = {c for own, out in zip(captions, held, strict=True) if out for c in own}
    kept = [
        own if out else [c for c in own if c not in apart]
        for own, out in zip(captions, held, strict=True)
    ]
    return [
        {
            "image": drawing.image,
            "caption": said[0],
            "captions": said,
            "emoji": own[0],
            "style": drawing.style,
            "licence": STYLES[drawing.style].licence,
            "attribution": STYLES[drawing.style].attribution,
            "held_out": place.reason,
        }
        for drawing, place, own, said in zip(drawings, places, emoji, kept, strict=True)
    ]


def _captions(name: str, emoji: Sequence[str], known: Annotations) -> list[str]:
    """All of the first emoji, and the names of others that look like it."""
    style = STYLES[name]
    first = style_captions.style_captions(emoji[0], style, known.by_code.get(code_of(emoji[0])))
    others = (style_captions.style_captions(text, style)[0] for text in emoji[1:])
    return list(dict.fromkeys([*first, *others]))


def _pixels(text: str, name: str, images: EmojiSet) -> np.ndarray | None:
    file = STYLES[name].file_of(text)
    try:
        return images.pixels(file) if file else None
    except ValueError as error:
        raise ValueError(f"the image of {text} in {name} cannot be used: {error}") from error
