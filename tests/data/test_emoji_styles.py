"""Emoji in several styles: their captions, and combinations that training never sees."""

import dataclasses
import json
from collections import Counter, defaultdict
from pathlib import Path

import emoji_font_file
import emoji_packages
import numpy as np
import pytest

from imagen_jax.cli import data as command
from imagen_jax.data import known_words
from imagen_jax.data.images import decode
from imagen_jax.data.sources import addresses
from imagen_jax.data.sources.base import Source
from imagen_jax.data.synthetic import tfds_builder
from imagen_jax.data.synthetic.emoji import (
    annotations,
    emoji_names,
    near_duplicates,
    set_readers,
    style_captions,
    style_splits,
    styles_dataset,
)
from imagen_jax.data.synthetic.emoji.annotations import Annotation, Annotations
from imagen_jax.data.synthetic.emoji.image_sets import STYLES
from imagen_jax.data.synthetic.emoji.near_duplicates import Look
from imagen_jax.data.synthetic.emoji.set_readers import code_of
from imagen_jax.data.synthetic.emoji.style_splits import Drawing

EMOJI = emoji_font_file.EMOJI
FOOD = Annotation(("berry", "rocket", "red heart", "octopus"), ("food", "fruit"))
TINY = ("--encoder", "t5_1_1_tiny", "--sizes", "8")
DRAWN = ("noto", "openmoji", "fluent-3d")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("packages")
    flat = emoji_packages.icons([text for text in EMOJI if text != "🇸🇯"])
    return {
        "noto": emoji_font_file.write(folder / "tiny.ttf", emoji_font_file.bitmaps()),
        "fluent-flat": emoji_packages.write_tar(folder / "flat.tgz", flat),
        "fluent-3d": emoji_packages.write_folder(
            folder / "3d", emoji_packages.pictures(("🐙", "👍🏼", "🇳🇴", "🥑"))
        ),
        "keywords": emoji_packages.write_tar(
            folder / "keywords.tgz", emoji_packages.keywords({"🥑": ["guacamole", "octopus"]})
        ),
    }


@pytest.fixture(scope="module")
def arguments(packages: dict[str, Path]) -> list[str]:
    styles = [f"{name}={path}" for name, path in packages.items() if name != "keywords"]
    return ["--styles", *styles, "--keywords", str(packages["keywords"])]


@pytest.fixture(scope="module")
def built(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    command.run(["build", "emoji", *arguments, "--data-dir", str(folder)])
    return folder


def examples(data_dir: Path) -> dict[tuple[str, str], dict]:
    """Every example of every split, by emoji and style."""
    sources = {split: styles_dataset.open_styles(split, data_dir) for split in tfds_builder.SPLITS}
    return {
        (example["emoji"], example["style"]): example | {"split": split}
        for split, source in sources.items()
        for example in source
    }


@pytest.fixture(scope="module", params=[pytest.param(1, marks=pytest.mark.slow), 8])
def drawings(request: pytest.FixtureRequest) -> tuple[list[Drawing], Look]:
    """Every emoji of all subjects, or of one in eight, in three styles; no two alike."""
    known = emoji_names.known_emoji()
    subjects = sorted({emoji_names.combination(text)[0] for text in known})[:: request.param]
    chosen = [text for text in known if emoji_names.combination(text)[0] in subjects]
    emoji = [(text, style) for text in chosen for style in DRAWN]
    rng = np.random.default_rng(0)
    look = Look(
        rng.integers(0, 1 << 63, len(emoji), dtype=np.uint64),
        rng.integers(0, 256, (len(emoji), 192), dtype=np.uint8),
    )
    return [Drawing(style, (text,), b"") for text, style in emoji], look


@pytest.mark.parametrize(
    ("text", "style", "expected"),
    [
        (
            "🍓",
            "openmoji",
            [
                "strawberry, outline drawing",
                "a strawberry, outline drawing",
                "an outlined strawberry",
                "strawberry, berry, outline drawing",
                "strawberry, food, fruit, outline drawing",
            ],
        ),
        (
            "🧑🏿‍🚀",
            "fluent-3d",
            [
                "astronaut, dark skin tone, 3D",
                "an astronaut, dark skin tone, 3D",
                "a 3D astronaut, dark skin tone",
                "astronaut, dark skin tone, berry, 3D",
                "astronaut, dark skin tone, food, fruit, 3D",
            ],
        ),
        (
            "🙌",
            "fluent-contrast",
            [
                "raising hands, black and white",
                "raised hands, black and white",
                "black and white raising hands",
                "raising hands, berry, black and white",
                "raising hands, food, fruit, black and white",
            ],
        ),
    ],
)
def test_captions_say_style_names_keywords_and_category(text, style, expected) -> None:
    """Of the keywords none that is the name of another emoji."""
    assert style_captions.style_captions(text, STYLES[style], FOOD) == expected
    assert style_captions.style_captions(text, STYLES[style]) == expected[:-2]


@pytest.mark.parametrize(
    ("text", "article"),
    [
        *(("🍓", "a"), ("🐙", "an"), ("🦄", "a"), ("⏳", "an"), ("🇳🇴", "a"), ("👩🏽‍🚀", "a")),
        *(("🙌", ""), ("🎅", ""), ("🍚", ""), ("👬", ""), ("1️⃣", ""), ("🚌", "a"), ("👓", "")),
    ],
)
def test_names_of_one_thing_have_an_article(text: str, article: str) -> None:
    assert style_captions.article_of(text) == article


def test_every_caption_says_one_style() -> None:
    said = [style.words for style in STYLES.values()] + [s.adjective for s in STYLES.values()]
    assert len({style.words for style in STYLES.values()}) == len(STYLES)
    for text in emoji_names.known_emoji()[::29]:
        for style in STYLES.values():
            for caption in style_captions.style_captions(text, style, FOOD):
                ends = caption.endswith(f", {style.words}")
                name = emoji_names.captions(text)[0].replace("’", "'")
                assert ends or caption.endswith(f"{style.adjective} {name}")
                assert caption == " ".join(caption.split())
    assert not style_captions.all_names() & {word.lower() for word in said}


def test_one_subject_in_four_has_a_style_held_out_and_every_style_is_held() -> None:
    subjects = {emoji_names.combination(text)[0] for text in emoji_names.known_emoji()}
    held = Counter(style_splits.held_style(subject) for subject in subjects)
    assert 0.2 < 1 - held[""] / len(subjects) < 0.3
    assert set(held) == {"", *STYLES}
    assert min(held.values()) > 40
    # For good: published figures rest on them.
    assert style_splits.held_style("🐙") == "fluent-3d"
    assert style_splits.held_style("🧑‍🚀") == ""


def test_no_held_out_combination_is_in_an_image_or_a_caption_of_training(drawings) -> None:
    """With keywords, some of which name held-out subjects."""
    drawn, look = drawings
    places = style_splits.place_drawings(drawn, look)
    known = Annotations(dict.fromkeys((code_of(d.emoji[0]) for d in drawn[::2]), FOOD))
    described = styles_dataset.describe(drawn, places, known)
    held, seen = defaultdict(set), defaultdict(set)
    captions = {"held_out": set(), "train": set(), "validation": set()}
    for drawing, place, example in zip(drawn, places, described, strict=True):
        subject, tones = emoji_names.combination(drawing.emoji[0])
        kept = held if place.split == "held_out" else seen
        if place.split != "held_out" or "style" in place.reason:
            kept["style"].add((subject, drawing.style))
        if tones and (place.split != "held_out" or "tone" in place.reason):
            kept["tone"].add((subject, tones))
        assert (place.split == "held_out") == bool(place.reason) == bool(example["held_out"])
        captions[place.split] |= {caption.lower() for caption in example["captions"]}
    assert min(len(held["style"]), len(held["tone"])) > len(drawn) / 400
    assert not held["style"] & seen["style"]
    assert not held["tone"] & seen["tone"]
    assert not captions["held_out"] & (captions["train"] | captions["validation"])
    # Each part is seen with others: the subject in other styles and tones, the style and the tone.
    assert {s for s, _ in held["style"] | held["tone"]} <= {s for s, _ in seen["style"]}
    assert {style for _, style in seen["style"]} == set(DRAWN)
    tones = [{tone for _, some in kept["tone"] for tone in some} for kept in (held, seen)]
    assert tones == [set(range(5))] * 2


def test_keywords_name_no_held_out_subject(drawings) -> None:
    drawn = drawings[0][:150]
    places = [style_splits.Place("train")] * len(drawn)
    named = Annotation(tuple(sorted(style_captions.all_names())), ())
    known = Annotations({code_of(drawing.emoji[0]): named for drawing in drawn})
    with_names = styles_dataset.describe(drawn, places, known)
    without = styles_dataset.describe(drawn, places, Annotations())
    assert [e["captions"] for e in with_names] == [e["captions"] for e in without]


def test_a_subject_of_one_style_alone_is_not_held_out(drawings) -> None:
    drawn, look = drawings
    alone = [drawing.style == "noto" for drawing in drawn]
    noto = [drawing for drawing, chosen in zip(drawn, alone, strict=True) if chosen]
    places = style_splits.place_drawings(noto, look.part(alone))
    for drawing, place in zip(noto, places, strict=True):
        assert place.split == emoji_names.split_of(drawing.emoji[0])
        assert place.reason in ("", style_splits.TONE)


def test_what_looks_like_a_held_out_image_is_held_out_too(drawings) -> None:
    drawn, look = drawings[0][:900], drawings[1].part([n < 900 for n in range(len(drawings[0]))])
    places = style_splits.place_drawings(drawn, look)
    held = next(n for n, place in enumerate(places) if place.split == "held_out")
    seen = [n for n, place in enumerate(places) if place.split == "train"][:3]
    hashes, mosaics = look.hashes.copy(), look.mosaics.copy()
    for number, (bits, colour) in zip(seen, ((8, 18), (9, 0), (0, 19)), strict=True):
        hashes[number] = look.hashes[held] ^ np.uint64((1 << bits) - 1)
        mosaics[held] = mosaics[number] = look.mosaics[held] // 2
        mosaics[number, 7] += colour
    moved = style_splits.place_drawings(drawn, Look(hashes, mosaics))
    assert moved[seen[0]] == ("held_out", style_splits.TWIN)
    assert [moved[number].split for number in seen[1:]] == ["train", "train"]


def test_a_drawing_of_several_emoji_is_held_out_with_any_of_them(drawings) -> None:
    drawn = [
        Drawing("noto", ("🐙", "👩🏿‍🚀"), b""),
        Drawing("fluent-3d", ("🥑", "🐙"), b""),
        Drawing("fluent-3d", ("🥑",), b""),
        Drawing("noto", ("🥑",), b""),
        Drawing("noto", ("❤️",), b""),
    ]
    rng = np.random.default_rng(1)
    look = Look(rng.integers(0, 1 << 63, 5, np.uint64), rng.integers(0, 256, (5, 192), np.uint8))
    found = style_splits.place_drawings(drawn, look)
    reasons = [style_splits.TONE, style_splits.STYLE, "", "", ""]
    assert [place.reason for place in found] == reasons
    assert [place.split for place in found[2:]] == ["validation", "validation", "train"]
    described = styles_dataset.describe(drawn, found, Annotations())
    assert [example["emoji"] for example in described] == ["👩🏿‍🚀", "🐙", "🥑", "🥑", "❤️"]
    captions = described[1]["captions"]
    assert (captions[0], captions[-1]) == ("octopus, 3D", "avocado, 3D")
    assert "avocado, 3D" not in described[2]["captions"]


def test_the_hash_knows_small_changes_from_other_images() -> None:
    """Noise and a shift by a pixel are small; another place or colour and a mirror are not."""
    rng = np.random.default_rng(0)
    image = np.full((128, 128, 3), 255, np.uint8)
    image[20:70, 30:110] = (200, 60, 20)
    image[60:100, 40:60] = (20, 60, 200)
    noisy = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    shifted = np.roll(image, 1, axis=1)
    other = image[:, :, [0, 2, 1]]
    far = np.roll(image, 30, axis=0)
    looks = near_duplicates.looks([noisy, shifted, other, far, np.fliplr(image)])
    twins = near_duplicates.find_twins(looks, near_duplicates.looks([image]))
    assert twins.tolist() == [True, True, False, False, False]
    assert not near_duplicates.find_twins(looks, near_duplicates.looks([])).any()


def test_a_built_dataset_has_licences_captions_and_reasons(built: Path) -> None:
    found = examples(built)
    assert {style for _, style in found} == {"noto", "fluent-flat", "fluent-3d"}
    for (_, style), example in found.items():
        stated = (example["licence"], example["attribution"])
        assert stated == (STYLES[style].licence, STYLES[style].attribution)
        assert decode.decode_image(example["image"], side=128).shape == (128, 128, 3)
        assert example["caption"] == example["captions"][0]
    octopus = found["🐙", "fluent-3d"]
    assert (octopus["split"], octopus["held_out"]) == ("held_out", "style")
    assert found["👩🏿‍🚀", "noto"]["held_out"] == "skin tone"
    assert found["🥑", "noto"]["split"] == "validation"
    assert found["👍🏽", "fluent-3d"]["captions"][0] == "thumbs up, medium skin tone, 3D"
    assert ("🇳🇴", "fluent-3d") not in found  # a flag of another set
    norway = found["🇳🇴", "noto"]["captions"]
    assert {"flag for Norway, cartoon", "flag for Svalbard & Jan Mayen, cartoon"} <= set(norway)
    avocado = found["🥑", "fluent-flat"]["captions"]
    assert avocado[-2:] == (
        "avocado, guacamole, flat drawing",
        "avocado, food, fruit, flat drawing",
    )


def test_the_dataset_is_a_source(built: Path) -> None:
    address = addresses.parse_address("emoji/styles?split=held_out")
    source = addresses.open_source(address, built)
    assert isinstance(source, Source)
    assert len(source) > 1
    assert {example["held_out"] for example in source} <= {"skin tone", "style"}
    by_tfds = addresses.open_source(
        addresses.parse_address("tfds:emoji/styles?split=held_out&text=captions"), built
    )
    assert by_tfds[0]["captions"] == source[0]["captions"]
    assert known_words.unknown_words(["a zyzzyva"], dataset="emoji/styles") == []


def test_building_again_changes_nothing_and_refuses_other_sets(
    built: Path, arguments: list[str], packages: dict[str, Path], capsys
) -> None:
    where = ["--data-dir", str(built)]
    files = sorted(path for path in built.rglob("*") if path.is_file())
    before = [(path, path.stat().st_mtime_ns) for path in files]
    command.run(["build", "emoji/styles", *where])
    command.run(["build", "emoji", *arguments, *where])
    assert "emoji/styles is in" in capsys.readouterr().out
    others = ["--styles", f"noto={packages['noto']}", f"fluent-flat={packages['fluent-flat']}"]
    for given in (others, [*arguments, "--categories", "food"]):
        with pytest.raises(ValueError, match="other sets, keywords or categories than these: del"):
            command.run(["build", "emoji", *given, *where])
    files = sorted(path for path in built.rglob("*") if path.is_file())
    assert [(path, path.stat().st_mtime_ns) for path in files] == before


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("food",), {"1": 1, "2": 1, "3": 1}),
        (("food-drink", "animal=99"), {"3": 1, "4": 99}),
        (("animal-bird=2",), {"4": 2}),
        (("food=3", "food-asian", "animal=1"), {"1": 3, "2": 1, "3": 3, "4": 1}),
    ],
)
def test_a_category_is_a_subgroup_or_how_several_begin(given, expected: dict[str, int]) -> None:
    names = {"1": "food-fruit", "2": "food-asian", "3": "food-drink", "4": "animal-bird"}
    named = {code: Annotation((), (), name) for code, name in names.items()}
    known = Annotations(named | {"5": Annotation((), (), "foodstuff"), "6": Annotation((), ())})
    assert annotations.select_categories(known, given) == expected


def test_only_emoji_of_the_categories_are_drawn(packages, tmp_path: Path) -> None:
    fruit = [text for text in EMOJI if text not in ("🐙", "👍")]
    listed = emoji_packages.keywords({text: [] for text in fruit})
    place = emoji_packages.write_tar(tmp_path / "k.tgz", listed)
    styles = [f"{name}={packages[name]}" for name in ("noto", "fluent-flat", "fluent-3d")]
    given = ["--styles", *styles, "--keywords", str(place), "--categories", "food-fruit=3"]
    command.run(["build", "emoji", *given, "--data-dir", str(tmp_path)])
    drawn = {text for text, _ in examples(tmp_path)}
    assert drawn
    assert drawn <= set(fruit)
    metadata = styles_dataset.build_styles(tmp_path).info.metadata
    assert json.loads(metadata["inputs"])["categories"] == ["food-fruit=3"]
    # Training sees each image three times, what is held out comes once.
    for split, times in (("train", 3), ("validation", 1), ("held_out", 1)):
        seen = list(styles_dataset.open_styles(split, tmp_path))
        count = Counter((one["emoji"], one["style"], bytes(one["image"])) for one in seen)
        assert set(count.values()) == {times}
        once = [(one["emoji"], one["style"]) for one in seen[: len(count)]]
        assert len(set(once)) == len(count)


@pytest.mark.parametrize(
    ("categories", "says"),
    [
        (("food=0",), r"--categories 'food=0': give NAME=TIMES, with a number of times from 1 to"),
        (("food=",), r"--categories 'food=': give NAME=TIMES"),
        (("food=100",), r"--categories 'food=100': give NAME=TIMES"),
        (("food", "food=2"), r"--categories names 'food' twice: give each category once"),
        (("fruits",), r"--categories 'fruits': no emoji is in a category of that name: give some"),
    ],
)
def test_categories_that_mean_nothing_are_refused(
    packages, tmp_path: Path, categories: tuple[str, ...], says: str
) -> None:
    styles = tuple(f"{name}={packages[name]}" for name in ("noto", "fluent-flat"))
    with pytest.raises(ValueError, match=says):
        styles_dataset.build_styles(
            tmp_path, styles=styles, keywords=packages["keywords"], categories=categories
        )
    assert not list(tmp_path.iterdir())


def test_categories_need_the_package_that_has_them(packages, tmp_path: Path) -> None:
    styles = tuple(f"{name}={packages[name]}" for name in ("noto", "fluent-flat"))
    says = r"--categories food: which emoji are .* npm pack emojibase-data, then give"
    with pytest.raises(ValueError, match=says):
        styles_dataset.build_styles(tmp_path, styles=styles, categories=("food",))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["emoji/styles"], "emoji/styles needs --styles, two or more of noto, openmoji"),
        (["emoji/full", "--styles", "noto", "twemoji"], "makes emoji/styles, and not emoji/full"),
        (["shapes/tiny", "--styles", "noto"], "--styles is for emoji, and shapes/tiny has none"),
        (["emoji", "--styles", "noto", "--font", "x.ttf"], r"takes it as --styles noto=FONT"),
        (["emoji", "--styles", "noto", "--workers", "2"], "one process draws emoji"),
    ],
)
def test_orders_that_make_no_sense_are_refused(given, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        command.run(["build", *given, "--data-dir", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--keywords", "k.tgz"], "--keywords k.tgz is for captions of --styles"),
        (["--categories", "food"], "--categories food is of emoji in --styles, which is not"),
        (
            ["--styles", "noto", "--out", "x", *TINY],
            "--styles is for drawing emoji; --out x takes what",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(given, says: str, capsys) -> None:
    with pytest.raises((ValueError, SystemExit)) as refused:
        command.run(["build", "emoji", *given])
    said = capsys.readouterr().err if refused.type is SystemExit else str(refused.value)
    assert says in " ".join(said.replace("│", " ").split())


def test_where_a_set_draws_no_skin_tone_no_caption_says_one(packages, tmp_path: Path) -> None:
    one = emoji_packages.pictures("🏂")
    (name,) = (name for name in one if name.endswith(".png"))
    files = one | {f"assets/{code_of(f'🏂{tone}')}.png": one[name] for tone in emoji_names.TONES}
    files |= {f"assets/{code_of(text)}.png": one[name] for text in ("👍🏻", "👍🏾")}
    folder = emoji_packages.write_folder(tmp_path / "p", files)
    drawn, _ = styles_dataset.draw_sets(
        {"noto": set_readers.read_set(folder)}, emoji_names.known_emoji()
    )
    assert [drawing.emoji for drawing in drawn] == [("🏂",)]


def test_a_picture_that_cannot_be_used_is_named(packages: dict[str, Path], tmp_path: Path) -> None:
    files = emoji_packages.pictures("🐙") | {"1f951.png": b"nothing"}
    broken = emoji_packages.write_folder(tmp_path / "3d", files)
    with pytest.raises(ValueError, match=r"the image of 🥑 in fluent-3d cannot be used: .*no comp"):
        styles_dataset.build_styles(
            tmp_path, styles=(f"noto={packages['noto']}", f"fluent-3d={broken}")
        )


def test_sets_that_leave_a_split_empty_are_refused(tmp_path: Path, packages) -> None:
    few = emoji_packages.write_tar(tmp_path / "few.tgz", emoji_packages.icons("🍓🦊"))
    styles = tuple(f"{name}={few}" for name in ("fluent-flat", "fluent-contrast"))
    with pytest.raises(ValueError, match="the sets have 4 images and none of the split"):
        styles_dataset.build_styles(tmp_path, styles=styles)
    assert not list(tmp_path.rglob("dataset_info.json"))


def test_the_recipe_tells_rules_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = styles_dataset.StylesConfig(name="styles").recipe()
    monkeypatch.setattr(style_splits, "HOLDING", 5)
    other = styles_dataset.StylesConfig(name="styles").recipe()
    changed = {**STYLES, "noto": dataclasses.replace(STYLES["noto"], words="oil painting")}
    monkeypatch.setattr(styles_dataset, "STYLES", changed)
    assert len({recipe, other, styles_dataset.StylesConfig(name="styles").recipe()}) == 3
