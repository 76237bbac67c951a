"""Files that are read whole, by every reader of them: pipes, devices and huge ones are refused."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import t5_checkpoints
from cloud_storage import serve_here
from etils import epath

from imagen_jax import config, limits
from imagen_jax.cli import prompts, sample_inputs
from imagen_jax.data.sources import addresses, parquet, tfds_classes
from imagen_jax.data.synthetic.emoji import emoji_font
from imagen_jax.export import stablehlo
from imagen_jax.io import buckets, folder_files, json_reader, torch_file, whole_files, workdir
from imagen_jax.io.errors import CorruptDataError
from imagen_jax.metrics import statistics_file
from imagen_jax.text.checkpoints import load, remote_folders
from imagen_jax.text.tokenizer import Tokenizer

INPUTS = Path(__file__).parent / "inputs"
READERS: dict[str, Callable[[Path], object]] = {
    "init image": lambda file: sample_inputs._decoded(file, 1),
    "mask": lambda file: sample_inputs._is_transparent(file),
    "prompts": prompts.read_prompts,
    "mixture": lambda file: addresses.read_addresses(str(file)),
    "tokenizer": Tokenizer.load,
    "font": emoji_font.read_font,
    "program": stablehlo.read_program,
    "list": folder_files.read_text,
    "features": lambda file: tfds_classes._read(epath.Path(file)),
}


def test_a_pipe_in_place_of_weights_or_of_an_array_is_refused(tmp_path: Path) -> None:
    """Nobody may ever write to it."""
    file, folder = tmp_path / "file", tmp_path / "t5x"
    os.mkfifo(file)
    with pytest.raises(OSError, match="file is no file, but a pipe"):
        torch_file.read_state_dict(file)
    t5_checkpoints.Writer(inlined=r"^(?!.*wi_0)").write(folder, t5_checkpoints.per_layer())
    chunk = next(folder.glob("*wi_0*/0.0"))
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(ValueError, match=r"0\.0 is no file, but a pipe or a device"):
        load.load_parameters(folder)


def test_arrays_of_a_bucket_that_claim_to_be_huge_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "t5x"
    t5_checkpoints.Writer(inlined=r"^(?!.*wi_0)").write(folder, t5_checkpoints.per_layer())
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    metadata = next(name for name in files if name.endswith("wi_0.kernel/.zarray"))
    hostile = ({"shape": [10**12, 10**12]}, {"chunks": [2**32, 64]}, {"dtype": [["a", "<f4", [9]]]})
    with serve_here(monkeypatch) as bucket:
        for name, path in files.items():
            bucket.put(f"t5x/{name}", path.read_bytes())
        assert load.load_parameters("gs://bucket/t5x")
        for change in hostile:
            changed = json.loads(files[metadata].read_text()) | change
            bucket.put(f"t5x/{metadata}", json.dumps(changed).encode())
            with pytest.raises(ValueError, match=r"wi_0\.kernel .*states"):
                load.load_parameters("gs://bucket/t5x")


def test_statistics_state_no_more_than_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.npz"
    mean, spread = np.arange(3.0), np.eye(3)
    np.savez_compressed(file, mu=mean, sigma=np.asfortranarray(spread + np.tri(3)))
    found = statistics_file.read(file).gaussian
    assert found is not None
    assert (found.mean == mean).all()
    assert (found.covariance == spread + np.tri(3)).all()
    start = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': "
    for header in (b"(9999999,), }\n", b"(1000000000000,), }\n", b"(" * 900, b"(1,), 'x': ((\n"):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("mu.npy", start + header)
        with pytest.raises(ValueError, match=r"a\.npz has no arrays mu and sigma"):
            statistics_file.read(file)
    bomb = start + b"(1,), }\n" + bytes(2000)
    monkeypatch.setenv(limits.FILE_BYTES.variable, "1999")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("mu.npy", bomb)
    with pytest.raises(ValueError, match="IMAGEN_MAX_FILE_BYTES"):
        statistics_file.read(file)


@pytest.mark.parametrize("name", READERS)
def test_no_reader_takes_a_huge_file_a_pipe_or_a_device(tmp_path: Path, name: str) -> None:
    file = tmp_path / "file"
    with file.open("wb") as opened:
        opened.truncate(6 << 30)
    with pytest.raises((ValueError, OSError), match=r"more than 268,435,456|16,777,216 at most"):
        READERS[name](file)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises((ValueError, OSError), match=f"{file}"):
        READERS[name](file)
    with pytest.raises((ValueError, OSError), match="/dev/zero"):
        READERS[name](Path("/dev/zero"))


def test_objects_of_a_bucket_are_read_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(limits.FILE_BYTES.variable, "10")
    with serve_here(monkeypatch) as bucket:
        for count in (0, 9, 10, 11):
            bucket.put(f"s/{count}", b"x" * count)
        place = remote_folders.RemoteFolder("gs://bucket/s")
        for count in (0, 9, 10):
            assert buckets.read_whole(f"gs://bucket/s/{count}") == b"x" * count
            assert place.read(str(count)) == b"x" * count
        assert place.read("none") is None
        for read in (lambda: buckets.read_whole("gs://bucket/s/11"), lambda: place.read("11")):
            with pytest.raises(ValueError, match="11 has at least 11 bytes, more than 10; if you"):
                read()
        with pytest.raises(FileNotFoundError):
            buckets.read_whole("gs://bucket/s/none")


def test_an_object_is_read_whole_in_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_here(monkeypatch) as bucket:
        # Not read back by epath, whose driver may still be asking for a folder of that name.
        stored = config.to_json(config.load("tiny")[0]).encode()
        bucket.put("run/config.json", stored)
        bucket.put("run/empty", b"")
        file = workdir.as_path("gs://bucket/run/config.json")
        assert json_reader.read_object(file, remedy="-")["stage"]
        assert whole_files.read_whole(file) == stored
        assert whole_files.read_whole("gs://bucket/run/empty") == b""
        assert whole_files.read_beginning(file, 5) == stored[:5]
        bucket.requests.clear()
        for read in (whole_files.read_whole, lambda x: json_reader.read_object(x, remedy="-")):
            read(file)
            assert len(bucket.requests) == 1, bucket.requests
            bucket.requests.clear()


def test_parquet_that_aborts_is_contained_in_a_bucket_too(monkeypatch: pytest.MonkeyPatch) -> None:
    (crash,) = INPUTS.glob("parquet-crash*")
    with serve_here(monkeypatch) as bucket:
        bucket.put("s/a.parquet", crash.read_bytes())
        with pytest.raises((ValueError, CorruptDataError), match=r"gs://bucket/s/a\.parquet"):
            parquet.open_parquet("gs://bucket/s/a.parquet", image="image", text="text")
