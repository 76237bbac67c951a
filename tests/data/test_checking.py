"""What a source holds is counted, named and the same however many processes look."""

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from imagen_jax import config
from imagen_jax.cli import data
from imagen_jax.data import inspect
from imagen_jax.data.dataset_report import DatasetReport
from imagen_jax.data.images import decode
from imagen_jax.data.sources.base import SkippedNames, make_example
from imagen_jax.io.errors import CorruptDataError

FAULTS = Path(__file__).parent.parent / "fixtures" / "faults"
COUNT = 60
CUT, NOISE, GONE = {3, 17}, {5}, {8}  # cut short; no picture; lost by the source
AGAIN, RENAMED = {20: 19, 40: 2}, {30: 29}  # pictures that come again, the latter with other words
WORDY, THIN = {12}, {13}


def picture(index: int, kind: str = "JPEG") -> bytes:
    draw = np.random.default_rng(index)
    size = (64, 8) if index in THIN else (24 + index, 20)
    file = io.BytesIO()
    Image.fromarray(draw.integers(0, 255, (*size, 3), np.uint8)).save(file, kind)
    return file.getvalue()


@dataclass(frozen=True)
class Mixed:
    """Pictures of several formats, some of which are not what they should be."""

    def __len__(self) -> int:
        return COUNT

    @property
    def skipped(self) -> MappingProxyType:
        return MappingProxyType({"no caption": SkippedNames(("a", "b"), 7)})

    def key(self, index: int) -> str:
        return f"k{index}"

    def __getitem__(self, index: int) -> dict:
        if index in GONE:
            raise CorruptDataError("its shard is lost")
        same = AGAIN.get(index, RENAMED.get(index, index))
        image = picture(same, ("JPEG", "PNG", "WEBP", "GIF")[same % 4])
        if index in CUT:
            image = image[: -len(image) // 3]
        if index in NOISE:
            image = os.urandom(100)
        words = "a word " * 99 if index in WORDY else f"number {AGAIN.get(index, index)}"
        return make_example(image, (words, "another") if index % 2 else (words,))


def lengths(captions: list[str]) -> list[int]:
    return [len(caption.split()) for caption in captions]


def look(**options: object) -> inspect.ExampleInspector:
    filters = config.Filters(max_caption_chars=200, max_aspect=6.0)
    return inspect.ExampleInspector(Mixed(), filters, lengths, **options)


@pytest.fixture(scope="module")
def found() -> DatasetReport:
    return inspect.inspect_examples(look(), range(COUNT), processes=1, progress=False)


def test_what_is_left_out_is_named_by_reason(found: DatasetReport) -> None:
    unreadable = found.left_out["unreadable"]
    assert {name.split(":")[0] for name in unreadable} == {f"k{i}" for i in CUT | NOISE | GONE}
    assert unreadable.total == 4
    assert any("cut short" in name for name in unreadable)
    (wordy,) = [v for k, v in found.left_out.items() if k.startswith("caption of more")]
    assert (tuple(wordy), wordy.total) == (("k12",), 1)
    (thin,) = [v for k, v in found.left_out.items() if k.startswith("longer than 6.0")]
    assert tuple(thin) == ("k13",)
    assert found.left_out["no caption"].total == 7  # of the source itself


def test_numbers_are_those_of_every_readable_example(found: DatasetReport) -> None:
    readable = [i for i in range(COUNT) if i not in CUT | NOISE | GONE]
    assert (found.examples, found.looked_at) == (COUNT, COUNT)
    assert len(found.width) == len(readable)
    assert found.height.tolist() == [
        64 if i in THIN else 24 + AGAIN.get(i, RENAMED.get(i, i)) for i in readable
    ]
    assert found.captions.tolist() == [1 + i % 2 for i in readable]
    assert found.tokens.max() == 198
    assert found.bytes.tolist() == [len(Mixed()[i]["image"]) for i in readable]


def test_pictures_that_come_again_are_told_apart_from_pairs(found: DatasetReport) -> None:
    again = {reason: set(names) for reason, names in found.again.items()}
    pairs = {f"k{i}" for i in AGAIN if i % 2 == AGAIN[i] % 2}
    others = {f"k{i}" for i in AGAIN | RENAMED} - pairs
    assert again == {"image and caption again": pairs, "image again": others}


def test_several_processes_find_the_same(
    found: DatasetReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect, "CHUNK", 16)
    # Threads, since processes cannot import what this file defines.
    monkeypatch.setattr(inspect.worker_pool, "start_pool", ThreadPoolExecutor)
    other = inspect.inspect_examples(look(), range(COUNT), processes=4, progress=False)
    for name in ("width", "height", "tokens", "captions", "bytes"):
        np.testing.assert_array_equal(getattr(other, name), getattr(found, name))
    assert (other.left_out, other.again) == (found.left_out, found.again)


def test_decoding_finds_damage_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Mixed.__getitem__

    def hurt(self: Mixed, index: int) -> dict:
        made = whole(self, index)
        image = bytearray(made["image"])
        if index == 25:  # a PNG, whose parts have sums
            image[len(image) // 2] ^= 1
        return made | {"image": bytes(image)}

    monkeypatch.setattr(Mixed, "__getitem__", hurt)
    some = range(21, 29)
    names = [
        inspect.inspect_examples(look(decodes=decodes), some, processes=1, progress=False).left_out
        for decodes in (False, True)
    ]
    assert "unreadable" not in names[0]
    assert [n.split(":")[0] for n in names[1]["unreadable"]] == ["k25"]


def test_the_command_writes_report_numbers_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(12):
        (folder / f"{index:02d}.jpg").write_bytes(picture(index)[: 50 if index == 4 else None])
        (folder / f"{index:02d}.txt").write_text(f"number {index}")
    out = tmp_path / "out"
    command = ["check", f"folder:{folder}", "--data-dir", str(tmp_path), "--out", str(out)]
    data.run([*command, "--filters.min-side", "20", "--workers", "1"])
    said = capsys.readouterr().out
    document = json.loads((out / "check.json").read_text())
    assert (document["examples"], document["readable"]) == (12, 11)
    assert document["left_out"]["unreadable"]["total"] == 1
    assert document["percentiles"]["height"]["0"] == 24
    assert "12 examples, 12 checked, 11 readable." in said
    assert "* unreadable: 1 (" in said
    assert (out / "report.md").read_text() in said
    settings = inspect.InspectionSettings(filters=config.Filters(min_side=20), workers=1)
    same = inspect.inspect_source(f"folder:{folder}", settings, data_dir=tmp_path)
    assert same.to_markdown() == (out / "report.md").read_text()
    assert same.to_dict() == document
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width > 160
        np.testing.assert_array_equal(np.asarray(sheet), np.asarray(same.contact_sheet))
    with pytest.raises(ValueError, match="sample=0: must be"):
        inspect.inspect_source(f"folder:{folder}", inspect.InspectionSettings(sample=0))
    data.run([*command, "--sample", "5", "--workers", "1"])
    assert json.loads((out / "check.json").read_text())["looked_at"] == 5
    with pytest.raises(ValueError, match="--sample 0: must be"):
        data.run([*command, "--sample", "0"])


def encoded(form: str, **options: object) -> bytes:
    """A small picture that nothing can be left out of."""
    draw = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(draw).save(file, form, **options)
    return file.getvalue()


def checked(images: dict[str, bytes]) -> tuple[set[str], set[str]]:
    """Names of pictures that `data check` keeps, and of those that decoding does."""

    class Pictures:
        skipped: ClassVar[dict] = {}

        def __len__(self) -> int:
            return len(images)

        def key(self, index: int) -> str:
            return list(images)[index]

        def __getitem__(self, index: int) -> dict:
            return make_example(list(images.values())[index], ("words",))

    look = inspect.ExampleInspector(Pictures(), config.Filters(), lengths)
    found = inspect.inspect_examples(look, range(len(images)), processes=1, progress=False)
    left_out = {name.partition(":")[0] for name in found.left_out.get("unreadable", ())}
    decodable = set(images)
    for name, image in images.items():
        try:
            decode.load_image(image, side=8)
        except decode.UnreadableImageError:
            decodable.discard(name)
    return set(images) - left_out, decodable


FORMS = {
    "JPEG": {},
    "JPEG progressive": {"progressive": True},
    "JPEG with a thumbnail": {"exif": b"Exif\0\0" + encoded("JPEG", quality=20)},
    "MPO": {"save_all": True, "append_images": [Image.new("RGB", (50, 40))]},
    "PNG": {},
    "GIF": {},
    "GIF animated": {"save_all": True, "append_images": [Image.new("RGB", (50, 40), "red")]},
    "WEBP": {},
    "WEBP lossless": {"lossless": True},
    "BMP": {},
}
TRAILERS = {
    "a video": b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 20,
    "padding": bytes(4096),
    "padding of ones": b"\xff" * 4096,
    "a line": b"\n",
    "a trailer of Samsung": b"MotionPhoto_Data" + b"x" * 500 + b"SEFT",
}


@pytest.mark.parametrize("form", FORMS)
def test_whole_pictures_are_whole_whatever_follows(form: str) -> None:
    image = encoded(form.split()[0], **FORMS[form])
    images = {"as it is": image} | {name: image + more for name, more in TRAILERS.items()}
    assert checked(images) == (set(images), set(images))


@pytest.mark.parametrize("form", FORMS)
def test_pictures_that_were_cut_are_found_wherever(form: str) -> None:
    image = encoded(form.split()[0], **FORMS[form])
    first = len(encoded(form.split()[0])) if "animated" in form or form == "MPO" else len(image)
    shares = (0.3, 0.6, 0.9, 0.98)
    images = {f"{share} of it": image[: int(share * first)] for share in shares}
    images |= {f"{share} and padding": image[: int(share * first)] + bytes(9) for share in shares}
    assert checked(images) == (set(), set())


@pytest.mark.parametrize("form", FORMS)
def test_pictures_cut_near_their_end_are_kept_as_decoding_keeps_them(form: str) -> None:
    image = encoded(form.split()[0], **FORMS[form])
    kept, decodable = checked({str(n): image[:-n] for n in (*range(1, 30), 100, 500)})
    assert kept == decodable


def test_pictures_with_something_behind_their_end_are_not_called_cut_short() -> None:
    images = {
        path.name: path.read_bytes()
        for path in (FAULTS / "trailing").iterdir()
        if path.suffix != ".txt"
    }
    assert checked(images) == (set(images), set(images))
    assert len(images) == 4
