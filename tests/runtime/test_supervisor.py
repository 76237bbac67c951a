"""The rule of supervision, with children of a few lines."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagen_jax.runtime import exit_codes, peer_errors, supervisor
from imagen_jax.runtime.supervisor import FORWARDED, Supervisor

# Each child takes the next line of a plan: what it does is Python.
CHILD = """
import os, pathlib, signal, sys, time
def step(number):
    pathlib.Path(os.environ["IMAGEN_REACHED"]).write_text(f"step {number} of base8")
plan = pathlib.Path(sys.argv[1])
mine, *rest = plan.read_text().splitlines()
plan.write_text("\\n".join(rest))
exec(mine)
"""
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
FAILED = "sys.stderr.write('Traceback: so sorry'); sys.exit(70)"
SILENT = (
    "F1126 08:05:55.7 1217 client.h:80] Terminating process because the JAX distributed service "
    "detected fatal errors. absl::Status: UNAVAILABLE: The following tasks are unhealthy (stopped "
    "sending heartbeats):\n{}\nThe tasks have crashed.\n\nRPC: PollForError\n"
)
FATAL = "F1126 08:03 client.h:80] Terminating process because the " + peer_errors.FATAL + ". "


@pytest.fixture(autouse=True)
def _heeded() -> Iterator[None]:
    """SIGINT is ignored in what a shell starts in the background, and ours leaves that alone."""
    before = {number: signal.getsignal(number) for number in FORWARDED}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Run:
    """What a supervisor did with a plan."""

    def __init__(self, folder: Path, *plan: str, max_restarts: int = 5) -> None:
        self.plan, self.workdir = folder / "plan", folder / "run"
        self.plan.write_text("\n".join(plan))
        self.slept: list[float] = []
        self.code = Supervisor(
            [sys.executable, "-c", CHILD, str(self.plan)],
            self.workdir,
            name="imagen train",
            max_restarts=max_restarts,
            sleep=self.slept.append,
        ).run()

    @property
    def left(self) -> int:
        return len(self.plan.read_text().splitlines())


def test_a_run_that_ends_well_is_not_started_again(tmp_path: Path, capfd) -> None:
    run = Run(tmp_path, "print('hello'); sys.stderr.write('bar')", FAILED)
    assert (run.code, run.left) == (0, 1)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert capfd.readouterr() == ("hello\n", "bar")
    assert not run.workdir.exists()


def test_a_command_without_steps_and_folder_says_what_it_resumes_after(
    tmp_path: Path, capfd
) -> None:
    plan = tmp_path / "plan"
    plan.write_text(f"sys.stderr.write({SILENT.format('/job:jax_worker/task:1')!r}); {KILLED}")
    command = [sys.executable, "-c", CHILD, str(plan)]
    more = {"name": "imagen encode", "max_restarts": 0, "resumes": "after what is encoded"}
    assert Supervisor(command, None, **more).run() == exit_codes.LOST
    assert capfd.readouterr().err.splitlines()[-1] == (
        "imagen encode: process 1 gave no sign of life any more, and this one cannot go on alone; "
        "the same command resumes after what is encoded"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["plan"]


def test_crashes_at_other_steps_start_again_with_a_growing_delay(tmp_path: Path, capfd) -> None:
    plan = (f"step(12); {KILLED}", f"step(30); {FAILED}", KILLED, "step(40)")
    run = Run(tmp_path, *plan)
    assert (run.code, run.left) == (0, 0)
    assert sum(run.slept) == pytest.approx(1 + 2 + 4)
    said = [x for x in capfd.readouterr().err.splitlines() if "imagen train: " in x]
    assert "ended by SIGKILL; this was after step 12 of base8; restart 1 of 5 in 1 s" in said[0]
    assert "ended with code 70; this was after step 30 of base8; restart 2 of 5 in 2 s" in said[1]
    assert "before its first step; restart 3 of 5" in said[2]  # not step 30: that was another child
    assert (run.workdir / "crash-2.log").read_text() == "Traceback: so sorry"


@pytest.mark.parametrize("where", ["step(7); ", ""])
def test_two_crashes_at_one_step_end_it_with_both_shown(tmp_path: Path, capfd, where: str) -> None:
    plan = [f"{where}sys.stderr.write('Error {i}'); sys.exit(70)" for i in "AB"]
    run = Run(tmp_path, f"step(3); {KILLED}", *plan, "pass")
    assert (run.code, run.left) == (70, 1)
    shown = capfd.readouterr().err.split("----", 1)[1]
    assert "Error A" in shown
    assert "Error B" in shown
    assert str(run.workdir / "crash-3.log") in shown
    assert "another start would not help" in shown


def test_the_number_of_restarts_is_kept(tmp_path: Path, capfd) -> None:
    run = Run(tmp_path, *(f"step({i}); {KILLED}" for i in range(9)), max_restarts=2)
    assert (run.code, run.left) == (128 + signal.SIGKILL, 6)
    assert "all 2 restarts are used up" in capfd.readouterr().err


@pytest.mark.parametrize("code", [exit_codes.REFUSED, exit_codes.BAD_USAGE])
def test_refused_input_is_final_before_the_first_step_only(tmp_path: Path, code: int) -> None:
    run = Run(tmp_path, f"step(5); sys.exit({code})", f"sys.exit({code})", "pass")
    assert (run.code, run.left) == (code, 1)  # the first was no refusal, and restarted


def test_a_preempted_run_is_left_to_whoever_starts_machines(tmp_path: Path) -> None:
    run = Run(tmp_path, f"step(5); sys.exit({exit_codes.PREEMPTED})", "pass")
    assert (run.code, run.left) == (75, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("ends", ["sys.exit(75)", "sys.exit(70)", "os._exit(0)"])
def test_signals_are_passed_on_and_end_it(tmp_path: Path, number: int, ends: str) -> None:
    child = (
        "[signal.signal(n, lambda n, _: (pathlib.Path(sys.argv[1] + '.got').write_text(str(int(n)))"
        f", {ends})) for n in (2, 15)]; step(1); os.kill(os.getppid(), {int(number)}); "
        "time.sleep(60)"
    )
    run = Run(tmp_path, child, "pass")
    assert (tmp_path / "plan.got").read_text() == str(int(number))
    assert run.left == 1
    assert run.code == int(ends[ends.index("(") + 1 : -1])


def test_a_signal_during_the_delay_ends_it(tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    plan.write_text(f"{KILLED}\npass")
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        os.kill(os.getpid(), signal.SIGTERM)

    command = [sys.executable, "-c", CHILD, str(plan)]
    code = Supervisor(command, tmp_path, name="x", max_restarts=3, sleep=sleep).run()
    assert (code, len(slept), plan.read_text()) == (128 + signal.SIGTERM, 1, "pass")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN  # we are ending


def test_what_a_crashed_child_leaves_behind_is_ended(tmp_path: Path) -> None:
    child = (
        "import subprocess; p = subprocess.Popen(['sleep', '60']); "
        "pathlib.Path(sys.argv[1] + '.pid').write_text(str(p.pid)); sys.exit(70)"
    )
    Run(tmp_path, child, max_restarts=0)
    state = Path("/proc", (tmp_path / "plan.pid").read_text(), "stat")
    deadline = time.monotonic() + 10
    while state.exists() and state.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (SILENT.format("1"), "process 1 gave no sign of life"),
        (SILENT.format("/job:jax_worker/replica:0/task:3\n12"), "processes 3, 12 gave no sign"),
        (FATAL + "Failed to send RPC to coordination service. Either", "process 0, the coordin"),
        (
            "ABORTED: 1 unexpectedly tried to connect with a different incarnation.\n" + FATAL,
            "process 1 ended and was started again",
        ),
        (FATAL + "DEADLINE_EXCEEDED\n\nRPC: /xla.Coordination/RegisterTask", "not found in time"),
        (FATAL + "anything", "another process is gone"),
        (
            "Traceback (most recent call last):\n  x\njax.errors.JaxRuntimeError: UNKNOWN: Gloo "
            "all-reduce failed: [pair.cc:538] Read error [::1]:1: Connection reset by peer",
            "another process closed its connection",
        ),
    ],
)
def test_who_is_gone_is_said_in_one_sentence(
    tmp_path: Path, capfd, said: str, expected: str
) -> None:
    run = Run(tmp_path, f"step(4); sys.stderr.write({said!r}); os.abort()", max_restarts=0)
    assert run.code == exit_codes.LOST
    last = capfd.readouterr().err.splitlines()[-1]
    assert expected in last
    assert "cannot go on alone; this was after step 4 of base8" in last


def test_an_error_of_its_own_is_not_anothers_fault() -> None:
    assert (
        peer_errors.describe_lost_peer(
            "[Gloo] Rank 0 is connected\nTraceback (most recent call last):\nX"
        )
        is None
    )


def test_the_step_is_exact_and_survives_the_process(tmp_path: Path) -> None:
    file = tmp_path / "reached"
    assert supervisor.read_step(file) is None
    program = (
        "import os, pathlib; from imagen_jax.runtime import supervisor;"
        f"w = supervisor.StepRecorder(pathlib.Path({str(file)!r}), name='base8');"
        "[w(n, None, None) for n in range(1, 2001)]; w(99); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9
    assert supervisor.read_step(file) == "step 99 of base8"


PARENTS = {
    "train": (
        "from imagen_jax.cli import config_overrides, train as command;"
        "from imagen_jax import config; e, = config.load('tiny/base8');"
        "o, _ = config_overrides.parse(command.Options, e, ['--workdir', 'w'], prog='p',"
        "description='d');"
    ),
    "encode": (
        "from imagen_jax.cli import encode as command, parsing;"
        "o = parsing.parse(command.Options, ['tiny'], prog='p', description='d');"
    ),
}


@pytest.mark.parametrize("name", PARENTS)
def test_the_parent_needs_no_jax(name: str) -> None:
    program = (
        f"import sys; {PARENTS[name]} from imagen_jax.runtime import supervisor;"
        "command.distributed.is_multiprocess(o.processes); print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_a_progress_bar_stays_one_on_a_terminal(tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    plan.write_text(
        "sys.stderr.write(f'{sys.stderr.isatty()} {sys.stdout.isatty()}\\r1/2\\r2/2'); sys.exit(70)"
    )
    program = (
        "import sys, pathlib; from imagen_jax.runtime.supervisor import FORWARDED, Supervisor;"
        f"Supervisor([sys.executable, '-c', {CHILD!r}, {str(plan)!r}],"
        f" pathlib.Path({str(tmp_path)!r}), name='x', max_restarts=0).run()"
    )
    ours, theirs = pty.openpty()
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = bytearray()

    def read() -> None:
        try:
            while some := os.read(ours, 1024):
                seen.extend(some)
        except OSError:  # the terminal's other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    assert parent.wait(60) == 0
    reader.join(10)
    os.close(ours)
    assert seen.startswith(b"True True\r1/2\r2/2")  # as it came
    assert (tmp_path / "crash-1.log").read_text() == "2/2"  # what was seen last
