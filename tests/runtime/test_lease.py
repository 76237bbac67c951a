"""One process at a time writes into a folder, here or in a bucket."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cloud_storage
import fsspec
import pytest

from imagen_jax.runtime import lease
from imagen_jax.runtime.lease import BEAT, FILE, SILENCE, Lease, hold
from imagen_jax.runtime.lease_file import open_lease_file
from imagen_jax.runtime.lease_holder import Holder

HOLDS = """
import sys, time
from imagen_jax.runtime.lease import hold
with hold(sys.argv[1], command="imagen train", option="--workdir"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["here", "bucket"])
def folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A folder of each kind."""
    if request.param == "here":
        yield str(tmp_path / "run")
        return
    with cloud_storage.serve() as (_, env):
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        fsspec.get_filesystem_class("gs").clear_instance_cache()
        yield "gs://bucket/run"
    fsspec.get_filesystem_class("gs").clear_instance_cache()


def made(folder: str, sleep: Callable[[float], None] = time.sleep, **other) -> Lease:
    """A lease of this process, or with `other` one that cannot be told from another's."""
    holder = dataclasses.replace(Holder.here("imagen train"), **other)
    remedy = "give another --workdir"
    return Lease(
        open_lease_file(folder, FILE), folder, remedy, holder, sleep=sleep, say=lambda _: None
    )


def holds(folder: str) -> subprocess.Popen[str]:
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, folder], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_until_the_first_is_killed(folder: str) -> None:
    with holds(folder) as first:
        says = rf"process {first.pid} of .*imagen train.* since 20.* UTC.*another --workdir"
        with pytest.raises(ValueError, match=says), hold(folder, command="b", option="--workdir"):
            pass
        first.send_signal(signal.SIGKILL)
        first.wait()
        with hold(folder, command="b", option="--workdir") as second:
            second.check()
    assert open_lease_file(folder, FILE).read() is None  # given back


def test_a_clock_that_was_changed_frees_no_holder_that_lives(folder: str) -> None:
    mine = made(folder)
    mine.take()
    later = made(folder)
    later.clock = lambda: time.time() + 1e6
    with pytest.raises(ValueError, match="it still runs"):
        later.take()


def test_a_number_that_is_used_again_is_not_taken_for_the_old_process(folder: str) -> None:
    made(folder, begun="1").take()
    made(folder).take()


@pytest.mark.parametrize("jump", [0.0, 1e6])
def test_a_holder_elsewhere_is_free_after_silence_alone(folder: str, jump: float) -> None:
    """The host's name says nothing: containers may share one."""
    made(folder, machine="another boot").take()
    slept: list[float] = []
    mine = made(folder, slept.append)
    mine.clock = lambda: time.time() + jump
    mine.take()
    assert sum(slept) == pytest.approx(2 * BEAT if jump else SILENCE, abs=BEAT)


def test_a_holder_elsewhere_that_lives_is_found_out_soon(folder: str) -> None:
    other, slept = made(folder, machine="another boot"), []
    other.take()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if sum(slept) >= BEAT:
            time.sleep(0.01)  # a coarse clock of files
            other.renew()

    with pytest.raises(ValueError, match="it just gave a sign of life"):
        made(folder, sleep).take()
    assert sum(slept) == BEAT


def test_whoever_was_taken_over_finds_out(folder: str) -> None:
    old, new = made(folder, machine="another boot"), made(folder, lambda _: None)
    old.take()
    new.take()
    old.check()
    old.renew()
    with pytest.raises(ValueError, match=f"process {os.getpid()} of .* has taken it over"):
        old.check()
    old.give_back()
    new.renew()
    new.check()  # what the old one gave back was not its own


OTHER = json.dumps(dataclasses.asdict(Holder.here("imagen train")) | {"owner": "other"})


@pytest.mark.parametrize(
    "text",
    [b"\xff\xfe\0", b"[" * 50_000]
    + [json.dumps(json.loads(OTHER) | {"process": p}).encode() for p in (-1, 0, "7", 1e9, 2**70)],
)
def test_a_damaged_lease_is_free_after_silence(folder: str, text: bytes) -> None:
    slept: list[float] = []
    with fsspec.open(f"{folder}/{FILE}", "wb", auto_mkdir=True) as file:
        file.write(text)
    made(folder, slept.append).take()
    assert sum(slept) >= 2 * BEAT
    seen = open_lease_file(folder, FILE).read()
    assert seen is not None
    assert json.loads(seen.text)["process"] == os.getpid()


def test_one_of_many_succeeds(folder: str) -> None:
    """Also where all find the same dead holder."""
    made(folder, begun="1").take()
    everyone, start = [made(folder) for _ in range(8)], threading.Barrier(8)
    taken: list[Lease] = []

    def take(one: Lease) -> None:
        start.wait()
        try:
            one.take()
        except ValueError:
            return
        taken.append(one)

    threads = [threading.Thread(target=take, args=(one,)) for one in everyone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1


@pytest.mark.parametrize("text", ["", "{}", "[", '{"owner": "old", "at": 1}'])
def test_what_is_no_lease_is_free_after_silence(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    made(str(tmp_path), lambda _: None).take()
    assert json.loads((tmp_path / FILE).read_text())["process"] == os.getpid()


def test_a_lease_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match=r"file/run: lease.json.* can't be written \(Not a dir"),
        hold(tmp_path / "file" / "run", command="imagen train", option="--workdir"),
    ):
        pass


def test_signs_of_life_that_fail_are_told_once(tmp_path: Path) -> None:
    mine, said, ended = made(str(tmp_path / "no" / "folder")), [], threading.Event()
    mine.beat, mine.say = 0.001, said.append
    mine.sleep = lambda _: None
    (tmp_path / "no").touch()
    beats = threading.Thread(target=lease._beats, args=(mine, ended))
    beats.start()
    time.sleep(0.1)
    ended.set()
    beats.join()
    (line,) = said
    assert "no sign of life was written (Not a directory)" in line


def test_a_sign_of_life_needs_no_room_on_the_disk(tmp_path: Path) -> None:
    mine = made(str(tmp_path))
    mine.take()
    before, seen = (tmp_path / FILE).stat(), mine.place.read()
    time.sleep(0.02)
    mine.renew()
    after = (tmp_path / FILE).stat()
    assert (before.st_ino, before.st_size) == (after.st_ino, after.st_size)
    assert mine.place.read() != seen


def test_a_folder_that_was_made_for_nothing_is_not_left(tmp_path: Path) -> None:
    with hold(tmp_path / "a" / "b", command="c", option="--out"):
        assert (tmp_path / "a" / "b" / FILE).is_file()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with hold(tmp_path / "mine", command="c", option="--out"):
        pass
    with hold(tmp_path / "used" / "b", command="c", option="--out"):
        (tmp_path / "used" / "b" / "image.png").touch()
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")} == {
        "mine",
        "used",
        "used/b",
        "used/b/image.png",
    }


def test_a_file_in_the_place_of_the_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nothing")
    for name, kind in (("file", "no folder"), ("link", "a link to no folder")):
        with (
            pytest.raises(ValueError, match=f"^--out .*{name} is {kind}: move it away, or give a"),
            lease.hold(tmp_path / name, command="imagen sample", option="--out"),
        ):
            pass


def test_a_pipe_under_the_name_of_a_lease_hangs_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / lease.FILE)
    with pytest.raises(OSError, match="is no file, but a pipe"):
        open_lease_file(tmp_path, lease.FILE).read()
