"""The last finished step, in a file that outlives the process that writes it.

One `pwrite` a step, about a microsecond: the bytes are the kernel's at once, so they are exact even
after SIGKILL. The file is on this machine, not in a workdir that a network may delay.
"""

import os
from pathlib import Path

from imagen_jax.io.log_files import Guard

VARIABLE = "IMAGEN_REACHED"  # in a supervised child's environment: the file
_WIDTH = 128  # bytes, always overwritten whole


class StepRecorder:
    """A hook of the training loop: called after each step of the stage `name`."""

    def __init__(self, file: Path, *, name: str) -> None:
        self.name, self._guard = name, Guard(str(file))
        self._handle = os.open(file, os.O_WRONLY | os.O_CREAT)

    def __call__(self, step: int, *_: object) -> None:
        """Note that `step` is finished."""
        told = f"step {step} of {self.name}".ljust(_WIDTH).encode()
        self._guard.run(lambda: os.pwrite(self._handle, told, 0))


def read_step(file: Path) -> str | None:
    """Such as "step 12 of base64"; None before the first step."""
    return (file.read_text().strip() or None) if file.is_file() else None
