"""The process that parses: it may hang, abort or ask for all memory, which its parent sees.

`python -m fuzz.child FOLDER` does what FOLDER/task.json says. How far it is stands in
FOLDER/progress, which outlives it; faults are lines of FOLDER/TARGET/faults.jsonl.
"""

import faulthandler
import gc
import importlib
import json
import mmap
import os
import random
import shutil
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path, PurePath

from fuzz import outcome, sandbox
from fuzz.coverage import LineCoverage
from fuzz.effort import Effort
from fuzz.mutator import Files, mutate, read_files, write_files
from fuzz.sandbox import Sandbox
from fuzz.target import Target

# Of each target: whether it is done, inputs begun, loads, refusals, slowest (s), memory (bytes).
NUMBERS = struct.Struct("<QQQQdQ")
DONE = 17  # the exit code of a process that has done its task
KEPT = 500  # inputs that reached something new, beside the corpus
TASK, PROGRESS = "task.json", "progress"  # of a process
ROOM, FAULTS, FAULTY = "room", "faults.jsonl", "faulty"  # of a target
INPUT, TEMPORARY, SECRET = "input", "tmp", "secret"  # in its room
OUTSIDE = ("outside", "linked")  # where names and links lead, each with a SECRET


class Progress:
    """How far a target is, where another process can read it."""

    def __init__(self, file: Path, place: int) -> None:
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), 0)
        self._at = slice(place * NUMBERS.size, (place + 1) * NUMBERS.size)
        numbers = NUMBERS.unpack(self._map[self._at])
        self.done, self.begun, self.loads, self.refusals, self.slowest, self.memory = numbers

    def write(self) -> None:
        """Let others read it."""
        numbers = (self.done, self.begun, self.loads, self.refusals, self.slowest, self.memory)
        self._map[self._at] = NUMBERS.pack(*numbers)


def _clear(folder: Path, kept: set[str], inside: str = "") -> None:
    """Empty a folder, but for folders that stay, as to make and to remove one is slow."""
    with os.scandir(folder / inside) as entries:
        for entry in entries:
            name = os.path.join(inside, entry.name)
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
            elif name in kept:
                _clear(folder, kept, name)
            else:
                shutil.rmtree(entry.path)


class Run:
    """One target's inputs, from where an earlier process ended."""

    def __init__(self, target: Target, folder: Path, progress: Progress, bounds: Sandbox) -> None:
        self.target, self.folder, self.progress, self.sandbox = target, folder, progress, bounds
        self.room = folder / ROOM
        for name in (INPUT, TEMPORARY, *OUTSIDE):
            (self.room / name).mkdir(parents=True, exist_ok=True)
        for name in OUTSIDE:
            (self.room / name / SECRET).write_bytes(b"{}")
        os.environ |= {"HOME": str(self.room / "home"), "TMPDIR": str(self.room / TEMPORARY)}
        os.chdir(self.room)
        self.untouched = self._outside_times()
        inside = (self.room / INPUT, self.room / TEMPORARY)
        bounds.folders = tuple(map(os.path.realpath, inside))
        bounds.allows = target.allows
        bounds.linked = () if target.is_confined else (os.path.realpath(self.room / OUTSIDE[1]),)
        self.coverage = LineCoverage(outcome.PACKAGE)
        self.places = set[str]()
        self.corpus = target.inputs(folder / "scratch")
        self.kept: list[Files] = []
        self.faults = (folder / FAULTS).open("a")

    def warm_up(self) -> None:
        """Import what the parser imports and start what it starts, with an honest input."""
        for files in self.corpus[:2]:
            self._place(files)
            try:
                self.target.parse(self.room / INPUT)
            except Exception:
                continue  # it is reported when its turn comes
        gc.collect()
        sandbox.limit_memory()
        self.baseline = sandbox.peak_memory()

    def go(self, effort: Effort) -> None:
        """Try all inputs that are left, or as many as there is time for."""
        until = time.monotonic() + effort.seconds
        inputs = max(effort.inputs, len(self.corpus))
        while self.progress.begun < inputs and time.monotonic() < until:
            files = self._input(self.progress.begun, effort.seed)
            self._place(files)
            self.progress.begun += 1
            self.progress.write()
            self._try(files)
            self.progress.write()
        self.progress.done = 1
        self.progress.write()

    def _input(self, number: int, seed: int) -> Files:
        """The corpus as it is, then changes of it and of what reached something new."""
        if number < len(self.corpus):
            return self.corpus[number]
        rng = random.Random(f"{self.target.name} {seed} {number}")
        pool = self.kept if self.kept and rng.random() < 0.5 else self.corpus
        files = mutate(rng.choice(pool), pool, rng, self.target.focus)
        if self.target.seal is not None and rng.random() < 0.5:
            files = self.target.seal(files)
        return files

    def _place(self, files: Files) -> None:
        _clear(self.room / INPUT, {str(p) for name in files for p in PurePath(name).parents})
        write_files(files, self.room / INPUT)

    def _try(self, files: Files) -> None:
        begin = time.perf_counter()
        place, fault = "loads", ""
        try:
            with self.sandbox.watching():
                self.target.parse(self.room / INPUT)
        except BaseException as error:
            place, fault = outcome.place_of(error), outcome.find_fault(error)
        seconds = time.perf_counter() - begin
        if self.sandbox.escapes or (written := self._written_outside()):
            what = self.sandbox.escapes[0] if self.sandbox.escapes else written
            place = fault = f"escape: {what}"
        progress = self.progress
        progress.slowest = max(progress.slowest, seconds)
        progress.memory = max(progress.memory, sandbox.peak_memory() - self.baseline)
        reached = f"{bool(fault)} {place}"  # one place may refuse well and badly
        is_new = reached not in self.places
        self.places.add(reached)
        if fault and is_new:
            self._report(place, fault, files)
        elif not fault:
            progress.loads += place == "loads"
            progress.refusals += place != "loads"
        if (self.coverage.take_new() or is_new) and not fault and len(self.kept) < KEPT:
            self.kept.append(files)

    def _written_outside(self) -> str:
        """Say what is beside the parser's folders: libraries open files that no audit sees."""
        if self._outside_times() == self.untouched:
            return ""
        names = {*os.listdir(self.room), *(x for n in OUTSIDE for x in os.listdir(self.room / n))}
        self.untouched = self._outside_times()
        return f"{names - {INPUT, TEMPORARY, SECRET, *OUTSIDE} or SECRET} was written"

    def _outside_times(self) -> list[int]:
        folders = [self.room, *(self.room / name for name in OUTSIDE)]
        secrets = [folder / SECRET for folder in folders[1:]]
        return [os.stat(path).st_mtime_ns for path in (*folders, *secrets)]

    def _report(self, place: str, fault: str, files: Files) -> None:
        kept = self.folder / FAULTY / f"{self.progress.begun - 1}"
        kept.mkdir(parents=True, exist_ok=True)
        write_files(files, kept)
        line = {"number": self.progress.begun - 1, "place": place, "fault": fault}
        self.faults.write(json.dumps({**line, "input": str(kept)}) + "\n")
        self.faults.flush()


def find_target(name: str) -> Target:
    """Find `MODULE:NAME`, a target in the list TARGETS of a module."""
    module, _, wanted = name.partition(":")
    found: Sequence[Target] = importlib.import_module(module).TARGETS
    return next(target for target in found if target.name == wanted)


def main(folder: Path) -> None:
    """Do a task."""
    faulthandler.enable()
    task = json.loads((folder / TASK).read_text())
    bounds = sandbox.make_sandbox()
    for place, (name, effort) in enumerate(task["targets"]):
        progress = Progress(folder / PROGRESS, place)
        if progress.done:
            continue
        target = find_target(name)
        run = Run(target, folder / target.name, progress, bounds)
        run.warm_up()
        if task["replay"]:
            run.corpus = [read_files(Path(task["replay"]))]
        with run.coverage:
            run.go(Effort(**effort))
    sys.stdout.flush()
    os._exit(DONE)  # threads of libraries don't matter any more


if __name__ == "__main__":
    main(Path(sys.argv[1]))
