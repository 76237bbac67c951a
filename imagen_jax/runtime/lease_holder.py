"""The holder of a lease: a process, told from every other that has been or will be."""

import os
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from imagen_jax.config.decode import decode
from imagen_jax.config.names import check_line
from imagen_jax.io import json_reader
from imagen_jax.runtime.lease_file import FREE, ReadLease

PROCESSES = range(1, 2**22 + 1)  # numbers that Linux gives


@dataclass(frozen=True)
class Holder:
    """A process, as no other has been or will be."""

    host: str
    process: int
    begun: str  # ticks of the kernel: numbers of processes are used again
    machine: str  # its boot and its namespace of processes; "" where the system doesn't say
    command: str
    since: str
    owner: str

    @classmethod
    def here(cls, command: str) -> "Holder":
        """This process."""
        return cls(
            host=socket.gethostname(),
            process=os.getpid(),
            begun=_started_at(os.getpid()),
            machine=_machine(),
            command=command,
            since=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            owner=secrets.token_hex(8),
        )

    @property
    def is_here(self) -> bool:
        """Return whether the process can be looked up on this machine."""
        return self.machine not in ("", "?") and self.machine == _machine()

    @property
    def lives(self) -> bool:
        """Return whether the process, of this machine, runs."""
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # somebody else's
        # "" where processes of others are hidden
        return _started_at(self.process) in (self.begun, "")

    def __str__(self) -> str:
        return f"process {self.process} of {self.host} ({self.command})"


UNKNOWN = Holder("another host", 0, "", "?", "unknown", "", "?")  # of a file that is half written


def parse_holder(seen: ReadLease) -> Holder | None:
    """The holder that a lease names.

    None for nobody, UNKNOWN for what is no lease or is being written.
    """
    if seen.text.strip() == FREE:
        return None
    try:
        fields = json_reader.parse_object(seen.text, where="it", remedy="delete it")
        fields.pop("at", None)
        found = decode(Holder, fields, "it")
        for text in (found.host, found.command, found.since):
            check_line(text, "it")
    except ValueError:
        return UNKNOWN
    return found if found.process in PROCESSES else UNKNOWN


def _machine() -> str:
    """Identify this machine: the kernel's boot, and the namespace of its process numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started_at(process: int) -> str:
    """Return when a process started; "" if unknown, "ended" for one that only waits for its
    parent."""
    try:
        after = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if after[0] in "ZX" else after[19]
