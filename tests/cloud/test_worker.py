"""What runs on a worker: reports, the others' presence, signals, how it ended."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from imagen_jax.cli import launch_worker
from imagen_jax.cloud import worker
from imagen_jax.cloud.worker import Worker, WorkerId, read_settings, resolve_command
from imagen_jax.parallel import accelerators
from imagen_jax.runtime import child_process, exit_codes

# In place of `imagen`: its arguments are Python.
PROGRAM = "import os, pathlib, signal, sys, time; exec(sys.argv[1])"
STEP = "pathlib.Path(os.environ['IMAGEN_REACHED']).write_text('step 7 of base8')"


@pytest.fixture(autouse=True)
def _small(monkeypatch) -> None:
    monkeypatch.setattr(child_process, "PROGRAM", PROGRAM)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def report(folder: Path, number: int = 0) -> dict:
    return json.loads((folder / f"worker-{number}.json").read_text())


def run(folder: Path, *programs: str, of: int = 1, log: Path | None = None) -> int:
    place = WorkerId(folder=folder, worker=0, of=of, log=log)
    return Worker(place, generation=None, beat=0.05).run([("imagen", p) for p in programs])


def test_a_command_that_ends_well(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("what was printed")
    assert run(tmp_path / "1", f"{STEP}; time.sleep(0.3)", log=log) == 0
    told = report(tmp_path / "1")
    assert (told["phase"], told["code"], told["step"]) == ("ended", 0, "step 7 of base8")
    assert told["beat"] >= 5  # it told that it lives, too
    assert (tmp_path / "1" / "worker-0.log").read_text() == "what was printed"


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("sys.exit(70)", 70),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("sys.stderr.write('JAX distributed service detected fatal errors'); os.abort()", 69),
    ],
)
def test_how_it_ended_is_told_with_its_last_words(tmp_path: Path, program: str, code: int) -> None:
    assert run(tmp_path, f"sys.stderr.write('so sorry\\n'); {STEP}; {program}", "print(1)") == code
    told = report(tmp_path)
    assert (told["phase"], told["code"], told["step"]) == ("ended", code, "step 7 of base8")
    assert "so sorry" in told["said"]


def test_commands_follow_each_other(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    then = f"assert os.path.exists({str(first)!r}); open({str(second)!r}, 'w')"
    assert run(tmp_path / "1", f"open({str(first)!r}, 'w')", then) == 0
    assert second.exists()
    assert run(tmp_path / "2", "sys.exit(3)", f"os.remove({str(second)!r})") == 3
    assert second.exists()


def test_the_notice_reaches_the_command_and_its_code_the_bucket(tmp_path: Path) -> None:
    heard = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))"
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert run(tmp_path, f"{heard}; {STEP}; time.sleep(60)", "print(1)") == exit_codes.PREEMPTED
    assert report(tmp_path)["code"] == exit_codes.PREEMPTED


def test_all_have_to_be_here(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setattr(worker, "ARRIVAL", 0.3)
    assert run(tmp_path, "print('began')", of=3) == exit_codes.LOST
    assert "worker 1 of 3 is not here after 0 s" in report(tmp_path)["said"]
    assert "began" not in capfd.readouterr().out
    for other in (1, 2):
        (tmp_path / f"worker-{other}.json").write_text("{}\n")
    assert run(tmp_path, "print('began')", of=3) == 0


def test_a_bucket_that_is_away_for_a_while_ends_nothing(tmp_path: Path, monkeypatch, capfd) -> None:
    write, calls = worker.WorkerReporter._write, []

    def fails(self, told) -> None:
        calls.append(told.phase)
        if told.phase == "running" and len(calls) in (4, 5, 6):
            raise OSError("503")
        write(self, told)

    monkeypatch.setattr(worker.WorkerReporter, "_write", fails)
    assert run(tmp_path, "time.sleep(0.5)") == 0
    assert report(tmp_path)["phase"] == "ended"
    assert "no report (503)" in capfd.readouterr().err


def test_a_log_or_a_phase_that_cannot_be_told_ends_nothing(
    tmp_path: Path, monkeypatch, capfd
) -> None:
    write, failed = worker.WorkerReporter._write, []

    def fails(self, told) -> None:
        if told.phase not in failed and told.phase in ("setup", "running"):
            failed.append(told.phase)
            raise OSError("503")
        write(self, told)

    monkeypatch.setattr(worker.WorkerReporter, "_write", fails)
    (tmp_path / "worker-0.log").mkdir()
    log = tmp_path / "log"
    log.write_text("what was printed")
    assert run(tmp_path, "time.sleep(0.5)", log=log) == 0
    assert report(tmp_path)["phase"] == "ended"
    said = capfd.readouterr().err
    assert "worker-0.json: not written (503)" in said
    assert said.count("worker-0.log: not written (Is a directory)") == 1


def test_processes_are_counted_and_numbers_filled_in(tmp_path: Path) -> None:
    place = WorkerId(folder=tmp_path, worker=1, of=4)
    command = ("imagen", "train", "tiny", "--process-id", "{worker}")
    assert resolve_command(command, place) == [*command[:4], "1", "--processes", "4"]
    given = ("imagen", "encode", "tiny", "--processes={workers}")
    assert resolve_command(given, place) == ["imagen", "encode", "tiny", "--processes=4"]
    assert resolve_command(("imagen", "data", "build"), place) == ["imagen", "data", "build"]
    own = ("mount", "gs://bucket/{worker}", "a b; $(id)")
    assert resolve_command(own, place) == ["mount", "gs://bucket/1", "a b; $(id)"]


def test_any_program_runs_as_it_is_given(tmp_path: Path) -> None:
    place = WorkerId(folder=tmp_path / "1", worker=0, of=1)
    made = tmp_path / "a b; $(id)"
    assert Worker(place, generation=None, beat=0.05).run([("touch", str(made))]) == 0
    assert made.is_file()
    assert Worker(place, generation=None, beat=0.05).run([("no-such-program",)]) == 1
    assert "no-such-program does not start" in report(tmp_path / "1")["said"]


@pytest.mark.parametrize(
    ("command", "platform"),
    [
        (("encode", "tiny", "--processes", "1"), "cpu"),
        (("data", "build", "shapes"), "cpu"),
        (("encode", "tiny"), None),
        (("train", "tiny"), None),
    ],
)
def test_a_program_of_one_worker_leaves_the_chips_alone(
    command: tuple, platform: str | None, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    note = tmp_path / "note"
    text = f"open({str(note)!r}, 'w').write(os.environ.get('JAX_PLATFORMS', '-'))"
    monkeypatch.setattr(child_process, "PROGRAM", f"import os; {text}")
    (tmp_path / "worker-1.json").write_text("{}\n")
    place = WorkerId(folder=tmp_path, worker=0, of=2)
    assert Worker(place, generation=None, beat=0.05).run([("imagen", *command)]) == 0
    assert note.read_text() == (platform or "-")


def test_one_worker_goes_first_and_the_others_wait(tmp_path: Path, capfd) -> None:
    made, folder = tmp_path / "made", tmp_path / "1"
    commands = [
        ("imagen", f"time.sleep(1); open({str(made)!r}, 'a').write('x')"),
        ("imagen", f"assert open({str(made)!r}).read() == 'x'"),
    ]
    ids = [WorkerId(folder=folder, worker=number, of=2) for number in (0, 1)]
    codes = {}

    def second() -> None:
        codes[1] = worker.Worker(ids[1], generation=None, beat=0.05).run(commands, (0,))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "signal", lambda *_: None)  # not for other threads
        other = threading.Thread(target=second)
        other.start()
        codes[0] = Worker(ids[0], generation=None, beat=0.05).run(commands, (0,))
        other.join()
    assert codes == {0: 0, 1: 0}
    assert made.read_text() == "x"
    assert "waiting for worker 0: imagen" in capfd.readouterr().err


def test_others_do_not_go_on_after_the_first_one_failed(tmp_path: Path) -> None:
    (tmp_path / "worker-0.json").write_text("{}\n")
    (tmp_path / "once-0.json").write_text('{"code": 3}\n')
    second = Worker(WorkerId(folder=tmp_path, worker=1, of=2), generation=None, beat=0.05)
    made = tmp_path / "made"
    assert second.run([("imagen", "pass"), ("touch", str(made))], (0,)) == exit_codes.LOST
    assert "imagen pass ended with code 3 on worker 0" in report(tmp_path, 1)["said"]
    assert not made.exists()
    first = Worker(WorkerId(folder=tmp_path, worker=0, of=1), generation=None, beat=0.05)
    assert first.run([("imagen", "sys.exit(4)")], (0,)) == 4
    assert json.loads((tmp_path / "once-0.json").read_text()) == {"code": 4}


@pytest.mark.parametrize(("number", "of"), [(2, 2), (-1, 2), (0, 0)])
def test_workers_count_from_0(tmp_path: Path, number: int, of: int) -> None:
    with pytest.raises(ValueError, match="workers count from 0"):
        WorkerId(folder=tmp_path, worker=number, of=of)


def test_the_environment(monkeypatch) -> None:
    monkeypatch.delenv("LIBTPU_INIT_ARGS", raising=False)
    assert read_settings(None) == {"JAX_COORDINATOR_PORT": "8476"}
    flags = read_settings("v5e")["LIBTPU_INIT_ARGS"].split()
    assert "--xla_tpu_enable_async_collective_fusion=true" in flags
    assert len(flags) == len(accelerators.TPUS["v5e"].compiler_options)
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--mine=1")
    monkeypatch.setenv("JAX_COORDINATOR_PORT", "9")
    assert read_settings("v4")["LIBTPU_INIT_ARGS"].split()[-1] == "--mine=1"
    assert read_settings("v4")["JAX_COORDINATOR_PORT"] == "9"


@pytest.mark.cloud
@pytest.mark.parametrize("generation", sorted(accelerators.TPUS))
def test_libtpu_takes_the_options(generation: str) -> None:
    """It ends a process that is given one that it does not know."""
    program = (
        "from jax.experimental import topologies as t; t.get_topology_desc('v5e:2x2', 'tpu', "
        "chips_per_host_bounds=(2, 2, 1))"
    )
    quiet = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "JAX_PLATFORMS": "cpu"}
    known = dict(read_settings(generation))
    unknown = {**known, "LIBTPU_INIT_ARGS": known["LIBTPU_INIT_ARGS"] + " --xla_of_ours=true"}
    for environment, code in ((known, 0), (unknown, 1)):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **quiet, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert bool(done.returncode) == bool(code), done.stderr


def test_the_command_line(tmp_path: Path, monkeypatch) -> None:
    folder = str(tmp_path)
    monkeypatch.setenv("TPU_WORKER_ID", "0")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a")
    assert launch_worker.run([folder, "--attempt", "3"], ["imagen", "print(1)"]) == 0
    assert report(tmp_path / "3")["of"] == 1
    with pytest.raises(ValueError, match="give a command of imagen"):
        launch_worker.run([folder, "--attempt", "3"], ["rm", "-r"])
    with pytest.raises(ValueError, match=r"has no run\.json: give the folder of an"):
        launch_worker.run([folder, "--attempt", "3"], [])


def test_time_of_missing_workers_is_bounded(tmp_path: Path) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    alone = Worker(WorkerId(folder=tmp_path, worker=0, of=2), generation=None)
    assert "worker 0 of 2 is not here after 900 s" in str(alone._missing(lambda: now[0], sleep))
    assert 900 < now[0] < 905


@pytest.mark.parametrize(
    ("before", "code"),
    [
        ({"code": 70, "step": "step 7 of base8"}, exit_codes.REFUSED),
        ({"code": 70, "step": "step 6 of base8"}, 71),
        ({"code": exit_codes.PREEMPTED, "step": "step 7 of base8"}, 71),
        ({"code": None, "step": "step 7 of base8"}, 71),
        (None, 71),
    ],
)
def test_without_a_watcher_a_second_crash_at_the_same_step_is_final(
    tmp_path: Path, before: dict | None, code: int
) -> None:
    if before is not None:
        (tmp_path / "4").mkdir()
        written = {"worker": 0, "of": 1, "phase": "ended", "beat": 3} | before
        (tmp_path / "4" / "worker-0.json").write_text(json.dumps(written))
    words = [str(tmp_path), "--attempt", "5", "--worker", "0", "--of", "1", "--alone"]
    assert launch_worker.run(words, ["imagen", f"{STEP}; sys.exit(71)"]) == code


def test_slices_of_gke_are_counted_through(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b")
    monkeypatch.setenv("TPU_WORKER_ID", "1")
    monkeypatch.setenv("MEGASCALE_NUM_SLICES", "2")
    monkeypatch.setenv("MEGASCALE_SLICE_ID", "1")
    for other in range(3):
        (tmp_path / "1").mkdir(exist_ok=True)
        (tmp_path / "1" / f"worker-{other}.json").write_text("{}")
    assert launch_worker.run([str(tmp_path), "--attempt", "1"], ["imagen", "print(1)"]) == 0
    assert report(tmp_path / "1", 3)["of"] == 4
