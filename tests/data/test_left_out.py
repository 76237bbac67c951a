"""Files that a source leaves out are listed with the examples that a store lacks."""

import io
import json
import tarfile
from pathlib import Path

import jpegs
import pytest

from imagen_jax.cli import data, encode
from imagen_jax.data.sources.base import SkippedNames
from imagen_jax.data.store import skipped, store
from imagen_jax.data.store.skipped import Skipped

OPTIONS = ["--encoder", "t5_1_1_tiny", "--max-length", "32"]


def _tar(path: Path) -> Path:
    """Six images: 1 was not downloaded, 3 has no caption, 4 is broken."""
    with tarfile.open(path, "w") as tar:

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

        for index in range(6):
            add(f"{index}.jpg", b"no image" if index == 4 else jpegs.photo((20, 20), seed=index))
            if index != 3:
                add(f"{index}.txt", b"a thing")
            status = "failed_to_download" if index == 1 else "success"
            add(f"{index}.json", json.dumps({"status": status}).encode())
    return path


@pytest.mark.parametrize("command", ["encode", "build"])
def test_what_the_tars_leave_out_is_printed_and_listed(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tar, out = _tar(tmp_path / "0.tar"), tmp_path / "pairs"
    arguments = [str(tar), *OPTIONS, "--sizes", "8", "--out", str(out)]
    if command == "encode":
        encode.run(arguments)
    else:
        data.run(["build", *arguments, "--workers", "1"])
    said = capsys.readouterr().out
    assert "left out 1 image without caption (0.tar: 3); 1 not downloaded (0.tar: 1)" in said
    assert "1 of 4 examples were skipped: 1 unreadable" in said
    listed = skipped.read_skipped(out)
    assert [(one.example, one.key, one.reason) for one in listed] == [
        (2, "0.tar/4", "unreadable"),
        (None, "0.tar: 3", "image without caption"),
        (None, "0.tar: 1", "not downloaded"),
    ]
    found = store.open_store(out)
    assert (found.count, found.examples) == (3, 4)
    assert not (out / skipped.OF_SOURCE).exists()


def test_names_that_are_not_kept_are_counted() -> None:
    lines = skipped.list_left_out({"hidden": SkippedNames([".a", ".b"], 1002)})
    assert lines[-1] == Skipped(None, "", "hidden", "1,000 more, which are not named")
    assert [line.key for line in lines] == [".a", ".b", ""]


def test_nothing_kept_leaves_no_half_store(tmp_path: Path) -> None:
    command = [str(_tar(tmp_path / "0.tar")), *OPTIONS, "--out", str(tmp_path / "pairs")]
    with pytest.raises(ValueError, match=r"3 smaller than 64 pixels.* or smaller sizes"):
        encode.run([*command, "--sizes", "64"])
    assert [path.name for path in (tmp_path / "pairs").iterdir()] == [skipped.FILE]
    with pytest.raises(FileNotFoundError, match="no encoded dataset at"):
        store.open_store(tmp_path / "pairs")
    encode.run([*command, "--sizes", "16"])
    assert store.open_store(tmp_path / "pairs").count == 3
