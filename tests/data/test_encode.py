"""`imagen encode` as it is run: by two processes, killed and run again, and given nonsense."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jpegs
import numpy as np
import pytest
import tensorflow_datasets as tfds
from host_processes import free_port

from imagen_jax import config
from imagen_jax.cli import data, encode, train
from imagen_jax.data.images import decode
from imagen_jax.data.prepare import jobs, summary
from imagen_jax.data.sources import addresses
from imagen_jax.data.store import skipped, store
from imagen_jax.text.encoder import TextEncoder

PROGRAM = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
from imagen_jax.cli import main
main()
"""
SOURCE = ["shapes/tiny", "--encoder", "t5_1_1_tiny", "--sizes", "8", "16", "--max-length", "32"]


def start(data_dir: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, "encode", *arguments, "--data-dir", str(data_dir)]
    return subprocess.Popen(
        command,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(data_dir / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encode")
    data.run(["build", "shapes/tiny", "--data-dir", str(folder), "--workers", "1"])
    return folder


@pytest.fixture(scope="module")
def whole(data_dir: Path) -> dict[str, bytes]:
    """A store of one record a shard, written by one process at once."""
    out = data_dir / "whole"
    said = finish(start(data_dir, *SOURCE, "--shard-records", "1", "--out", str(out)))
    assert f"40 (image, encoding) pairs of shapes/tiny (train) in {out}" in said
    assert "of the tokens computed are useful" in said
    return contents(out)


def test_pairs_are_the_encoders_own(data_dir: Path, whole: dict[str, bytes]) -> None:
    encoder = TextEncoder.load("t5_1_1_tiny", max_length=32)
    found = store.open_store(data_dir / "whole")
    assert (found.identity, found.vocabulary) == (encoder.identity, encoder.vocabulary)
    source = found.source()
    captions = [source[i].captions[0] for i in range(found.count)]
    text, mask = encoder.encode([*captions, ""])
    for index in range(found.count):
        kept = source[index].texts[0].array().astype(np.float32)
        np.testing.assert_allclose(kept, text[index][mask[index]], rtol=2**-8, atol=2e-5)
    empty = found.empty().array().astype(np.float32)
    np.testing.assert_allclose(empty, text[-1][mask[-1]], rtol=2**-8, atol=2e-5)


@pytest.mark.faults
def test_killed_and_run_again_it_gives_the_same_bytes(
    data_dir: Path, whole: dict[str, bytes]
) -> None:
    out = data_dir / "killed"
    command = [*SOURCE, "--shard-records", "1", "--out", str(out)]
    process = start(data_dir, *command)
    while process.poll() is None and len(list(out.glob("records-*.array_record"))) < 3:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    written = {name: content for name, content in contents(out).items() if "tmp" not in name}
    assert store.INDEX not in written  # it was killed before the end
    before = {path: path.stat().st_mtime_ns for path in out.glob("records-*.array_record")}
    finish(start(data_dir, *command))
    assert contents(out) == whole
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing done again


def share(data_dir: Path, command: list[str]) -> int:
    """Two processes run a command; how many of them say that the store is complete."""
    address = f"127.0.0.1:{free_port()}"
    command = [*command, "--coordinator", address, "--processes", "2", "--process-id"]
    started = [start(data_dir, *command, str(i)) for i in range(2)]
    ended = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    return sum("(image, encoding) pairs of" in out and " (train) in " in out for out, _ in ended)


@pytest.mark.slow  # the default suite has the test of framed images
def test_two_processes_give_the_store_of_one(data_dir: Path, whole: dict[str, bytes]) -> None:
    out = data_dir / "two"
    assert share(data_dir, [*SOURCE, "--shard-records", "1", "--out", str(out)]) >= 1
    assert contents(out) == whole


def test_a_wrong_vocabulary_or_identity_is_refused_at_training(
    data_dir: Path, whole: dict[str, bytes]
) -> None:
    for field, wrong in (("vocabulary", "0" * 16), ("identity", "1" * 16)):
        arguments = ["tiny/base8", "--pairs", str(data_dir / "whole"), f"--text.{field}", wrong]
        with pytest.raises(ValueError, match=f"but text.{field}={wrong!r}"):
            train.run([*arguments, "--workdir", str(data_dir / "w")])


PHOTOS = 30
SMALL, LONG, BROKEN = {4, 11}, {7, 22, 23}, {2, 13, 29}
OPTIONS = ["--encoder", "t5_1_1_tiny", "--sizes", "8", "16", "--max-length", "32"]
OPTIONS += ["--crop", "random", "--flip", "--max-aspect", "2.5", "--shard-records", "2"]


class Snapshots(tfds.core.GeneratorBasedBuilder):
    """JPEGs of all sizes; some are too small, too long, or cut short."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
        features = tfds.features.FeaturesDict({"image": image, "caption": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: object) -> dict:
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for index in range(PHOTOS):
            yield index, {"image": io.BytesIO(photo(index)), "caption": f"snapshot {index}"}


def photo(index: int) -> bytes:
    size = (15, 20) if index in SMALL else (90, 30) if index in LONG else (40 + index, 30)
    return jpegs.photo(size, seed=index)[: -200 if index in BROKEN else None]


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snapshots")
    Snapshots(data_dir=folder, file_format="array_record").download_and_prepare(
        download_dir=folder / "downloads"
    )
    return folder


@pytest.fixture(scope="module")
def framed(snapshots: Path) -> dict[str, bytes]:
    """All snapshots that can be read and pass, written by one process at once."""
    out = snapshots / "framed"
    said = finish(start(snapshots, "tfds:snapshots", *OPTIONS, "--out", str(out)))
    kept = PHOTOS - len(SMALL | LONG | BROKEN)
    assert f"{kept} (image, encoding) pairs of tfds:snapshots (train) in {out}" in said
    assert (
        f"8 of {PHOTOS} examples were skipped: 3 longer than 2.5 times its short side, "
        f"3 unreadable, 2 smaller than 16 pixels; each is listed in {out / skipped.FILE}"
    ) in said
    return contents(out)


def test_pictures_of_any_size_are_framed_and_what_is_skipped_is_listed(
    snapshots: Path, framed: dict[str, bytes]
) -> None:
    found = store.open_store(snapshots / "framed")
    listed = {one.example for one in skipped.read_skipped(found.folder)}
    assert listed == SMALL | LONG | BROKEN
    source = found.source()
    captions = [source[place].captions[0] for place in range(found.count)]
    assert captions == [f"snapshot {i}" for i in range(PHOTOS) if i not in listed]
    for place in range(found.count):
        for side, image in source[place].images.items():
            assert decode.decode_image(image).shape == (side, side, 3)


@pytest.mark.faults
def test_framed_and_killed_and_run_again_it_gives_the_same_bytes(
    snapshots: Path, framed: dict[str, bytes]
) -> None:
    out = snapshots / "killed"
    command = ["tfds:snapshots", *OPTIONS, "--out", str(out)]
    process = start(snapshots, *command)
    while process.poll() is None and len(list(out.glob("records-*.array_record"))) < 3:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (out / store.INDEX).exists()
    said = finish(start(snapshots, *command))
    assert f"8 of {PHOTOS} examples were skipped: " in said  # also those of the first process
    assert contents(out) == framed


def test_framed_by_two_processes_it_gives_the_same_bytes(
    snapshots: Path, framed: dict[str, bytes]
) -> None:
    out = snapshots / "two"
    assert share(snapshots, ["tfds:snapshots", *OPTIONS, "--out", str(out)]) >= 1
    assert contents(out) == framed


def test_the_function_writes_what_the_command_writes(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_command, by_function = data_dir / "by_command", data_dir / "by_function"
    encode.run([*SOURCE, "--data-dir", str(data_dir), "--out", str(by_command)])
    job = jobs.EncodeJob(
        address=addresses.parse_address("shapes/tiny"),
        data_dir=data_dir,
        text=jobs.text_settings("t5_1_1_tiny", max_length=32),
        sizes=(8, 16),
        folder=by_function,
        framing=config.Framing(),
    )
    written = jobs.prepare_dataset(job, progress=False)
    assert contents(by_function) == contents(by_command)
    said = summary.summarize_store(written, job).replace("by_function", "by_command")
    assert capsys.readouterr().out == f"{said}\n"
