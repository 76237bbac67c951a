"""`imagen data build SOURCE --out`: by processes, by Beam, killed midway, and given nonsense."""

import functools
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jpegs
import pytest

from imagen_jax import config
from imagen_jax.cli import data
from imagen_jax.data.prepare import jobs, multiprocess
from imagen_jax.data.prepare.jobs import EncodeJob
from imagen_jax.data.sources import addresses
from imagen_jax.data.store import skipped, store

PHOTOS = 48
SMALL, LONG, BROKEN = {4, 11}, {7, 22, 23}, {2, 13, 29}
OPTIONS = ["--encoder", "t5_1_1_tiny", "--sizes", "8", "16", "--max-length", "32"]
OPTIONS += ["--crop", "random", "--flip", "--max-aspect", "2.5", "--shard-records", "1"]


def photo(index: int) -> bytes:
    size = (15, 20) if index in SMALL else (900, 300) if index in LONG else (600 + index, 450)
    return jpegs.photo(size, seed=index)[: -200 if index in BROKEN else None]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of photos, some of which are too small, too long, or cut short."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(PHOTOS):
        (folder / f"{index:02d}.jpg").write_bytes(photo(index))
        (folder / f"{index:02d}.txt").write_text(f"photo number {index}")
    return f"folder:{folder}"


def start(out: Path, command: list[str], *more: str) -> subprocess.Popen:
    program = "from imagen_jax.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *command, *OPTIONS, "--out", str(out), *more],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen, code: int = 0) -> str:
    """What a process said in the end; what it should say."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return err.strip().splitlines()[-1] if code else out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def shards(folder: Path) -> dict[Path, int]:
    """When each shard was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("records-*.array_record")}


def workers(process: subprocess.Popen) -> list[int]:
    """Numbers of the processes that write shards."""
    (children,) = Path(f"/proc/{process.pid}/task").glob(f"{process.pid}/children")
    return [n for n in map(int, children.read_text().split()) if _writes(n)]


def _writes(number: int) -> bool:
    return b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(scope="module")
def encoded(photos: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The store that `imagen encode` writes."""
    out = tmp_path_factory.mktemp("encoded")
    end(start(out, ["encode", photos]))
    listed = {one.example for one in skipped.read_skipped(out)}
    assert listed == SMALL | LONG | BROKEN
    return contents(out)


@pytest.mark.faults
def test_killed_and_run_again_processes_write_what_encode_writes(
    tmp_path: Path, photos: str, encoded: dict[str, bytes]
) -> None:
    command = ["data", "build", photos, "--workers", "2"]
    process = start(tmp_path, command)
    wait_until(lambda: len(shards(tmp_path)) > 1)
    numbers = workers(process)
    os.kill(numbers[0], signal.SIGKILL)
    said = end(process, code=1)
    assert said.startswith(f"imagen data: error: a process that wrote shards of {tmp_path} died")
    assert not any(Path(f"/proc/{number}").exists() for number in numbers)

    before = shards(tmp_path)
    process = start(tmp_path, command)
    wait_until(lambda: len(shards(tmp_path)) > len(before) + 1)
    numbers = workers(process)
    assert len(numbers) == 2
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: not any(map(_alive, numbers)))
    assert store.INDEX not in contents(tmp_path)

    said = end(start(tmp_path, command))
    kept = PHOTOS - len(SMALL | LONG | BROKEN)
    assert f"{kept} (image, encoding) pairs of {photos} (train) in {tmp_path}" in said
    assert f"8 of {PHOTOS} examples were skipped: " in said
    assert contents(tmp_path) == encoded
    assert shards(tmp_path).items() >= before.items()  # nothing is done again


def _alive(number: int) -> bool:
    """Whether a process runs; one whose parent is gone may stay as a zombie."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_beam_writes_what_encode_writes(
    tmp_path: Path, photos: str, encoded: dict[str, bytes]
) -> None:
    pytest.importorskip("apache_beam")
    command = ["data", "build", photos, "--beam"]
    out = tmp_path / "pairs"
    said = end(start(out, command, "--", "--runner=Nonsense"), code=1)
    assert said.startswith("imagen data: error: Beam refuses its options: Unexpected pipeline")
    begun = set(contents(out))
    assert begun == {store.HEADER, store.EMPTY}
    assert f"{PHOTOS - 8} (image, encoding) pairs of {photos} (train)" in end(start(out, command))
    assert contents(out) == encoded


def test_a_beam_pipeline_that_fails_says_why_in_one_sentence(tmp_path: Path, photos: str) -> None:
    pytest.importorskip("apache_beam")
    out = tmp_path / "pairs"
    said = end(start(out, ["data", "build", photos, "--beam", "--min-side", "9999"]), code=1)
    assert f"the Beam pipeline for {out} failed: all of {photos} train was skipped: " in said


def job(folder: Path, photos: str) -> EncodeJob:
    return EncodeJob(
        address=addresses.parse_address(photos),
        data_dir=folder,
        text=config.Text(),
        sizes=(8,),
        folder=folder / "pairs",
        framing=config.Framing(),
        shard_records=4,
    )


def test_a_finished_store_is_left_alone(tmp_path: Path, photos: str) -> None:
    wanted = job(tmp_path, photos)
    written = multiprocess.build_store(wanted, processes=1, progress=False)
    assert written.store is not None
    assert written.counts.captions == written.store.count == PHOTOS - len(BROKEN)
    before = shards(wanted.folder)
    die = functools.partial(os._exit, 1)  # no process has anything to do
    assert multiprocess.build_store(wanted, start=die, progress=False).store == written.store
    (wanted.folder / store.INDEX).unlink()
    with pytest.raises(ValueError, match=r"neither store.json nor unfinished.json"):
        multiprocess.build_store(wanted, start=die, progress=False)
    assert shards(wanted.folder) == before


def test_a_process_that_dies_at_its_start_ends_it(tmp_path: Path, photos: str) -> None:
    with pytest.raises(ChildProcessError, match=r"a process that wrote shards of .* died"):
        multiprocess.build_store(
            job(tmp_path, photos), start=functools.partial(os._exit, 1), progress=False
        )


def test_what_a_process_refuses_ends_it(tmp_path: Path, photos: str) -> None:
    wanted = job(tmp_path, photos)
    hide = functools.partial(os.unlink, wanted.folder / store.HEADER)
    with pytest.raises(FileNotFoundError, match=r"a worker does not see .*unfinished.json"):
        multiprocess.build_store(wanted, processes=1, start=hide, progress=False)


def test_a_worker_refuses_a_source_that_has_changed(tmp_path: Path, photos: str) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in Path(photos.removeprefix("folder:")).glob("1*"):
        (folder / path.name).write_bytes(path.read_bytes())
    wanted = job(tmp_path, f"folder:{folder}")
    assert jobs.begin_job(wanted).missing == [0, 1, 2]
    (folder / "10.jpg").unlink()
    with pytest.raises(ValueError, match="count 10 there, 9 wanted"):
        jobs.open_resources(wanted)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["shapes/tiny", "--sizes", "8"], r"--sizes needs --out, the folder of the pairs"),
        (["shapes/tiny", "--flip"], r"--flip needs --out"),
        (["shapes/tiny", "--text-dtype", "int8"], r"--text-dtype needs --out"),
        (["shapes/tiny", "--beam"], r"--beam needs --out"),
        (["shapes/tiny", "--workers", "0"], r"--workers 0: must be"),
        (["tars:x.tar"], r"no dataset 'tars:x.tar'; .*any source can be prepared .*--out"),
        (["emoji", "--out", "x"], r"--out x needs --for CONFIG, .* or --encoder and --sizes"),
        (["emoji", "--out", "s3://b/x", *OPTIONS], r"--out s3://b/x: s3:// is not read here"),
        (["emoji", "--out", "", *OPTIONS], r"the name of the folder is empty"),
        (["emoji", "--out", "x", *OPTIONS, "--font", "f"], r"--font f is for drawing emoji"),
        (["emoji", "--out", "x", *OPTIONS, "--beam", "--workers", "2"], r"--workers 2: Beam has"),
        (["emoji", "--out", "x", *OPTIONS, "--", "--runner=X"], r"--runner=X after -- .* --beam"),
        (
            ["coco", "--out", "x", *OPTIONS],
            r"no data source 'coco': no file or folder here has that name",
        ),
        (["tars:gone.tar", "--out", "x", *OPTIONS], r"gone.tar is neither a file nor a folder"),
    ],
)
def test_nonsense_is_refused(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises((ValueError, OSError, SystemExit)) as refused:
        data.run(["build", *arguments])
    said = capsys.readouterr().err if refused.type is SystemExit else str(refused.value)
    assert re.search(sentence, " ".join(said.replace("│", " ").split()))


def test_beam_options_are_for_build_alone() -> None:
    with pytest.raises(ValueError, match="only `imagen data build --beam` takes options after --"):
        data.run(["check", "shapes/tiny", "--", "--runner=X"])


def test_without_beam_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "apache_beam" else find(name)
    )
    with pytest.raises(ValueError, match=r"pip install 'imagen_jax\[beam\]'"):
        data.run(["build", "shapes/tiny", "--out", "x", *OPTIONS, "--beam"])
