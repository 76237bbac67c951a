"""The emoji dataset: a font's bitmaps, their names, and combinations that training never sees."""

import copy
import io
import os
import pickle
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import emoji_font_file
import numpy as np
import pytest
from emoji_font_file import EMOJI
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from imagen_jax.cli import data as command
from imagen_jax.data.sources import addresses
from imagen_jax.data.sources.base import Source
from imagen_jax.data.synthetic import tfds_builder
from imagen_jax.data.synthetic.emoji import bitmaps, dataset, emoji_font, emoji_names

NOTO = emoji_font.NOTO
noto = pytest.mark.skipif(not NOTO.is_file(), reason="fonts-noto-color-emoji is not installed")


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("font") / "tiny.ttf"
    return emoji_font_file.write(path, emoji_font_file.bitmaps())


@pytest.fixture(scope="module")
def built(font: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    dataset.build_emoji("full", folder, font=font)
    return folder


def shaped(font: Path, text: str) -> np.ndarray:
    """An emoji on white, 136 x 128, as HarfBuzz and FreeType draw it."""
    layout = ImageFont.Layout.RAQM
    face = ImageFont.truetype(str(font), 109, layout_engine=layout)
    page = Image.new("RGBA", (136, 128), "white")
    left, top, *_ = face.getbbox(text)
    ImageDraw.Draw(page).text((-left, -top), text, font=face, embedded_color=True)
    return np.asarray(page.convert("RGB"))


def pixels_of(example: dict) -> np.ndarray:
    picture = Image.open(io.BytesIO(example["image"]))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (128, 128))
    return np.asarray(picture)


def examples(data_dir: Path) -> dict[str, dict]:
    """Every example of every split, by emoji."""
    splits = (dataset.open_dataset("emoji/full", split, data_dir) for split in tfds_builder.SPLITS)
    return {example["emoji"]: example for source in splits for example in source}


@pytest.mark.parametrize("text", EMOJI)
def test_a_font_has_a_bitmap_for_every_kind_of_emoji(font: Path, text: str) -> None:
    read, expected = emoji_font.read_font(font), emoji_font_file.bitmaps()[text]
    assert read.bitmap(text) == expected
    assert read.bitmap(text.replace("\ufe0f", "")) == expected


@pytest.mark.parametrize("text", ["", "x", "🚀", "👍🏿", "👩🏽‍🚀👍", "👩🏽🚀", "\ufe0f"])
def test_what_a_font_lacks_is_no_emoji_of_it(font: Path, text: str) -> None:
    assert emoji_font.read_font(font).bitmap(text) is None


def test_the_largest_size_of_a_font_is_taken(font: Path, tmp_path: Path) -> None:
    with TTFont(font) as changed:
        small, pictures = copy.deepcopy((changed["CBLC"].strikes[0], changed["CBDT"].strikeData[0]))
        small.bitmapSizeTable.ppemX = small.bitmapSizeTable.ppemY = 20
        for glyph in pictures.values():
            glyph.ensureDecompiled()  # else its own picture would come back
            glyph.imageData = emoji_font_file.png(emoji_font_file.bitmap(0, size=(32, 32)))
        changed["CBLC"].strikes.insert(0, small)
        changed["CBDT"].strikeData.insert(0, pictures)
        changed.save(tmp_path / "two.ttf")
    assert emoji_font.read_font(tmp_path / "two.ttf").bitmaps == emoji_font.read_font(font).bitmaps


def test_fonts_that_cannot_be_used_are_refused(font: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="install the Debian package fonts-noto-color"):
        emoji_font.read_font(tmp_path / "nowhere.ttf")
    whole, broken = font.read_bytes(), tmp_path / "broken.ttf"
    for cut in (b"", b"hello", whole[:100], whole[: len(whole) // 2], whole[:-3000]):
        broken.write_bytes(cut)
        with pytest.raises(ValueError, match=r"broken.ttf is no font that can be read"):
            emoji_font.read_font(broken)
    with TTFont(font) as changed:
        del changed["CBDT"], changed["CBLC"]
        changed.save(broken)
    with pytest.raises(ValueError, match="has no coloured bitmaps"):
        emoji_font.read_font(broken)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (emoji_font.PNG + b"nothing", "no complete image"),
        (emoji_font_file.png(emoji_font_file.bitmap(0))[:2000], "no complete image"),
        (emoji_font_file.png(Image.new("L", (2000, 20))), "more than 1024 pixels a side"),
    ],
)
def test_a_bitmap_that_cannot_be_used_is_named(data: bytes, says: str, tmp_path: Path) -> None:
    font = emoji_font_file.write(tmp_path / "f.ttf", {**emoji_font_file.bitmaps(), "🐙": data})
    with pytest.raises(ValueError, match=f"the font's bitmap of 🐙 cannot be used: .*{says}"):
        dataset.build_emoji("full", tmp_path, font=font)


def test_a_font_that_leaves_a_split_empty_is_refused(tmp_path: Path) -> None:
    font = emoji_font_file.write(tmp_path / "f.ttf", {"🐙": emoji_font_file.bitmaps()["🐙"]})
    with pytest.raises(ValueError, match="has 1 emoji and none of the split validation"):
        dataset.build_emoji("full", tmp_path, font=font)
    assert not list(tmp_path.rglob("dataset_info.json"))


def test_the_middle_of_a_wide_bitmap_is_kept_pixel_by_pixel() -> None:
    bitmap = emoji_font_file.bitmap(5)
    rgba = np.asarray(bitmap).astype(np.float64)[:, 4:-4]
    alpha = rgba[..., 3:] / 255
    over = alpha * rgba[..., :3] + (1 - alpha) * 255
    assert np.abs(bitmaps.paste_on_white(emoji_font_file.png(bitmap)) - over).max() <= 1


def test_what_does_not_fit_is_scaled_undistorted_and_antialiased() -> None:
    red = bitmaps.paste_on_white(emoji_font_file.png(Image.new("RGB", (64, 32), "red")))
    np.testing.assert_array_equal(red[32:96], np.full((64, 128, 3), (255, 0, 0)))
    assert (np.delete(red, np.s_[32:96], axis=0) == 255).all()
    chess = np.indices((512, 512)).sum(0) % 2 * 255
    grey = bitmaps.paste_on_white(emoji_font_file.png(Image.fromarray(chess.astype(np.uint8))))
    assert np.abs(grey.astype(int) - 127).max() <= 2
    to_the_edge = Image.new("RGBA", (136, 128), (0, 0, 0, 0))
    to_the_edge.paste("blue", (0, 0, 4, 128))  # all of it outside the middle
    shown = bitmaps.paste_on_white(emoji_font_file.png(to_the_edge))
    assert (shown[64, 0] == (0, 0, 255)).all()


@pytest.mark.parametrize(
    ("text", "captions"),
    [  # short names of the CLDR, aliases of GitHub's and Slack's lists
        ("🐙", ["octopus"]),
        ("❤️", ["red heart", "heart"]),
        ("👍🏽", ["thumbs up, medium skin tone", "thumbsup, medium skin tone"]),
        ("👩🏽‍🚀", ["woman astronaut, medium skin tone"]),
        ("🕵🏿", ["detective, dark skin tone", "sleuth or spy, dark skin tone"]),
        ("👨‍🦰", ["man, red hair"]),
        ("👨🏻‍🦰", ["man, light skin tone, red hair"]),
        ("🫱🏼‍🫲🏾", ["handshake, medium-light skin tone, medium-dark skin tone"]),
        ("🇳🇴", ["flag for Norway", "Norway"]),
        ("🇺🇳", ["flag for United Nations"]),
        ("🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", ["flag for Scotland"]),
        ("🏴‍☠️", ["pirate flag"]),
        ("1️⃣", ["keycap 1", "one"]),
        ("👎", ["thumbs down", "-1", "thumbsdown"]),
    ],
)
def test_captions_are_names_and_aliases(text: str, captions: list[str]) -> None:
    found = emoji_names.captions(text)
    assert found[0] == captions[0]
    assert set(captions) <= set(found)


def test_captions_are_plain_words_and_none_comes_twice() -> None:
    for text in emoji_names.known_emoji():
        found = emoji_names.captions(text)
        assert len(set(found)) == len(found)
        assert all(caption == " ".join(caption.split()) for caption in found)
        assert not any(sign in caption for caption in found for sign in ":_")
        different = set(emoji_names.combination(text)[1])  # a couple of one tone has it told once
        assert {caption.count(" skin tone") for caption in found} == {len(different)}


@pytest.mark.parametrize(
    ("texts", "subject", "tones"),
    [
        (("👨🏿‍🚀", "👩🏿‍🚀", "🧑🏿‍🚀"), "🧑‍🚀", (4,)),
        (("🏃🏻", "🏃🏻‍♀️", "🏃🏻‍♂️", "🏃🏻‍♀️‍➡️", "🏃🏻‍➡️"), "🏃", (0,)),
        (("👨🏿‍🤝‍👨🏻", "👩🏿‍🤝‍👨🏻"), "🧑‍🤝‍🧑", (4, 0)),
        (("🕵️", "🕵️‍♀️"), "🕵", ()),
    ],
)
def test_a_combination_is_of_all_genders(texts, subject: str, tones: tuple[int, ...]) -> None:
    assert {emoji_names.combination(text) for text in texts} == {(subject, tones)}


def test_held_out_combinations_are_never_seen_and_their_parts_always() -> None:
    seen, held = defaultdict(set), defaultdict(set)
    for text in emoji_names.known_emoji():
        assert emoji_names.split_of(text) == emoji_names.split_of(text.replace("\ufe0f", ""))
        subject, tones = emoji_names.combination(text)
        split = emoji_names.split_of(text)
        (held if split == "held_out" else seen)[subject].add(tones)
    assert len(held) > 60
    for subject, tones in held.items():
        assert not tones & seen[subject]
        for number in {len(t) for t in tones}:
            others = {t for t in seen[subject] if len(t) == number}
            whole = others | {t for t in tones if len(t) == number}
            assert len(others) >= 0.7 * len(whole)
            for place in range(number if number > 1 else 0):  # each tone on each side of a pair
                assert {t[place] for t in others} == {t[place] for t in whole}
    assert {t[0] for tones in held.values() for t in tones} == set(range(5))
    assert emoji_names.split_of("👨🏿‍🚀") == "held_out"  # for good: published figures rest on it


def test_the_splits_have_their_sizes() -> None:
    splits = [emoji_names.split_of(text) for text in emoji_names.known_emoji()]
    assert 0.04 < splits.count("held_out") / len(splits) < 0.08
    assert 0.015 < splits.count("validation") / len(splits) < 0.035


def test_a_built_dataset_holds_every_picture_with_all_its_captions(font, built: Path) -> None:
    found, read = examples(built), emoji_font.read_font(font)
    assert set(found) == set(EMOJI) - {"🇸🇯"}
    for text, example in found.items():
        np.testing.assert_array_equal(pixels_of(example), bitmaps.paste_on_white(read.bitmap(text)))
        assert np.abs(pixels_of(example) - shaped(font, text)[:, 4:-4].astype(int)).max() <= 1
        assert example["caption"] == example["captions"][0] == emoji_names.captions(text)[0]
    assert found["👍🏽"]["captions"] == emoji_names.captions("👍🏽")
    norway, svalbard = map(emoji_names.captions, ("🇳🇴", "🇸🇯"))
    assert found["🇳🇴"]["captions"] == norway + svalbard  # their flags are the same
    source = dataset.open_dataset("full", "held_out", built)
    assert [example["emoji"] for example in source] == ["👩🏿‍🚀"]


def test_the_dataset_is_a_source(built: Path) -> None:
    address = addresses.parse_address("emoji?split=validation")
    assert address == addresses.parse_address("emoji/full?split=validation")
    assert address.dataset == "emoji/full"
    source = addresses.open_source(address, built)
    assert isinstance(source, Source)
    assert [example["caption"] for example in source] == ["avocado"]
    assert pickle.loads(pickle.dumps(source))[0] == source[0]  # as loader processes need it
    with pytest.raises(ValueError, match="no data source 'emoji/': give shapes/NAME"):
        addresses.parse_address("emoji/")
    by_tfds = addresses.open_source(
        addresses.parse_address("tfds:emoji/full?split=validation"), built
    )
    assert by_tfds[0] == {name: source[0][name] for name in ("image", "caption", "captions")}


def test_building_again_changes_nothing_and_refuses_another_font(
    font: Path, built: Path, tmp_path: Path
) -> None:
    files = sorted(path for path in built.rglob("*") if path.is_file())
    before = [(path, path.stat().st_mtime_ns) for path in files]
    dataset.build_emoji("full", built)  # the font is not needed any more
    dataset.build_emoji("emoji/full", built, font=font)
    other = emoji_font_file.write(tmp_path / "other.ttf", {"🐙": emoji_font_file.bitmaps()["🐙"]})
    with pytest.raises(ValueError, match=r"were drawn from another font than .*other.ttf: delete"):
        dataset.build_emoji("full", built, font=other)
    with pytest.raises(ValueError, match=r"no dataset 'emoji/half'; known: full"):
        dataset.build_emoji("emoji/half", built)
    with pytest.raises(ValueError, match="emoji has no split 'test'; it has train"):
        dataset.open_dataset("full", "test", built)
    files = sorted(path for path in built.rglob("*") if path.is_file())
    assert [(path, path.stat().st_mtime_ns) for path in files] == before


def test_neither_tensorflow_nor_jax_is_imported(font: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from imagen_jax.data.synthetic.emoji import dataset;"
        f"dataset.build_emoji('full', {str(tmp_path)!r}, font={str(font)!r});"
        f"dataset.open_dataset('full', 'train', {str(tmp_path)!r})[0];"
        "print({'tensorflow', 'jax', 'torch'} & set(sys.modules))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_the_command_builds_and_shows(font: Path, tmp_path: Path, capsys) -> None:
    where = ["--data-dir", str(tmp_path)]
    command.run(["build", "emoji", "--font", str(font), *where])
    assert "emoji/full is in" in (said := capsys.readouterr().out)
    assert said.endswith(": 7 train, 1 validation, 1 held_out\n")
    command.run(["show", "emoji", *where, "--out", str(tmp_path / "sheet.png")])
    assert "contact sheet of 7 images" in capsys.readouterr().out
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 4 * 128
    with pytest.raises(ValueError, match="--workers 2: one process draws emoji"):
        command.run(["build", "emoji", "--workers", "2", *where])
    with pytest.raises(ValueError, match=r"--font .*tiny.ttf: shapes/tiny is drawn without"):
        command.run(["build", "shapes/tiny", "--font", str(font), *where])


@noto
def test_noto_color_emoji_is_read_whole(tmp_path: Path) -> None:
    """Against HarfBuzz and FreeType, which shape and draw emoji as programs on the screen do."""
    command.run(["build", "emoji", "--data-dir", str(tmp_path)])
    found = examples(tmp_path)
    assert len(found) > 3_700
    for text in list(found)[::10]:
        difference = pixels_of(found[text]) - shaped(NOTO, text)[:, 4:-4].astype(int)
        assert np.abs(difference).max() <= 2, text
    captions = [example["caption"] for example in found.values()]
    assert len(set(captions)) == len(captions)
    assert {"octopus", "flag for France", "woman astronaut, dark skin tone"} <= set(captions)
    read = emoji_font.read_font(NOTO)
    sequences = [text for text in emoji_names.known_emoji() if read.bitmap(text) is not None]
    assert 0 <= len(sequences) - len(found) < 30  # those that look like others
