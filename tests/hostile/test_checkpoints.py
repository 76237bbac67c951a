"""Checkpoints that strangers made: refused by name, and none ends the process."""

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloud_storage
import jax
import jax.numpy as jnp
import ocdbt_files
import pytest
import tensorstore

from imagen_jax import config
from imagen_jax.io import checkpoints, closed_loops, workdir
from imagen_jax.io.errors import CorruptDataError

STATE = {"ema": {"w": jnp.ones((4, 64)), "b": jnp.ones((3,))}}
TEXTS = ["[" * 10**5, '{"a":' * 10**5, "[]", "3", "null", "", '"x"', "9" * 5000]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    written = checkpoints.Checkpoints(folder)
    written.save(1, STATE, config.load("tiny/base8")[0])
    written.wait()
    written.close()
    return folder


def _restore(folder: Any) -> None:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), STATE)
    found = checkpoints.Checkpoints(folder, read_only=True)
    try:
        found.restore(target)
    finally:
        found.close()


@pytest.mark.parametrize(
    "change",
    [
        {"chunks": [2**22, 2**12]},  # for which TensorStore aborts
        {"chunks": [4294967295, 64]},
        {"chunks": [2**40, 2**20]},
        {"shape": [2**40, 64]},
        {"shape": [2**40, 64], "chunks": [2**40, 64]},
        {"dtype": "|V9999999"},
        {"chunks": [0, 0]},
        {"shape": "x"},
        {"dtype": [["a", "<f4", [10**9]]]},  # an element of 4 GB
    ],
)
def test_an_array_of_other_sizes_is_refused(saved: Path, tmp_path: Path, change: dict) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    place = f"file://{tmp_path}/checkpoints/1/state/"
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": place}).result()
    metadata = json.loads(store.read("ema.w/.zarray").result().value) | change
    store.write("ema.w/.zarray", json.dumps(metadata).encode()).result()
    with pytest.raises(ValueError, match=r"checkpoints/1: the checkpoint is .*damaged"):
        _restore(tmp_path)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:5])
@pytest.mark.parametrize(
    "file", ["_CHECKPOINT_METADATA", "state/_METADATA", "state/_sharding", "about/metadata"]
)
def test_metadata_that_are_none_are_refused_or_not_needed(
    saved: Path, tmp_path: Path, file: str, text: str
) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoints" / "1" / file).write_text(text)
    try:
        _restore(tmp_path)
    except (ValueError, OSError):
        return
    assert file != "about/metadata"


FILES = [
    *("_CHECKPOINT_METADATA", "state/_METADATA", "state/_sharding", "state/manifest.ocdbt"),
    *("state/array_metadatas/process_0", "about/metadata", "commit_success.txt", "state/d/x"),
]


@pytest.mark.parametrize("file", FILES)
def test_what_is_no_file_or_claims_to_be_huge_is_refused(
    saved: Path, tmp_path: Path, file: str
) -> None:
    """A reader would wait for a pipe, and ask for as much memory as a device or a file has."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    place = tmp_path / "checkpoints" / "1" / file
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    with pytest.raises(
        ValueError, match=f"is incomplete or damaged.*{file} is no file, but a pipe"
    ):
        _restore(tmp_path)
    place.unlink()
    place.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="is no file, but a pipe or a device"):
        _restore(tmp_path)
    place.unlink()
    with place.open("wb") as opened:
        opened.truncate(1 << 40)
    if "/d/" not in file:
        with pytest.raises(ValueError, match=f"{file} has 1,099,511,627,776 bytes, more than"):
            _restore(tmp_path)


def test_folders_that_lie_too_deep_and_links_that_lead_nowhere(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    state = tmp_path / "checkpoints" / "1" / "state"
    (state / "d" / "nowhere").symlink_to("none")
    _restore(tmp_path)
    (state / "/".join("x" * 20)).mkdir(parents=True)
    with pytest.raises(ValueError, match="lies more than 16 folders deep"):
        _restore(tmp_path)


def test_a_list_of_very_many_arrays_is_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "checkpoints" / "1" / "state" / "_METADATA"
    document = json.loads(file.read_text())
    (one, *_) = document["tree_metadata"].values()
    document["tree_metadata"] = {f"('{number}',)": one for number in range(20_001)}
    file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"_METADATA has 20,001 tensors, more than 20,000"):
        _restore(tmp_path)


def test_answers_to_a_closed_loop_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many damaged arrays one is named; the others answer when nobody waits any more."""
    told: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", told.append)
    late = RuntimeError(closed_loops.CLOSED)
    with closed_loops.ignore_late_answers():
        pass
    with pytest.raises(KeyError), closed_loops.ignore_late_answers():
        raise KeyError
    for error in (late, RuntimeError("other")):
        sys.unraisablehook(SimpleNamespace(exc_type=type(error), exc_value=error))  # type: ignore[arg-type]
    assert [str(one.exc_value) for one in told] == ["other"]  # type: ignore[attr-defined]


def test_a_bucket_s_arrays_are_looked_at_before_tensorstore_opens_them(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    place = f"file://{tmp_path}/checkpoints/1/state/"
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": place}).result()
    metadata = json.loads(store.read("ema.w/.zarray").result().value)
    metadata["dtype"] = [["a", "<f4", [10**9]]]  # an element of 4 GB
    store.write("ema.w/.zarray", json.dumps(metadata).encode()).result()
    with cloud_storage.serve_here(monkeypatch) as bucket:
        for file in filter(Path.is_file, tmp_path.rglob("*")):
            bucket.put(f"run/{file.relative_to(tmp_path).as_posix()}", file.read_bytes())
        with pytest.raises(CorruptDataError, match=r"states the dtype .*, which no weights have"):
            _restore(workdir.as_path("gs://bucket/run"))


def _values(saved: Path) -> dict[bytes, ocdbt_files.Value]:
    """All that the database of a saved state has."""
    place = f"file://{saved}/checkpoints/1/state/"
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": place}).result()
    return {key: store.read(key).result().value for key in store.list().result()}


def _write_database(saved: Path, folder: Path, files: dict[str, bytes]) -> Path:
    """Put other files in place of a saved state's database."""
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    state = folder / "checkpoints" / "1" / "state"
    for name in ("d", "ocdbt.process_0"):
        shutil.rmtree(state / name, ignore_errors=True)
    (state / "d").mkdir()
    for name, data in files.items():
        (state / name).write_bytes(data)
    return state


def test_a_database_written_here_is_read(saved: Path, tmp_path: Path) -> None:
    node = ocdbt_files.leaf(_values(saved))
    root = ocdbt_files.Place(0, len(node))
    _write_database(saved, tmp_path, {"d/a": node, "manifest.ocdbt": ocdbt_files.manifest(root)})
    _restore(tmp_path)


@pytest.mark.parametrize(("height", "width"), [(1, 2), (8, 100), (254, 2)])
def test_nodes_of_a_database_that_share_others_are_refused(
    saved: Path, tmp_path: Path, height: int, width: int
) -> None:
    """Each level has as many more keys, to be listed, with right checksums and few bytes."""
    files = ocdbt_files.shared_tree(_values(saved), height=height, width=width)
    _write_database(saved, tmp_path, files)
    with pytest.raises(CorruptDataError, match="a node of its database belongs to several others"):
        _restore(tmp_path)


def test_a_node_and_a_description_of_gigabytes_are_refused(saved: Path, tmp_path: Path) -> None:
    node, size = ocdbt_files.leaf(_values(saved)), 3 << 30
    root = ocdbt_files.manifest(ocdbt_files.Place(0, size))
    state = _write_database(saved, tmp_path, {"d/a": node, "manifest.ocdbt": root})
    os.truncate(state / "d/a", size)  # it has no such bytes on the disk
    with pytest.raises(CorruptDataError, match=r"a node of its database has 3,221,225,472 bytes"):
        _restore(tmp_path)
    values = _values(saved) | {b"ema.w/.zarray": ("d/b", 0, size)}
    node = ocdbt_files.leaf(values)
    root = ocdbt_files.manifest(ocdbt_files.Place(0, len(node)))
    files = {"d/a": node, "d/b": b"", "manifest.ocdbt": root}
    shutil.rmtree(tmp_path)
    state = _write_database(saved, tmp_path, files)
    os.truncate(state / "d/b", size)
    with pytest.raises(CorruptDataError, match=r"ema\.w/\.zarray has at least 268,435,457 bytes"):
        _restore(tmp_path)


@pytest.mark.parametrize("place", ["../v", "d/../../v", "/dev/zero", "http://127.0.0.1:1/v", ".."])
def test_values_of_a_database_do_not_lead_out_of_it(
    saved: Path, tmp_path: Path, place: str
) -> None:
    values = _values(saved)
    chunk = values[b"ema.b/0"]
    assert isinstance(chunk, bytes)
    node = ocdbt_files.leaf(values | {b"ema.b/0": (place, 0, len(chunk))})
    root = ocdbt_files.manifest(ocdbt_files.Place(0, len(node)))
    state = _write_database(saved, tmp_path, {"d/a": node, "manifest.ocdbt": root})
    (state.parent / "v").write_bytes(chunk)
    with pytest.raises(CorruptDataError, match=r"is incomplete or damaged .*Invalid key"):
        _restore(tmp_path)
