"""`imagen` and `python -m imagen_jax`: the command, in a process whose memory is in huge pages."""

import os
import sys

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # read by glibc when a process starts


def run() -> None:
    """Run the command, after a restart with huge pages where none says otherwise.

    XLA takes a program's memory from the system at each call: in small pages a seventh of a large
    training step on CPUs. Only glibc 2.35 or newer knows the variable; others ignore it.
    """
    if sys.platform == "linux" and not HUGE_PAGES.keys() & os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | HUGE_PAGES)
    from imagen_jax.cli import main

    main()


if __name__ == "__main__":
    run()
