"""A file or a folder appears complete or not at all."""

from pathlib import Path

import pytest

from imagen_jax.io.atomic import Content, new_folder, write_atomic


@pytest.mark.parametrize("content", ["new", b"new", lambda target: target.write_text("new")])
def test_a_file_takes_an_earlier_ones_place(tmp_path: Path, content: Content) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    write_atomic(file, content)
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_the_earlier_file_stays_while_another_is_written(tmp_path: Path) -> None:
    file, seen = tmp_path / "file", []
    file.write_text("old")

    def write(target: Path) -> None:
        target.write_text("half")
        seen.append(file.read_text())
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_atomic(file, write)
    assert seen == ["old"]
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_two_who_write_the_same_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    file = tmp_path / "file"

    def write(target: Path) -> None:
        target.write_text("first")
        write_atomic(file, "second")
        assert target.read_text() == "first"

    write_atomic(file, write)
    assert file.read_text() == "first"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write() -> None:
        with new_folder(tmp_path / "folder") as unfinished:
            (unfinished / "file").write_text("half")
            assert not (tmp_path / "folder").exists()
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write()
    assert list(tmp_path.iterdir()) == []
