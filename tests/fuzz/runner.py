"""Runs targets in processes of their own, and reports what became of their inputs."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fuzz import child
from fuzz.child import NUMBERS
from fuzz.effort import Effort

PRINTED = "printed.txt"
TESTS = Path(__file__).parents[1]
LIMIT = 5.0  # seconds an input
START = 120.0  # seconds until a process has imported all and tries its first input
LOOKS = 0.05  # seconds between two looks at a process
MOST_DEATHS = 20  # of a target's processes, after which it is left alone
LINES, LONGEST = 12, 1500  # of what a process printed that are shown


@dataclass(frozen=True)
class Fault:
    """An input that neither loads nor is refused by a sentence."""

    what: str
    input: str  # the folder that holds it


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of a target's inputs."""

    target: str
    inputs: int
    loads: int
    refusals: int
    slowest: float  # seconds
    memory: int  # bytes beyond those of the process before its first input
    faults: tuple[Fault, ...] = ()


class Numbers(NamedTuple):
    """A target's part of the file of progress."""

    done: int
    begun: int
    loads: int
    refusals: int
    slowest: float
    memory: int


def fuzz(place: str, folder: Path, effort: Effort, *, limit: float = LIMIT) -> Report:
    """Try a target, `MODULE:NAME`; what its processes leave behind stays in `folder`."""
    return fuzz_all({place: effort}, folder, limit=limit)[place]


def fuzz_all(
    efforts: Mapping[str, Effort], folder: Path, *, limit: float = LIMIT
) -> dict[str, Report]:
    """Try targets one after another, in one process as long as no input ends it."""
    return Fuzzing(efforts, folder, limit).run()


@dataclass
class Fuzzing:
    """Targets that are tried, and what was found of them so far."""

    efforts: Mapping[str, Effort]  # by MODULE:NAME
    folder: Path
    limit: float
    replay: str = ""  # a folder with one input, which alone is tried
    deaths: dict[str, list[Fault]] = field(default_factory=dict)

    def run(self) -> dict[str, Report]:
        """Try all inputs; one that ends its process is reported, and the next one follows."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder = self.folder.resolve()
        targets = [(place, dataclasses.asdict(e)) for place, e in self.efforts.items()]
        (self.folder / child.TASK).write_text(
            json.dumps({"targets": targets, "replay": self.replay})
        )
        (self.folder / child.PROGRESS).write_bytes(bytes(NUMBERS.size * len(targets)))
        while self._unfinished():
            self._run_process()
        return {place: self._report(place) for place in self.efforts}

    def _numbers(self) -> dict[str, Numbers]:
        data = (self.folder / child.PROGRESS).read_bytes()
        return dict(zip(self.efforts, map(Numbers._make, NUMBERS.iter_unpack(data)), strict=True))

    def _unfinished(self) -> Sequence[str]:
        return [place for place, numbers in self._numbers().items() if not numbers.done]

    def _run_process(self) -> None:
        """Run one process to its end, and note what ended it."""
        with (self.folder / PRINTED).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "fuzz.child", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
            )
            is_hung = self._watch(process)
        if process.returncode == child.DONE:
            return
        place = self._unfinished()[0]
        how = f"slower than {self.limit:.0f} s" if is_hung else _describe_end(process.returncode)
        deaths = self.deaths.setdefault(place, [])
        kept = self._keep_input(place)
        if not is_hung or self.replay or not kept or self._hangs_again(place, kept):
            deaths.append(Fault(f"{how}: {self._last_words()}", kept))
        if not kept or len(deaths) >= MOST_DEATHS:
            self._finish(place)

    def _keep_input(self, place: str) -> str:
        """Copy the input that a process died of; "" where it was none of the inputs."""
        folder, begun = self.folder / _name(place), self._numbers()[place].begun
        kept = folder / child.FAULTY / str(begun - 1)
        if not begun or kept.exists():
            return ""
        shutil.copytree(folder / child.ROOM / child.INPUT, kept, symlinks=True)
        return str(kept)

    def _hangs_again(self, place: str, kept: str) -> bool:
        """Return whether an input alone is as slow: the machine may have been busy."""
        again = Fuzzing({place: Effort(inputs=1)}, self.folder / "again", self.limit, kept)
        return bool(again.run()[place].faults)

    def _finish(self, place: str) -> None:
        at = list(self.efforts).index(place) * NUMBERS.size
        with (self.folder / child.PROGRESS).open("r+b") as file:
            file.seek(at)
            file.write(NUMBERS.pack(*self._numbers()[place]._replace(done=1)))

    def _watch(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for the process's end, and end it where an input takes too long."""
        last, clock, limit = self._numbers(), _Clock(process.pid), START
        while True:
            try:
                process.wait(LOOKS)
                return False
            except subprocess.TimeoutExpired:
                numbers = self._numbers()
                if numbers != last:
                    is_between = numbers[_current(numbers)].begun == last[_current(numbers)].begun
                    last, clock = numbers, _Clock(process.pid)
                    limit = START if is_between else self.limit
                elif clock.seconds() > limit:
                    process.send_signal(signal.SIGABRT)  # it says where it is
                    _end(process)
                    return True

    def _last_words(self) -> str:
        text = (self.folder / PRINTED).read_text(errors="replace")
        found = [line.strip() for line in text.splitlines() if line.strip()]
        return " | ".join(found[-LINES:])[-LONGEST:]

    def _report(self, place: str) -> Report:
        numbers, file = self._numbers()[place], self.folder / _name(place) / child.FAULTS
        lines = file.read_text().splitlines() if file.is_file() else []
        found = [json.loads(line) for line in lines]
        faults = [Fault(f"{one['place']}: {one['fault']}", one["input"]) for one in found]
        return Report(
            target=_name(place),
            inputs=numbers.begun,
            loads=numbers.loads,
            refusals=numbers.refusals,
            slowest=numbers.slowest,
            memory=numbers.memory,
            faults=(*faults, *self.deaths.get(place, ())),
        )


class _Clock:
    """Seconds that a process computes or sleeps, but none in which a busy machine lets it wait."""

    def __init__(self, process: int) -> None:
        self._process, self._seconds = process, 0.0
        self._looked, (_, self._computed) = time.monotonic(), self._look()

    def seconds(self) -> float:
        """Return those since the clock was made; it has to be looked at often."""
        now, (is_asleep, computed) = time.monotonic(), self._look()
        rested = now - self._looked if is_asleep else 0.0
        self._seconds += max(computed - self._computed, rested)
        self._looked, self._computed = now, computed
        return self._seconds

    def _look(self) -> tuple[bool, float]:
        fields = Path(f"/proc/{self._process}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return fields[0] == "S", ticks / os.sysconf("SC_CLK_TCK")


def _current(numbers: Mapping[str, Numbers]) -> str:
    return next((place for place, one in numbers.items() if not one.done), list(numbers)[-1])


def _name(place: str) -> str:
    return place.partition(":")[2]


def _describe_end(code: int) -> str:
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"left in the middle with code {code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    path = os.pathsep.join((str(TESTS), str(TESTS / "support")))
    fixed = {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "2"}
    # A module that a parser imports late is not written as bytecode, which would be an escape.
    fixed |= {"PYTHONDONTWRITEBYTECODE": "1"}
    return os.environ | fixed | {"JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1"}
