"""The program of each worker: waits for the others, runs the command, reports to the bucket.

The entry point of every way to launch: a TPU VM's start-up script, a pod of GKE, a SkyPilot task.
"""

import dataclasses
import json
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

from imagen_jax import config
from imagen_jax.cloud import untrusted
from imagen_jax.cloud.observe import LONGEST, WorkerReport
from imagen_jax.cloud.restart_policy import MACHINE
from imagen_jax.cloud.untrusted import Made
from imagen_jax.io import whole_files
from imagen_jax.io.log_files import Guard
from imagen_jax.io.workdir import Workdir
from imagen_jax.parallel import accelerators
from imagen_jax.runtime import exit_codes, peer_errors
from imagen_jax.runtime.child_process import ChildProcess, imagen_command
from imagen_jax.runtime.supervisor import STEP_FILE, read_step, same_step

PORT = "8476"  # jax's own default since 0.8.1 is outside what Google opens (jax-ml/jax#35905)
ARRIVAL = 900.0  # seconds until all workers have to be there
BEAT = 30.0  # seconds between two signs of life
MAX_LOG_BYTES = 16 * 2**20  # bytes of a log that are copied up
TAIL = 4000  # characters of its end, in the last report
MULTIPROCESS = ("train", "encode")  # commands that take --processes, and refuse another number


@dataclass(frozen=True, kw_only=True)
class WorkerId:
    """The identity of a worker."""

    folder: Workdir  # of the attempt
    worker: int
    of: int
    log: Path | None = None  # the file that our output goes to

    def __post_init__(self) -> None:
        if not 0 <= self.worker < self.of:
            raise ValueError(f"--worker {self.worker} --of {self.of}: workers count from 0")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The end of a command that one worker ran for all."""

    code: Annotated[int, config.Range(low=0, high=255)]


class WorkerReporter:
    """Writes this worker's report and log, at every beat and whenever something changes."""

    def __init__(self, worker_id: WorkerId, file: Path, beat: float = BEAT) -> None:
        self._id, self._reached = worker_id, file
        name = f"imagen launch worker: worker-{worker_id.worker}"
        self._logs, self._reports = Guard(f"{name}.log"), Guard(f"{name}.json")
        self._report = WorkerReport(worker=worker_id.worker, of=worker_id.of, phase="setup", beat=0)
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beats, args=(beat,), daemon=True)
        self._thread.start()

    def report_phase(self, phase: str) -> None:
        """Report a new phase; a failure is logged, and the next beat repeats it."""
        with self._lock:
            report = dataclasses.replace(self._report, phase=phase)
            self._reports.run(lambda: self._write(report))

    def end(self, code: int, output: str) -> None:
        """Write the last report; tried several times, as the watcher acts on it."""
        self._ended.set()
        for delay in (1.0, 2.0, 4.0, 8.0, None):
            try:
                with self._lock:
                    last = dataclasses.replace(
                        self._report, phase="ended", code=code, said=output[-TAIL:]
                    )
                    return self._write(last)
            except Exception as error:  # the drivers' errors have no common kind
                print(f"imagen launch worker: no last report ({error})", file=sys.stderr)
                if delay is not None:
                    time.sleep(delay)

    def _beats(self, every: float) -> None:
        while not self._ended.wait(every):
            try:
                with self._lock:
                    if not self._ended.is_set():
                        self._write(self._report)
            except Exception as error:  # as above; the next beat may come through
                print(f"imagen launch worker: no report ({error})", file=sys.stderr)

    def _write(self, report: WorkerReport) -> None:
        step = read_step(self._reached) or report.step
        self._report = dataclasses.replace(report, beat=report.beat + 1, step=step)
        written = dataclasses.asdict(self._report)
        del written["silent"]  # the reader's own
        name = f"worker-{self._id.worker}"
        self._id.folder.mkdir(parents=True, exist_ok=True)
        if self._id.log is not None and self._id.log.is_file():
            log = self._id.folder / f"{name}.log"
            log_file = self._id.log
            self._logs.run(lambda: log.write_bytes(_end_of(log_file)))
        (self._id.folder / f"{name}.json").write_text(json.dumps(written) + "\n")


class Worker:
    """Runs the commands, one after another, and passes signals on."""

    def __init__(self, worker_id: WorkerId, *, generation: str | None, beat: float = BEAT) -> None:
        self._id, self._generation, self._beat = worker_id, generation, beat
        self._child: ChildProcess | None = None
        self._stopped = 0

    def run(self, commands: Sequence[Sequence[str]], once: Sequence[int] = ()) -> int:
        """The exit code of the first command that fails; exit_codes.LOST if workers are missing.

        Worker 0 alone runs the commands whose places are in `once`; the others wait for its end.
        """
        signal.signal(signal.SIGTERM, self._stop)
        with tempfile.TemporaryDirectory(prefix="imagen_") as folder:
            file = Path(folder) / "reached"
            reporter = WorkerReporter(self._id, file, self._beat)
            code, output = exit_codes.CRASHED, ""
            try:
                reporter.report_phase("setup")
                if missing := self._missing():
                    code, output = exit_codes.LOST, missing
                    print(f"imagen launch worker: {missing}", file=sys.stderr, flush=True)
                    return code
                reporter.report_phase("running")
                for place, command in enumerate(commands):
                    code, output = (
                        self._run_on_first(place, command, file)
                        if place in once
                        else self._run_command(command, file)
                    )
                    if code or self._stopped:
                        break
                return code
            finally:
                reporter.end(code, output)

    def _run_on_first(self, place: int, command: Sequence[str], file: Path) -> tuple[int, str]:
        """Run it on worker 0, or wait until it has ended there. The exit code and last words."""
        mark = self._id.folder / f"once-{place}.json"  # of this attempt
        if self._id.worker == 0:
            code, output = self._run_command(command, file)
            if not self._stopped:
                mark.write_text(json.dumps(dataclasses.asdict(Mark(code=code))) + "\n")
            return code, output
        print(f"waiting for worker 0: {shlex.join(command)}", file=sys.stderr, flush=True)
        while not self._stopped:
            if mark.is_file():
                code = _read(mark, Mark).code
                said = f"{shlex.join(command)} ended with code {code} on worker 0"
                return (exit_codes.LOST, said) if code else (0, "")
            time.sleep(min(2.0, self._beat))
        return exit_codes.PREEMPTED, "asked to stop while worker 0 was at work"

    def _run_command(self, command: Sequence[str], file: Path) -> tuple[int, str]:
        words = resolve_command(command, self._id)
        print("+", shlex.join(words), file=sys.stderr, flush=True)
        environment = {**os.environ, **read_settings(self._generation), STEP_FILE: str(file)}
        if self._id.of > 1 and is_alone(words):
            environment["JAX_PLATFORMS"] = "cpu"  # the chips of a slice work together or not at all
        program = imagen_command(*words[1:]) if words[0] == "imagen" else words
        try:
            self._child = ChildProcess(program, environment)
        except OSError as error:
            sentence = f"{shlex.join(words)} does not start ({error}): install it by a --before"
            print(f"imagen launch worker: {sentence}", file=sys.stderr, flush=True)
            return exit_codes.REFUSED, sentence
        if self._stopped:  # the signal came while it started
            self._child.send(self._stopped)
        code = self._child.wait()
        output, self._child = self._child.output(), None
        if code and peer_errors.describe_lost_peer(output):
            code = exit_codes.LOST
        return code, output

    def _missing(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> str | None:
        """Wait for all workers of the attempt; who is missing after PRESENT seconds."""
        until = clock() + ARRIVAL
        while not self._stopped:
            found = {f.name for f in self._id.folder.glob("worker-*.json")}
            gone = [n for n in range(self._id.of) if f"worker-{n}.json" not in found]
            if not gone:
                return None
            if clock() > until:
                return (
                    f"worker {gone[0]} of {self._id.of} is not here after {ARRIVAL:.0f} s: the "
                    "command has to start on every worker; its log says why it did not"
                )
            sleep(min(2.0, self._beat))
        return "asked to stop before all workers were here"

    def _stop(self, number: int, _: FrameType | None) -> None:
        self._stopped = number
        if self._child is not None:
            self._child.send(number)


def is_repeated_crash(worker_id: WorkerId) -> bool:
    """Return whether this attempt and the one before it crashed after the same step."""
    number = worker_id.folder.name
    if not (number.isascii() and number.isdigit()) or number == "0":
        return False
    steps = []
    for folder in (worker_id.folder.parent / str(int(number) - 1), worker_id.folder):
        file = folder / f"worker-{worker_id.worker}.json"
        report = _read(file, WorkerReport) if file.is_file() else None
        if report is None or not report.code or report.code in MACHINE:
            return False
        steps.append(report.step)
    return same_step(steps)


def resolve_command(command: Sequence[str], worker_id: WorkerId) -> list[str]:
    """Fill in the numbers; a command of `imagen` learns how many processes there have to be."""
    words = [
        word.replace("{worker}", str(worker_id.worker)).replace("{workers}", str(worker_id.of))
        for word in command
    ]
    shared = words[0] == "imagen" and words[1] in MULTIPROCESS
    if shared and not any(w.partition("=")[0] == "--processes" for w in words):
        words += ["--processes", str(worker_id.of)]
    return words


def is_alone(words: Sequence[str]) -> bool:
    """Return whether a command of `imagen` is a program of this worker, and not of all together."""
    last = words[-1] == "--processes=1" or tuple(words[-2:]) == ("--processes", "1")
    return words[0] == "imagen" and (words[1] not in MULTIPROCESS or last)


def read_settings(generation: str | None) -> Mapping[str, str]:
    """The environment of the command: jax's port, and the compiler's options of the generation."""
    found = {"JAX_COORDINATOR_PORT": os.environ.get("JAX_COORDINATOR_PORT", PORT)}
    if generation is not None and generation in accelerators.TPUS:
        options = accelerators.TPUS[generation].compiler_options
        flags = " ".join(f"--{name}={_spelled(value)}" for name, value in options.items())
        found["LIBTPU_INIT_ARGS"] = f"{flags} {os.environ.get('LIBTPU_INIT_ARGS', '')}".strip()
    return found


def _spelled(value: str | bool | int) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(file: Workdir, kind: Callable[..., Made]) -> Made:
    """Read what a worker has written. Errors: OSError; ValueError that names the file."""
    text = whole_files.read_beginning(file, LONGEST).decode(errors="replace")
    try:
        return untrusted.fill(kind, untrusted.parse_json(text), "it")
    except ValueError as error:
        raise ValueError(
            f"{file} is of no worker of this launch ({error}): look who may write there"
        ) from error


def _end_of(file: Path) -> bytes:
    with file.open("rb") as opened:
        opened.seek(max(file.stat().st_size - MAX_LOG_BYTES, 0))
        return opened.read()
