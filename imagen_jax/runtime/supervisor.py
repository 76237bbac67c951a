"""The rule of supervision: which ends are crashes, and when to start again."""

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagen_jax.io import workdir
from imagen_jax.io.log_files import Guard
from imagen_jax.io.whole_files import read_whole
from imagen_jax.io.workdir import Workdir
from imagen_jax.runtime import exit_codes, peer_errors
from imagen_jax.runtime.child_process import ChildProcess
from imagen_jax.runtime.late_signals import pass_signals_on

MAX_DELAY = 60.0  # seconds between a crash and the next start
TAIL = 4000  # characters of each crash, when we give up
STEP_FILE = "IMAGEN_REACHED"  # the variable that names a supervised child's file of its last step
STEP_WIDTH = 128  # bytes of that file, always overwritten whole
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Crash:
    """The end of one child."""

    code: int
    step: str | None  # None before the first
    output: str  # the end of its stderr
    log: Workdir | None  # where that is kept; None when the disk refused

    @property
    def happened(self) -> str:
        """Describe the crash in a few words."""
        return peer_errors.describe_lost_peer(self.output) or f"the process {self._ended}"

    @property
    def where(self) -> str:
        """Name the step after which it happened."""
        return f"this was after {self.step}" if self.step else "this was before its first step"

    @property
    def _ended(self) -> str:
        number = self.code - 128
        if number in signal.valid_signals():
            return f"ended by {signal.Signals(number).name}"
        return f"ended with code {self.code}"


class Supervisor:
    """Runs a command until it ends well, or until another start would not help.

    Crashes are logged in `folder`; a command without one has no steps either. `resumes` says where
    the same command, given again, continues.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Workdir | None,
        *,
        name: str,
        max_restarts: int,
        resumes: str = "from the last checkpoint",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.command, self.folder, self.name = command, folder, name
        self.max_restarts, self.resumes = max_restarts, resumes
        self._sleep = sleep
        self._child: ChildProcess | None = None
        self._stopped = 0  # the number of the signal that ends us

    def run(self) -> int:
        """Supervise; the exit code is the last child's.

        Codes: 0, exit_codes.PREEMPTED and refused input before the first step end it; so does any
        end after a signal that we passed on. The rest are crashes, and start the command again,
        unless two came after the same step. exit_codes.LOST: the child ended because another
        process did.
        """
        crashes: list[Crash] = []
        with (
            self._signals(),
            pass_signals_on(),
            tempfile.TemporaryDirectory(prefix="imagen_") as folder,
        ):
            while True:
                code, step, output = self._once(Path(folder) / "reached")
                refused = code in (exit_codes.REFUSED, exit_codes.BAD_USAGE) and step is None
                if code in (0, exit_codes.PREEMPTED, exit_codes.UNREAD) or refused or self._stopped:
                    return code
                code = exit_codes.LOST if peer_errors.describe_lost_peer(output) else code
                crashes.append(Crash(code, step, output, _write_log(output, self.folder)))
                what = crashes[-1].happened
                if self.folder is not None:
                    what += f"; {crashes[-1].where}"
                if why := self._why_not(crashes):
                    self._report(f"{what}; {why}")
                    return code
                delay = min(2.0 ** (len(crashes) - 1), MAX_DELAY)
                self._report(
                    f"{what}; restart {len(crashes)} of {self.max_restarts} in {delay:.0f} s, "
                    f"{self.resumes} (last words: {crashes[-1].log})"
                )
                self._wait(delay)
                if self._stopped:
                    return 128 + self._stopped

    def _once(self, file: Path) -> tuple[int, str | None, str]:
        """Exit code, last step and last words of one child."""
        file.unlink(missing_ok=True)
        self._child = ChildProcess(self.command, {**os.environ, STEP_FILE: str(file)})
        if self._stopped:  # the signal came while it started
            self._child.send(self._stopped)
        code = self._child.wait()
        output, self._child = self._child.output(), None
        return code, read_step(file), output

    def _why_not(self, crashes: list[Crash]) -> str | None:
        """Give the reason why the command is not started again; None when it is."""
        last = crashes[-1]
        if self.max_restarts == 0:
            return f"the same command resumes {self.resumes}"
        if same_step([crash.step for crash in crashes]):
            for crash in crashes[-2:]:
                print(f"\n---- {crash.log}\n{crash.output[-TAIL:].rstrip()}", file=sys.stderr)
            return "as the crash before, so another start would not help (both are shown above)"
        if len(crashes) > self.max_restarts:
            return f"all {self.max_restarts} restarts are used up; last words: {last.log}"
        return None

    def _wait(self, seconds: float) -> None:
        """In slices: a signal ends it."""
        for _ in range(round(seconds * 10)):
            if self._stopped:
                return
            self._sleep(0.1)

    def _report(self, sentence: str) -> None:
        print(f"{self.name}: {sentence}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Pass signals that end us on to the child, and then start nothing again."""

        def stop(number: int, _: object) -> None:
            self._stopped = number
            if self._child is not None:
                self._child.send(number)

        def resize(*_: object) -> None:
            if self._child is not None:
                self._child.resize()

        before = {
            number: signal.signal(number, resize if number == signal.SIGWINCH else stop)
            for number in (*FORWARDED, signal.SIGWINCH)
            if signal.getsignal(number) != signal.SIG_IGN  # such as SIGHUP under nohup
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                # Once asked to end, this process ends; another signal keeps the exit code.
                ends = self._stopped and number in FORWARDED
                signal.signal(number, signal.SIG_IGN if ends else handler)


def same_step(steps: Sequence[object]) -> bool:
    """Return whether the last two crashes came after one step: another start would not help."""
    return len(steps) > 1 and steps[-2] == steps[-1]


def _write_log(output: str, folder: Workdir | None) -> Workdir | None:
    """Write a crash's last words to the next free crash-<n>.log; several hosts may share it."""
    if folder is None:
        return None
    try:
        return workdir.write_new(folder, "crash-{}.log", output)
    except Exception:  # a full disk or a bucket out of reach must not end the supervision as well
        return None


class StepRecorder:
    """A hook of the training loop that writes the last finished step of the stage `name`.

    One `pwrite` a step, about a microsecond: the bytes are the kernel's at once, so they are exact
    even after SIGKILL. The file is on this machine, not in a workdir that a network may delay.
    """

    def __init__(self, file: Path, *, name: str) -> None:
        self.name, self._guard = name, Guard(str(file))
        self._handle = os.open(file, os.O_WRONLY | os.O_CREAT)

    def __call__(self, step: int, *_: object) -> None:
        """Write that `step` is finished."""
        text = f"step {step} of {self.name}".ljust(STEP_WIDTH).encode()
        self._guard.run(lambda: os.pwrite(self._handle, text, 0))


def read_step(file: Path) -> str | None:
    """Read the last finished step, such as "step 12 of base64"; None before the first one."""
    return (read_whole(file).decode(errors="replace").strip() or None) if file.is_file() else None
