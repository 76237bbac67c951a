"""Profiler traces of chosen steps, on demand: where a step's time goes, device by device."""

from collections.abc import Callable
from typing import Any

import jax

from imagen_jax.config.sentences import abridge
from imagen_jax.io.log_files import Guard

FOLDER = "profile"
LONGEST = 10  # digits of a step


class ProfileWindow:
    """A hook of the training loop that traces the steps of a range, such as 100:105 (100 to 104).

    Open the trace with TensorBoard's profile plugin, or with XProf: `xprof RUN/profile`.
    """

    def __init__(self, steps: range) -> None:
        self._steps = steps
        self._tracing = self._past = False

    def __call__(self, step: int, state: Any, progress: Any) -> None:
        """After each step: begin before the first of the range, end after the last."""
        if self._tracing and step >= self._steps[-1]:
            jax.block_until_ready(state)
            self._tracing, self._past = False, True
            if self._guarded(jax.profiler.stop_trace):
                progress.info(
                    f"steps {self._steps[0]} to {self._steps[-1]} are traced, in {FOLDER}/ of this "
                    "run"
                )
        elif step + 1 == self._steps[0]:
            jax.block_until_ready(state)
            self._tracing = self._guarded(
                lambda: jax.profiler.start_trace(str(progress.folder / FOLDER))
            )
            self._past = not self._tracing
        elif step >= self._steps[0] and not (self._tracing or self._past):
            progress.info(
                f"--profile-steps {self._steps[0]}:{self._steps.stop}: nothing is traced, as this "
                f"start begins with step {step}"
            )
            self._past = True

    def _guarded(self, act: Callable[[], object]) -> bool:
        """Tell whether the profiler could do it; its errors have no common kind."""
        return Guard("the profile").run(act)


def parse_window(text: str, *, last: int) -> range:
    """The steps that "100:105" names, the second one left out, as in Python.

    Errors: ValueError for another form, for the first step, which compiles, and for steps past the
    run's `last`.
    """
    first, colon, stop = text.partition(":")
    if not (colon and _is_number(first) and _is_number(stop) and int(first) < int(stop)):
        raise ValueError(f"--profile-steps {abridge(text)}: give FIRST:STOP, such as 100:105")
    if int(first) < 2:
        raise ValueError(f"--profile-steps {abridge(text)}: step 1 compiles; begin with 2 or later")
    if int(stop) - 1 > last:
        raise ValueError(f"--profile-steps {abridge(text)}: the run ends with step {last}")
    return range(int(first), int(stop))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= LONGEST
