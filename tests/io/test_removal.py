"""Folders of any depth are removed, and what links lead to stays."""

import contextlib
import itertools
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagen_jax.io import removal


def _deep(folder: Path, levels: int) -> None:
    """Make folders in each other, with a file in each."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("deep", dir_fd=here)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


@contextlib.contextmanager
def _few_descriptors() -> Iterator[None]:
    """Let no more than a few files be open: deep folders are many, which takes long."""
    now, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(name) for name in os.listdir("/proc/self/fd")}
    free = itertools.islice((number for number in itertools.count() if number not in taken), 10)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(free) + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (now, hard))


def test_a_folder_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    for name in ("a/b", "a/c", "d/e"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text("x")
        (folder / name / "link").symlink_to(outside)
    os.mkfifo(folder / "pipe")
    _deep(folder, 120)
    _deep(folder / "a", 20)
    with _few_descriptors():
        removal.remove_folder(folder)
    assert os.listdir(tmp_path) == ["outside"]
    assert (outside / "file").read_text() == "x"


def test_a_link_and_a_folder_that_is_not_there_are_no_folders(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    for name in ("link", "none"):
        with pytest.raises(OSError, match=name):
            removal.remove_folder(tmp_path / name)
    assert (tmp_path / "there").is_dir()
