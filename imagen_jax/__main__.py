"""`imagen` and `python -m imagen_jax`: the command, in a process that keeps its memory."""

import os
import sys

# XLA takes a program's temporary memory on CPUs from malloc at each call. It is in huge pages, and
# stays with the process: what a step of `backend.dispatch_inline` frees, the next one takes without
# a page fault. glibc reads this when a process starts.
MEMORY = {
    "GLIBC_TUNABLES": (
        f"glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold={2**40}"
    )
}


def run() -> None:
    """Run the command, after a restart with `MEMORY` where its variable is not set.

    Only glibc 2.35 or newer knows huge pages; others ignore them.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], MEMORY | os.environ)
    from imagen_jax.cli import main

    main()


if __name__ == "__main__":
    run()
