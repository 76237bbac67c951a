"""What an `imagen` command takes: seconds, seconds of CPU and memory, as the kernel counts them."""

import dataclasses
import os
import subprocess
import time

from imagen_jax.runtime.child_process import imagen_command

KILOBYTE = 1024


@dataclasses.dataclass(frozen=True)
class ProcessCost:
    """The cost of a process."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int  # resident, at most


def measure_command(*arguments: str) -> ProcessCost:
    """Run an `imagen` command to its end.

    Errors: CalledProcessError where it fails.
    """
    line, started = imagen_command(*arguments), time.perf_counter()
    child = subprocess.Popen(line)
    try:
        _, status, used = os.wait4(child.pid, 0)
    except BaseException:
        child.terminate()
        child.wait()
        raise
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, line)
    return ProcessCost(
        seconds=time.perf_counter() - started,
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_bytes=used.ru_maxrss * KILOBYTE,
    )
