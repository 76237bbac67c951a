"""A file or a folder appears complete or not at all."""

import secrets
from pathlib import Path

import pytest

from imagen_jax.io import workdir
from imagen_jax.io.atomic import Content, check_names, create_atomic, new_folder, write_atomic


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


@pytest.mark.parametrize("content", ["new", b"new", lambda target: target.write_text("new")])
@pytest.mark.parametrize("write", [write_atomic, create_atomic])
def test_a_link_under_the_temporary_name_is_not_followed(
    tmp_path: Path, monkeypatch, write, content: Content
) -> None:
    """Somebody else who may write there has guessed it."""
    monkeypatch.setattr(secrets, "token_hex", lambda count: "0" * 2 * count)
    (tmp_path / "mine").write_text("mine")
    (tmp_path / f"file.{16 * '0'}.tmp").symlink_to(tmp_path / "mine")
    with pytest.raises(FileExistsError):
        write(tmp_path / "file", content)
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "file").exists()


def test_a_link_under_the_name_of_a_config_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for name in ("config.json", "config.json.tmp"):
        (tmp_path / name).symlink_to(tmp_path / "mine")
    workdir.write(tmp_path / "config.json", "{}")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "config.json").read_text() == "{}"


def test_names_of_unfinished_files_are_not_guessed(tmp_path: Path) -> None:
    seen = set()
    for _ in range(20):
        write_atomic(tmp_path / "file", lambda target: seen.add(target.name) or target.touch())
    assert len(seen) == 20
    assert all(len(name) == len("file..tmp") + 16 for name in seen)


def test_folders_under_the_names_of_files_are_refused(tmp_path: Path) -> None:
    check_names(tmp_path / "none", files=("a",))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("")
    (tmp_path / "c").symlink_to("a")  # a file of that name replaces it
    check_names(tmp_path, files=("b", "c"), folders=("a",))
    with pytest.raises(ValueError, match=r"c is a link, to .*a, and nothing is written through it"):
        check_names(tmp_path, folders=("c",))
    with pytest.raises(ValueError, match="a is a folder, and a file of that name is to be written"):
        check_names(tmp_path, files=("a",))
    with pytest.raises(ValueError, match="b is no folder, and one of that name is to be made"):
        check_names(tmp_path, folders=("b",))
