"""Files that are read whole, by every reader of them: pipes, devices and huge ones are refused."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cloud_storage import serve_here
from etils import epath

from imagen_jax import config, limits
from imagen_jax.cli import prompts, sample_inputs
from imagen_jax.data.sources import addresses, parquet, tfds_classes
from imagen_jax.data.synthetic.emoji import emoji_font
from imagen_jax.export import stablehlo
from imagen_jax.io import buckets, folder_files, json_reader, whole_files, workdir
from imagen_jax.io.errors import CorruptDataError
from imagen_jax.text.checkpoints import remote_folders
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
        bucket.put("run/config.json", config.to_json(config.load("tiny")[0]).encode())
        bucket.put("run/empty", b"")
        file = workdir.as_path("gs://bucket/run/config.json")
        assert json_reader.read_object(file, remedy="-")["stage"]
        assert whole_files.read_whole(file) == file.read_bytes()
        assert whole_files.read_whole("gs://bucket/run/empty") == b""
        assert whole_files.read_beginning(file, 5) == file.read_bytes()[:5]
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
