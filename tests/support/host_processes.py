"""Commands of `imagen` as processes on hosts that form one program."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from host_networks import Host

PROGRAM = "from imagen_jax.cli import main; main()"


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Hosts:
    """Hosts with a folder each, which is a command's; `stop` ends what is left of commands."""

    def __init__(
        self, folder: Path, env: Mapping[str, str], networks: Sequence[Host] = (Host(), Host())
    ) -> None:
        self.env = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", **env}
        self.folders = [folder / f"host{n}" for n in range(len(networks))]
        self._networks = networks
        self._started: list[subprocess.Popen] = []
        for one in self.folders:
            (one / "home").mkdir(parents=True)

    def start(self, arguments: Sequence[str]) -> list[subprocess.Popen]:
        """The same command on all of them."""
        count = len(self._networks)
        joined = ["--coordinator", f"{self._networks[0].address}:{free_port()}"]
        joined += ["--processes", str(count), "--heartbeat-timeout", "10"]
        return [
            self.run([*arguments, *joined, "--process-id", str(n)], host=n) for n in range(count)
        ]

    def run(self, arguments: Sequence[str], host: int = 0) -> subprocess.Popen:
        """A command on one of them."""
        started = subprocess.Popen(
            [*self._networks[host].words, sys.executable, "-c", PROGRAM, *arguments],
            cwd=self.folders[host],
            env={**self.env, "HOME": str(self.folders[host] / "home")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(started)
        return started

    def stop(self) -> None:
        """End every command."""
        for process in self._started:
            if process.poll() is None:
                kill(process)
            process.communicate(timeout=60)


def kill(process: subprocess.Popen) -> None:
    """End a command and what it started, as a power cut does."""
    (children,) = Path(f"/proc/{process.pid}/task").glob(f"{process.pid}/children")
    for number in [process.pid, *map(int, children.read_text().split())]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def end(processes: Sequence[subprocess.Popen], code: int = 0) -> list[str]:
    """What each says in the end: its output, or the last line of its errors where it fails."""
    ended = [process.communicate(timeout=400) for process in processes]
    codes = [process.returncode for process in processes]
    assert codes == [code] * len(processes), "\n".join(out + err for out, err in ended)
    return [err.strip().splitlines()[-1] if code else out for out, err in ended]
