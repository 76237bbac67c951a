"""Places as users name them."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagen_jax.cli import parsing, train
from imagen_jax.data.sources import addresses
from imagen_jax.io import paths, remote_files, workdir
from imagen_jax.text.checkpoints.remote_folders import RemoteFolder

SCHEMES = ("s3", "http", "https", "hf", "file", "abfs", "r2", "webhdfs", "S3", "gcs")
NAMES = st.text(st.characters(exclude_characters="/:~\0", exclude_categories=["Cs"]), min_size=1)


@given(NAMES)
def test_what_is_no_address_stays_as_it_is(name: str) -> None:
    for text in (name, f"./{name}", f"/{name}/x", f"a/~{name}"):
        assert paths.local_path(text) == Path(text)
        assert paths.path_or_address(text) == text


def test_a_tilde_is_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.local_path("~/x") == Path("/home/me/x")
    assert paths.path_or_address("~") == "/home/me"
    assert paths.local_path("~root/x") == Path(os.path.expanduser("~root")) / "x"
    assert workdir.as_path("~/run") == Path("/home/me/run")
    with pytest.raises(ValueError, match="the name of the folder is empty"):
        workdir.as_path("")
    assert RemoteFolder.from_path("~/t5").url == "/home/me/t5"
    with pytest.raises(
        ValueError, match=r"~nn is nobody's home here; a file of that name is \./~nn"
    ):
        paths.local_path("~nn/x")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "read",
    [
        paths.local_path,
        paths.path_or_address,
        workdir.as_path,
        RemoteFolder.from_path,
        lambda text: paths.local_path(Path(text)),
        lambda text: remote_files.find_files(text, ending="tar"),
        lambda text: addresses.open_source(addresses.parse_address(f"folder:{text}"), "data"),
    ],
)
def test_other_schemes_are_refused_by_name(scheme: str, read) -> None:
    with pytest.raises(ValueError, match=f"^{scheme}://bucket/x: {scheme.lower()}:// is not read"):
        read(f"{scheme}://bucket/x")


def test_every_path_among_options_is_read_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    argv = ["tiny/base8", "--workdir=~/w", "--data-dir=~/d", "--init-from=~/i", "--pairs=~/p"]
    options, (experiment,), _ = train.parse([*argv, "--text.encoder=~/t5", "--text.tokenizer=~/m"])
    assert options.workdir == "/home/me/w"
    assert options.init_from == "/home/me/i"
    assert (options.data_dir, options.pairs) == (Path("/home/me/d"), "/home/me/p")
    assert (experiment.text.encoder, experiment.text.tokenizer) == ("/home/me/t5", "/home/me/m")
    asked = parsing.expand_paths(train.Options(workdir="gs://b/r", pairs="gs://b/p"))
    assert (asked.workdir, asked.pairs) == ("gs://b/r", "gs://b/p")


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/passwd", "", ".", "a/..", "a\nb", "\x1b[2J", "..", "a\0b"]
)
def test_a_path_from_a_file_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"^index\.json names .*which is no file in its") as told:
        paths.path_inside(tmp_path, name, by="index.json")
    assert str(told.value).isprintable()


def test_a_path_from_a_file_stays_in_its_folder_with_its_links(tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "x").touch()
    (folder / "a").symlink_to(outside)
    (folder / "b").symlink_to(outside / "x")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "c").symlink_to("d/x")
    for name in ("a/x", "b", "a"):
        with pytest.raises(ValueError, match=rf"folder/{name}, which i names, is a link out of"):
            paths.path_inside(folder, name, by="i")
    for name in ("c", "d/x", "loop", "not there"):
        assert paths.path_inside(folder, name, by="i") == folder / name
    (tmp_path / "link").symlink_to(folder)  # how a user names the folder does not matter
    assert paths.path_inside(tmp_path / "link", "c", by="i") == tmp_path / "link" / "c"


def test_snapshots_of_hugging_faces_cache_are_links_to_its_files(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "model" / "snapshots" / "abc", tmp_path / "model" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (snapshot / "w").symlink_to("../../blobs/123")
    assert paths.path_inside(snapshot, "w", by="i") == snapshot / "w"
    (snapshot / "text").mkdir()
    (snapshot / "text" / "w").symlink_to("../../../blobs/123")
    assert paths.path_inside(snapshot / "text", "w", by="i") == snapshot / "text" / "w"
    (snapshot / "v").symlink_to("../../refs/123")
    with pytest.raises(ValueError, match="is a link out of"):
        paths.path_inside(snapshot, "v", by="i")
