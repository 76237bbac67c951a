"""The embedded dataset of captioned emoji: a TFDS builder over a font that is on the machine.

`build` writes it, `source` reads it; neither needs TensorFlow. The bitmaps of Noto Color Emoji are
under the SIL Open Font License 1.1.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds
from tqdm import tqdm

from imagen_jax.data.images import transforms
from imagen_jax.data.synthetic import tfds_builder
from imagen_jax.data.synthetic.emoji import bitmaps, emoji_font, emoji_names
from imagen_jax.data.synthetic.emoji.bitmaps import SIDE
from imagen_jax.data.synthetic.emoji.emoji_font import Font
from imagen_jax.data.synthetic.tfds_builder import SPLITS, TfdsSource


@dataclass(eq=False, kw_only=True)
class EmojiConfig(tfds.core.BuilderConfig):
    """Every emoji of the font."""

    def recipe(self) -> str:
        """The code's changes to the font's images; stored with them and the font's digest."""
        return f"{SIDE=} {emoji_names.VALIDATION=} {emoji_names.HOLDING=}"


class DrawnEmoji(NamedTuple):
    """An image, and the emoji that look like it, that of the shortest name first."""

    image: bytes  # PNG
    emoji: tuple[str, ...]


class Emoji(tfds_builder.Builder):
    """Emoji on white, 128 x 128, with their English names and aliases."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (EmojiConfig(name="full", description="Every emoji of the font."),)

    SIDE = SIDE
    TEXTS = ("caption", "emoji")  # the caption is the first of the captions
    SEVERAL = ("captions",)
    inputs: Font | None

    def _origins(self) -> dict[str, str]:
        return {
            "font": self.inputs.digest if self.inputs else "",
            "names": f"emoji {metadata.version('emoji')}",
        }

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator[tuple[int, dict]]]:
        """Draws every emoji once, all splits together: they are few."""
        assert self.inputs is not None  # `build` gave it
        examples = draw_emoji(self.inputs)
        parts: dict[str, list[DrawnEmoji]] = {split: [] for split in SPLITS}
        for example in examples:
            parts[emoji_names.split_of(example.emoji[0])].append(example)
        for split, part in parts.items():
            if not part:
                raise ValueError(
                    f"the font has {len(examples)} emoji and none of the split {split}: take one "
                    "with more, Noto Color Emoji"
                )
        return {split: self._generate_examples(part) for split, part in parts.items()}

    def _generate_examples(self, examples: Sequence[DrawnEmoji]) -> Iterator[tuple[int, dict]]:
        for index, example in enumerate(examples):
            captions = emoji_captions(example)
            yield (
                index,
                {
                    "image": io.BytesIO(example.image),  # encoded bytes need no TensorFlow
                    "caption": captions[0],
                    "captions": captions,
                    "emoji": example.emoji[0],
                },
            )


def build_emoji(name: str, data_dir: str | Path, *, font: str | Path | None = None) -> Emoji:
    """Draws the dataset `name` under `data_dir`, unless it is there, from a font (None: Debian's).

    Errors: FileNotFoundError where there is no font; ValueError for an unknown name, for a font
    without coloured bitmaps or with too few, for another font than that of the dataset that is
    there, and for an unusable dataset.
    """
    found = tfds_builder.find_built(Emoji, name, data_dir)
    if found is None:
        read = emoji_font.read_font(font or emoji_font.NOTO)
        config = tfds_builder.config_of(Emoji, name)
        found = Emoji(config=config, data_dir=data_dir, inputs=read)
        tfds_builder.write_dataset(found)
    elif font is not None and emoji_font.read_font(font).digest != found.info.metadata["font"]:
        raise ValueError(
            f"the emoji in {found.data_dir} were drawn from another font than {font}: delete that "
            "folder and run `imagen data` again"
        )
    return found


def open_dataset(name: str, split: str, data_dir: str | Path) -> TfdsSource:
    """A split of the dataset: image (PNG bytes), caption, captions, and the emoji as text.

    Errors: as `tfds_builder.open_built`.
    """
    return tfds_builder.open_built(Emoji, name, split, data_dir)


def draw_emoji(font: Font) -> list[DrawnEmoji]:
    """A font's emoji; those that look alike (Norway's and Svalbard's flags) are one image.

    Errors: ValueError for a bitmap that is damaged or too large.
    """
    alike: dict[bytes, list[str]] = {}
    for text in tqdm(emoji_names.known_emoji(), "emoji", unit=" images"):
        bitmap = font.bitmap(text)
        if bitmap is not None:
            alike.setdefault(_encode_bitmap(text, bitmap), []).append(text)
    return [
        DrawnEmoji(image, tuple(sorted(texts, key=emoji_names.plainness)))
        for image, texts in alike.items()
    ]


def emoji_captions(example: DrawnEmoji) -> list[str]:
    """All captions of an image, the main one first."""
    return list(dict.fromkeys(c for text in example.emoji for c in emoji_names.captions(text)))


def _encode_bitmap(text: str, bitmap: bytes) -> bytes:
    try:
        return transforms.encode(bitmaps.paste_on_white(bitmap))
    except ValueError as error:
        raise ValueError(f"the font's bitmap of {text} cannot be used: {error}") from error
