"""Files that are read whole: neither devices nor pipes, and no more than the limit."""

import os
from pathlib import Path

import pytest

from imagen_jax import limits
from imagen_jax.io import whole_files

FEW = limits.Limit("IMAGEN_MAX_FEW_BYTES", 10, "bytes")


def test_a_file_as_large_as_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    assert whole_files.read_whole(tmp_path / "a", FEW) == b"0123456789"
    assert whole_files.read_whole("/proc/self/stat")  # a file without a size


def test_a_larger_file_is_refused_by_its_size(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(6 << 30)
    with pytest.raises(ValueError, match=r"a has 6,442,450,944 bytes, more than 268,435,456; "):
        whole_files.read_whole(tmp_path / "a")
    with pytest.raises(ValueError, match=r"stat has at least \d+ bytes, more than 10; "):
        whole_files.read_whole("/proc/self/stat", FEW)


def test_no_more_memory_is_asked_for_than_a_file_has(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0")
    endless = limits.Limit("IMAGEN_MAX_ENDLESS_BYTES", 1 << 50, "bytes")
    assert whole_files.read_whole(tmp_path / "a", endless) == b"0"


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place, kind in ((tmp_path / "pipe", "pipe"), ("/dev/zero", "device"), (tmp_path, "folder")):
        with pytest.raises(OSError, match=f"{place} is no file, but a {kind}: give a file"):
            whole_files.read_whole(place)
    with pytest.raises(FileNotFoundError):
        whole_files.read_whole(tmp_path / "none")


def test_refusals_leave_nothing_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(OSError, match="no file"):
            whole_files.read_whole(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
