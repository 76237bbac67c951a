"""Archives that strangers made: what is in them takes no more memory than they have bytes."""

import io
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch_pickle

from imagen_jax.data.synthetic.emoji import package_files, set_readers
from imagen_jax.io import torch_file
from imagen_jax.metrics import statistics_file
from imagen_jax.sample import kept_batches

SIDE = 1 << 20  # numbers of a storage
DEEP = 40  # tuples in each other, each of the same one twice
WHOLE = torch_pickle.tensor("0", count=4, shape=(4,), strides=(1,))


def _zip(path: Path, members: list[tuple[str, bytes, int, int]]) -> Path:
    """Members by name, stored bytes, method and stated size, as zipfile would not write them."""
    body, listing = b"", b""
    for name, data, method, size in members:
        facts = struct.pack("<HHIIIHH", 0, 0, 0, len(data), size, len(name), 0)
        start = struct.pack("<HI", 0, 0) + struct.pack("<I", len(body))
        listing += b"PK\1\2" + struct.pack("<HHHH", 20, 20, 0, method) + facts
        listing += struct.pack("<HH", 0, 0) + start + name.encode()
        body += b"PK\3\4" + struct.pack("<HHH", 20, 0, method) + facts + name.encode() + data
    count = len(members)
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(listing), len(body), 0)
    path.write_bytes(body + listing + b"PK\5\6" + end)
    return path


def _packed(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(bytes(size)) + packer.flush()


def _overlapping(path: Path, names: list[str], data: bytes) -> Path:
    """An archive whose members all are the same bytes."""
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr(names[0], data)
        (first,) = opened.infolist()
        for name in names[1:]:
            other = zipfile.ZipInfo(name)
            other.header_offset, other.CRC = first.header_offset, first.CRC
            other.file_size = other.compress_size = len(data)
            opened.filelist.append(other)
        opened._didModify = True  # type: ignore[attr-defined]  # so that the list is written
    return path


def test_a_member_unpacks_to_no_more_than_it_states(tmp_path: Path) -> None:
    member = ("mu.npy", _packed(1 << 28), zipfile.ZIP_DEFLATED, 200)
    file = _zip(tmp_path / "a.npz", [member, ("sigma.npy", b"", 0, 0)])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="has no arrays mu and sigma"):
            statistics_file.read(file)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_at_once_are_refused(tmp_path: Path, method: int) -> None:
    file = _zip(tmp_path / "a.npz", [("mu.npy", b"x", method, 200)])
    with pytest.raises(ValueError, match=rf"'mu\.npy' is compressed by method {method}"):
        statistics_file.read(file)


def test_a_state_dict_is_not_compressed(tmp_path: Path) -> None:
    pickled = torch_pickle.state_dict({"a": WHOLE})
    members = [("archive/data.pkl", pickled, 0, len(pickled))]
    members.append(("archive/byteorder", _packed(1 << 24), zipfile.ZIP_DEFLATED, 6))
    with pytest.raises(ValueError, match=r"no state dict of PyTorch: a member is compressed"):
        torch_file.read_state_dict(_zip(tmp_path / "a.pth", members))


def test_members_that_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    names = ["archive/data.pkl", *(f"archive/data/{n}" for n in range(100))]
    file = _overlapping(tmp_path / "a.pth", names, bytes(4096))
    with pytest.raises(ValueError, match=r"its members have 413,696 bytes, and it has"):
        torch_file.read_state_dict(file)
    image = io.BytesIO()
    np.save(image, np.zeros((1, 32, 32, 3), np.uint8))
    file = _overlapping(tmp_path / "a.npz", [f"{n}.npy" for n in range(50)], image.getvalue())
    with pytest.raises(ValueError, match=r"holds no images that were kept \(its members have"):
        kept_batches.read_batches(file)


@pytest.mark.parametrize("strides", [(0,), (1,)])
def test_a_storage_is_not_copied_very_often(tmp_path: Path, strides: tuple[int, ...]) -> None:
    view = torch_pickle.tensor("0", count=SIDE, shape=(SIDE,), strides=strides)
    pickled = torch_pickle.state_dict({f"t{number}": view for number in range(100)})
    file = torch_pickle.write_zip(tmp_path / "a.pth", pickled, {"data/0": bytes(4 * SIDE)})
    with pytest.raises(ValueError, match="more than 4 times those of its storages, 4,194,304"):
        torch_file.read_state_dict(file)


def _nested() -> bytes:
    """Instructions that leave a tuple of itself on the stack, and in place `DEEP` of the memo."""
    made = b")q\0"
    for depth in range(DEEP):
        made += bytes([*b"h", depth, *b"h", depth, 0x86, *b"q", depth + 1])
    return made


NESTED = bytes([*b"h", DEEP])
STORAGE = torch_pickle.text("storage") + b"ctorch\nFloatStorage\n"
COUNT = torch_pickle.text("cpu") + torch_pickle.number(4) + b"tQ"
NAMED = torch_pickle.text("a")


@pytest.mark.parametrize(
    "rest",
    [
        b"}" + NESTED + b"K\1s",
        b"}(" + NESTED + b"K\1u",
        b"}" + NAMED + b"(" + STORAGE + NESTED + COUNT + b"s",
        b"}" + NAMED + b"(" + NESTED + b"ctorch\nFloatStorage\n" + NAMED + COUNT + b"s",
        b"}" + NAMED + NESTED + b")Rs",
        b"}" + NAMED + NESTED + NESTED + b"\x93s",
        b"}" + NAMED + NESTED + b"s",
        b"})" + b"\x85" * 100_000 + b"K\1s",
    ],
    ids=["key", "keys", "storage", "kind", "call", "name", "tensor", "deep"],
)
def test_a_tuple_of_tuples_is_neither_hashed_nor_written(tmp_path: Path, rest: bytes) -> None:
    data = b"\x80\x02" + _nested() + rest + b"."
    with pytest.raises(ValueError, match=r"a\.pth is no state dict of PyTorch: its "):
        torch_file.read_state_dict(torch_pickle.write_zip(tmp_path / "a.pth", data, {}))


def _sparse(real: int) -> bytes:
    """A header of GNU's form for a file of `real` bytes, of which 512 are stored."""
    member = tarfile.TarInfo("package/1f419.png")
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 512
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:482] = bytes(96)
    header[386:410] = b"%011o\0%011o\0" % (0, 512)
    header[482:495] = b"\0\x80" + real.to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_a_sparse_file_of_a_tar_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "p.tar"
    file.write_bytes(_sparse(1 << 40) + bytes(512) + bytes(1024))
    assert package_files.read_files(file, set_readers.WANTED) == {}
    header = {"GNU.sparse.map": "0,512", "GNU.sparse.size": str(1 << 40)}
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("package/1f419.png")
        member.size, member.pax_headers = 512, header | {"GNU.sparse.numblocks": "1"}
        tar.addfile(member, io.BytesIO(bytes(512)))
    assert package_files.read_files(file, set_readers.WANTED) == {}
