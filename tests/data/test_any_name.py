"""File names of any bytes: the same printable keys in folders and tars, and no two alike."""

import io
import os
import tarfile
import tempfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from imagen_jax.data.sources import base, folders, tars
from imagen_jax.data.sources.base import Source
from imagen_jax.data.store import records, skipped
from imagen_jax.data.store.records import Record
from imagen_jax.data.store.skipped import Skipped

FAULTS = Path(__file__).parent.parent / "fixtures" / "faults"
ODD = [
    b"caf\xe9",  # Latin-1
    b"caf\\udce9",  # what that is as it is printed
    "café".encode(),
    "cafe\u0301".encode(),  # the same in another form
    "CAFÉ".encode(),
    b"two\nlines",
    b'"quoted"',
    b"-rf",
    b"--out=x",
    b"{a,b}",
    b"what?",
    b"*",
    b"[1]",
    b"~",
    b"$HOME",
    b"a\x1b[2J",
    b" ",
    b"\xed\xa0\xbd",  # half an emoji
    b"\xf0\x9f\x94\xb4",
    b"BZh",  # with which a compressed file begins, too
    b"\x1f\x8b",
]
# What a key is made of: neither hidden, nor with an ending, nor in a folder of its own.
LEGAL = st.binary(min_size=1, max_size=40).filter(lambda name: not set(name) & set(b"\0/.\\"))


def in_folder(root: Path, names: list[bytes]) -> Source:
    """Pictures and captions; each says its name in hexadecimal."""
    for name in names:
        for ending in (b".jpg", b".txt"):
            (root / os.fsdecode(name + ending)).write_text(name.hex())
    return folders.open_folder(str(root))


def in_tar(root: Path, names: list[bytes]) -> Source:
    with tarfile.open(root / "x.tar", "w") as tar:
        for name in names:
            for ending in (b".jpg", b".txt"):
                info = tarfile.TarInfo((name + ending).decode("utf-8", "surrogateescape"))
                info.size = 2 * len(name)
                tar.addfile(info, io.BytesIO(name.hex().encode()))
    return tars.open_tars(str(root / "x.tar"), cache=root)


def keys(source: Source) -> dict[str, str]:
    """Keys by what the example says."""
    found = {source[n]["image"].decode(): source.key(n) for n in range(len(source))}
    assert all(source[n]["caption"].encode() == source[n]["image"] for n in range(len(source)))
    return found


def check(names: list[bytes], *, alike: bool = True) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        folder, tar = keys(in_folder(Path(one), names)), keys(in_tar(Path(other), names))
    assert set(folder) == {name.hex() for name in names}
    assert len(set(folder.values())) == len(set(tar.values())) == len(names)
    assert {said: key.removeprefix("x.tar/") + ".jpg" for said, key in tar.items()} == folder
    for key in folder.values():
        assert key.isprintable()
        packed = records.pack_record(record(key))
        assert records.unpack_record(packed, text_dtype="float32").key == key


def record(key: str) -> Record:
    text = records.round_encoding(np.ones((1, 2), np.float32), "float32")
    return Record(key=key, captions=("a",), images={1: b"png"}, texts=(text,))


def test_odd_names_have_printable_keys_of_their_own() -> None:
    check([name for name in ODD if b"\\" not in name])


def test_a_name_may_look_like_another_one_spelled_out(tmp_path: Path) -> None:
    found = keys(in_folder(tmp_path, ODD[:2]))
    assert found == {ODD[0].hex(): "caf\\udce9.jpg", ODD[1].hex(): "caf\\\\udce9.jpg"}


@hypothesis.given(names=st.lists(LEGAL, min_size=1, max_size=4, unique=True))
def test_any_legal_name_has_the_same_key_in_folders_and_tars(names: list[bytes]) -> None:
    check(names)


def test_latin_1_names_of_a_folder_can_be_stored(tmp_path: Path) -> None:
    with tarfile.open(FAULTS / "latin1names.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    source = folders.open_folder(str(tmp_path / "latin1names"))
    assert [source.key(n) for n in range(len(source))] == ["b.png", "caf\\udce9.jpg"]
    assert records.pack_record(record(source.key(1)))
    skipped.write_skipped(tmp_path / "skipped.jsonl", [Skipped(1, source.key(1), "unreadable")])
    assert skipped.read_skipped(tmp_path)[0].key == source.key(1)


@pytest.mark.parametrize("codec", ["latin-1", "utf-8"])
def test_a_table_names_files_in_its_own_encoding(tmp_path: Path, codec: str) -> None:
    name = "café.jpg".encode(codec)
    (tmp_path / os.fsdecode(name)).write_bytes(b"jpeg")
    (tmp_path / "metadata.csv").write_bytes(b"file_name,text\n" + name + b",a cafe\n")
    source = folders.open_folder(str(tmp_path))
    assert source[0]["captions"] == ("a cafe",)
    assert source.key(0) == base.make_printable(os.fsdecode(name))


def test_tars_may_have_any_names_themselves(tmp_path: Path) -> None:
    in_tar(tmp_path, [b"a"])
    path = tmp_path / os.fsdecode(b"caf\xe9 {1}.tar")
    (tmp_path / "x.tar").rename(path)
    source = tars.open_tars(str(path), cache=tmp_path)
    assert source.key(0) == "caf\\udce9 {1}.tar/a"
    assert records.pack_record(record(source.key(0)))
