"""Hosts on one machine: each with a network of its own where Linux lets us, else on loopback."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

# A host whose name is its address: libraries that look their own up (gloo) find it.
NAMED = 'echo "$0" >/proc/sys/kernel/hostname && exec "$@"'


@dataclass(frozen=True)
class Host:
    """A host's address for the others, and the words before each of its commands."""

    address: str = "127.0.0.1"
    words: tuple[str, ...] = ()


@contextlib.contextmanager
def join_hosts(count: int) -> Iterator[tuple[str, list[Host]]]:
    """This process's address for hosts, and the hosts.

    Where this is root of a Linux with `ip` and `unshare`, each host is a network namespace; a
    bridge joins them, and they reach nothing else.
    """
    bridge, network = f"im{os.getpid()}", f"198.18.{os.getpid() % 256}"  # for tests, by RFC 2544
    spaces = [f"{bridge}-{n}" for n in range(count)]
    enter = ("unshare", "--uts", "sh", "-c", NAMED)
    with contextlib.ExitStack() as made:
        for space in spaces:
            made.callback(_run, f"ip netns del {space}", check=False)
        made.callback(_run, f"ip link del {bridge}", check=False)
        try:
            _run(f"ip link add {bridge} type bridge")
            _run(f"ip addr add {network}.1/24 dev {bridge}")
            _run(f"ip link set {bridge} up")
            for number, space in enumerate(spaces):
                _run(f"ip netns add {space}")
                _run(f"ip link add {bridge}v{number} type veth peer name eth0 netns {space}")
                _run(f"ip link set {bridge}v{number} master {bridge} up")
                _run(f"ip -n {space} addr add {network}.{number + 2}/24 dev eth0")
                _run(f"ip -n {space} link set eth0 up")
                _run(f"ip -n {space} link set lo up")
            subprocess.run([*enter, "any", "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            place, hosts = "127.0.0.1", [Host()] * count
        else:
            place, addresses = f"{network}.1", [f"{network}.{n + 2}" for n in range(count)]
            inside = [("ip", "netns", "exec", space, *enter) for space in spaces]
            hosts = [Host(a, (*w, a)) for a, w in zip(addresses, inside, strict=True)]
        yield place, hosts


def _run(words: str, *, check: bool = True) -> None:
    with contextlib.nullcontext() if check else contextlib.suppress(OSError):
        subprocess.run(words.split(), check=check, capture_output=True)
