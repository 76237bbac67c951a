"""Captions of any characters or bytes: read as Unicode, or left out by name; the others stay."""

import contextlib
import csv
import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st
from PIL import Image
from small_store import make_store

from imagen_jax import config
from imagen_jax.data import inspect
from imagen_jax.data.prepare import images
from imagen_jax.data.prepare.images import PreparedImage
from imagen_jax.data.sources import base, folders, parquet, tars
from imagen_jax.data.sources.base import BadCaptionError, Source

GOOD = "a good one"
LONE = "smile \ud83d end"  # half of an emoji
NO_TEXT = {
    "half a pair": LONE.encode("utf-8", "surrogatepass"),
    "Latin-1": "café crème".encode("latin-1"),
    "Shift-JIS": "赤い円".encode("shift-jis"),
    "ISO-2022-JP": "赤い円".encode("iso2022_jp"),
    "half a UTF-16": "a red".encode("utf-16") + b"\0",
    "zeros": b"red\0circle",
    "a zero and an even count": b"\0abc",
}
TEXT = {
    "UTF-8": "café, 赤い円 🔴",
    "of right to left": "עיגול אדום",
    "of one megabyte": "words " * 170_000,
    "with quotes and lines": 'he said "hi",\nthen left',
    "with U+FFFD": "caf\ufffd",
}
CODECS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


def picture(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


PNG = {"bad": picture("red"), "good": picture("blue")}


def tar_txt(folder: Path, caption: bytes) -> Source:
    members = {"bad.png": PNG["bad"], "bad.txt": caption}
    return _tar(folder, members | {"good.png": PNG["good"], "good.txt": GOOD.encode()})


def _tar(folder: Path, members: dict[str, bytes]) -> Source:
    with tarfile.open(folder / "x.tar", "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return tars.open_tars(str(folder / "x.tar"), cache=folder)


def folder_txt(folder: Path, caption: bytes) -> Source:
    _pictures(folder)
    (folder / "bad.txt").write_bytes(caption)
    (folder / "good.txt").write_text(GOOD)
    return folders.open_folder(str(folder))


def _pictures(folder: Path) -> None:
    for name, data in PNG.items():
        (folder / f"{name}.png").write_bytes(data)


def parquet_bytes(folder: Path, caption: bytes) -> Source:
    return _rows(folder, pa.array([caption, GOOD.encode()]))


def parquet_text(folder: Path, caption: bytes) -> Source:
    return _rows(folder, pa.array([caption, GOOD.encode()]).view(pa.string()))


def _rows(folder: Path, texts: pa.Array) -> Source:
    images = pa.array(list(PNG.values()))
    pq.write_table(pa.table({"image": images, "text": texts}), folder / "x.parquet")
    return parquet.open_parquet(str(folder / "x.parquet"))


def table_parquet(folder: Path, caption: bytes) -> Source:
    _pictures(folder)
    texts = pa.array([caption, GOOD.encode()]).view(pa.string())
    rows = pa.table({"file_name": ["bad.png", "good.png"], "text": texts})
    pq.write_table(rows, folder / "metadata.parquet")
    return folders.open_folder(str(folder))


def tar_json(folder: Path, caption: str) -> Source:
    about = {name: json.dumps({"caption": c}).encode() for name, c in _two(caption)}
    members = {f"{name}.json": data for name, data in about.items()}
    return _tar(folder, members | {f"{name}.png": data for name, data in PNG.items()})


def _two(caption: str) -> list[tuple[str, str]]:
    return [("bad", caption), ("good", GOOD)]


def table_jsonl(folder: Path, caption: str) -> Source:
    _pictures(folder)
    rows = [json.dumps({"file_name": f"{name}.png", "text": c}) for name, c in _two(caption)]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folders.open_folder(str(folder))


def table_csv(folder: Path, caption: str) -> Source:
    _pictures(folder)
    lines = io.StringIO(newline="")
    csv.writer(lines).writerows([("file_name", "text"), *_csv_rows(caption)])
    data = lines.getvalue().encode("utf-8", "surrogatepass")
    (folder / "metadata.csv").write_bytes(data)
    return folders.open_folder(str(folder))


def _csv_rows(caption: str) -> list[tuple[str, str]]:
    return [(f"{name}.png", c) for name, c in _two(caption)]


OF_BYTES = (tar_txt, folder_txt, parquet_bytes, parquet_text, table_parquet)
OF_TEXT = (tar_json, table_jsonl, table_csv)


def captions_of(source: Source) -> tuple[dict[str, str], str]:
    """Captions by "good" and "bad", as `encode` keeps them, and all that is said of the rest.

    `data check` has to keep and to name the same.
    """
    target = make_store(
        Path("/nowhere"),
        count=len(source),
        sizes=(8,),
        framing=config.Framing(),
        filters=config.Filters(max_caption_chars=2_000_000),
    )
    made = [images.prepare_image(source, target, index) for index in range(len(source))]
    kept = [one for one in made if isinstance(one, PreparedImage)]
    lacks = [one for one in made if not isinstance(one, PreparedImage)]
    look = inspect.ExampleInspector(
        source, target.filters, lambda texts: [len(t.encode()) for t in texts]
    )
    checked = inspect.inspect_examples(look, range(len(source)), processes=1, progress=False)
    assert len(checked.width) == len(kept)
    for one in lacks:
        assert any(n.startswith(one.key) for n in checked.left_out[one.reason])
    pictures = {data: name for name, data in PNG.items()}
    said = [*(f"{r}: {n}" for r, names in source.skipped.items() for n in names)]
    for one in kept:
        one.key.encode()
        assert "".join(one.captions).encode().strip()
    found = {pictures[source[n]["image"]]: one for n, one in enumerate(made) if one in kept}
    return {name: one.captions[0] for name, one in found.items()}, "\n".join(
        [*said, *(f"{one.reason}: {one.key}: {one.detail}" for one in lacks)]
    )


def looked_at(build: Callable[[Path, object], Source], caption: object) -> str | None:
    """The caption beside the good one; None where it is left out, which is said."""
    with tempfile.TemporaryDirectory() as folder:
        captions, said = captions_of(build(Path(folder), caption))
    assert captions.pop("good") == GOOD
    if captions:
        return captions["bad"]
    assert any(name in said for name in ("bad", "x.parquet/0", "metadata.csv line 2")), said
    return None


@pytest.mark.parametrize("build", OF_BYTES, ids=lambda build: build.__name__)
@pytest.mark.parametrize("caption", NO_TEXT.values(), ids=NO_TEXT)
def test_bytes_that_are_no_text_are_left_out_by_name(build: Callable, caption: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _, said = captions_of(build(Path(folder), caption))
        assert base.NOT_UNICODE in said
    assert looked_at(build, caption) is None


@pytest.mark.parametrize("build", OF_BYTES, ids=lambda build: build.__name__)
@pytest.mark.parametrize("codec", CODECS)
def test_byte_order_marks_are_honoured(build: Callable, codec: str) -> None:
    caption = "ein roter Kreis, 赤い円"
    assert looked_at(build, caption.encode(codec)) == caption


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf_16_of_western_letters_needs_no_mark(codec: str) -> None:
    assert looked_at(folder_txt, "a café".encode(codec)) == "a café"
    assert looked_at(folder_txt, "a 赤い円".encode(codec)) is None


@pytest.mark.parametrize("build", OF_TEXT, ids=lambda build: build.__name__)
@pytest.mark.parametrize("caption", [LONE, "\udc80", "\ude00\ud83d", "\0", "a\x1b$B"])
def test_texts_that_are_no_unicode_are_left_out_by_name(build: Callable, caption: str) -> None:
    assert looked_at(build, caption) is None


@pytest.mark.parametrize("build", [*OF_BYTES, *OF_TEXT], ids=lambda build: build.__name__)
@pytest.mark.parametrize("caption", TEXT.values(), ids=TEXT)
def test_texts_are_read_as_they_are(build: Callable, caption: str) -> None:
    if build is table_csv and len(caption) > csv.field_size_limit():
        assert looked_at(build, caption) is None
    else:
        given = caption if build in OF_TEXT else caption.encode()
        assert looked_at(build, given) == caption.strip()


@pytest.mark.parametrize("build", [*OF_BYTES, *OF_TEXT], ids=lambda build: build.__name__)
@pytest.mark.parametrize("caption", ["", " \n\t", "\u3000\xa0", "\u200b\u200f\u202e\ufeff"])
def test_captions_without_anything_to_see_are_left_out(build: Callable, caption: str) -> None:
    assert looked_at(build, caption if build in OF_TEXT else caption.encode()) is None


def read(build: Callable[[Path, object], Source], caption: object) -> str | None:
    """As `looked_at`, but nothing is decoded."""
    captions = {}
    with tempfile.TemporaryDirectory() as folder:
        source = build(Path(folder), caption)
        for index in range(len(source)):
            with contextlib.suppress(BadCaptionError):
                example = source[index]
                captions[example["image"]] = example["caption"]
    assert captions.pop(PNG["good"]) == GOOD
    assert captions or source.skipped or isinstance(source, folders.Folder)
    return captions.get(PNG["bad"])


@pytest.mark.parametrize("build", OF_BYTES, ids=lambda build: build.__name__)
@hypothesis.given(caption=st.binary(max_size=40) | st.text(max_size=20).map(str.encode))
def test_any_bytes_are_read_as_unicode_or_left_out(build: Callable, caption: bytes) -> None:
    found = read(build, caption)
    if found is not None:
        found.encode()
        with contextlib.suppress(UnicodeDecodeError):
            text = caption.decode().removeprefix("\ufeff")
            assert found == text.strip() or "\0" in text


# JSON and CSV hold any code points, lone surrogates too.
POINTS = st.integers(0, 0x10FFFF) | st.integers(0xD7F0, 0xE00F) | st.integers(0, 0x7F)
ANY_TEXT = st.lists(POINTS.map(chr), max_size=20).map("".join)


@pytest.mark.parametrize("build", OF_TEXT, ids=lambda build: build.__name__)
@hypothesis.given(caption=ANY_TEXT)
def test_any_text_is_read_as_it_is_or_left_out(build: Callable, caption: str) -> None:
    found = read(build, caption)
    if found is not None:
        found.encode()
        joined = caption.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        assert found in (caption.strip(), joined.strip())  # JSON spells characters as two halves
    elif visible := caption.strip():
        assert not visible.isprintable()
