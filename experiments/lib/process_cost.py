"""What an `imagen` command takes: seconds, seconds of CPU and memory, as the kernel counts them.

As a program, `python process_cost.py PIPE COMMAND...`, it runs a command and writes its cost. The
kernel counts the memory of the process that begins another as that one's, so a small one begins it.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

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
    from imagen_jax.runtime.child_process import imagen_command

    reader, writer = os.pipe()
    line = [sys.executable, __file__, str(writer), *imagen_command(*arguments)]
    with os.fdopen(reader) as told:
        try:
            child = subprocess.Popen(line, pass_fds=[writer])
        finally:
            os.close(writer)
        try:
            code = child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise
        if code:
            raise subprocess.CalledProcessError(code, line[3:])
        return ProcessCost(**json.loads(told.read()))


def _run(writer: int, line: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and the command
    started, child = time.perf_counter(), subprocess.Popen(line)
    try:
        _, status, used = os.wait4(child.pid, 0)
    except BaseException:
        child.terminate()
        child.wait()
        raise
    child.returncode = code = os.waitstatus_to_exitcode(status)
    cost = ProcessCost(
        seconds=time.perf_counter() - started,
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_bytes=used.ru_maxrss * KILOBYTE,
    )
    with os.fdopen(writer, "w") as told:
        json.dump(dataclasses.asdict(cost), told)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(_run(int(sys.argv[1]), sys.argv[2:]))
