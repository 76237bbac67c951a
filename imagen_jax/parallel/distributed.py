"""Several processes as one program: started together, and a missing one is explained."""

import glob
import importlib.util
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from imagen_jax import config

TIMEOUT = 900  # seconds: large slices need more than jax's 300 to come up


def initialize(options: config.Processes) -> None:
    """Join the other processes, then check that all are here. Before any other use of jax.

    Errors: ValueError when the number of processes is not the one expected, or when they don't find
    each other, with the usual cause.
    """
    import jax  # here: a parent that only asks whether there are several never loads it

    if options.coordinator is not None:
        _join(
            lambda: jax.distributed.initialize(
                options.coordinator,
                num_processes=options.processes,
                process_id=options.process_id,
                initialization_timeout=TIMEOUT,
                heartbeat_timeout_seconds=options.heartbeat_timeout,
            )
        )
    elif _joins_slice():
        _join(
            lambda: jax.distributed.initialize(
                initialization_timeout=TIMEOUT,
                heartbeat_timeout_seconds=options.heartbeat_timeout,
            )
        )
    check(found=jax.process_count(), expected=options.processes)


def exit_process(code: int) -> NoReturn:
    """End this process; one that fails ends at once.

    jax's own end waits minutes for other processes, and they wait for this one in a collective;
    without it they notice within `heartbeat_timeout`. Python's waits for threads, and Orbax has
    some that wait minutes for a save that failed.
    """
    jax = sys.modules.get("jax")
    together = jax is not None and jax.distributed.is_initialized()
    waiting = [t for t in threading.enumerate() if t is not threading.main_thread()]
    if code and (together or any(not thread.daemon for thread in waiting)):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def is_multiprocess(options: config.Processes) -> bool:
    """Tell whether `initialize` joins other processes."""
    return options.coordinator is not None or _joins_slice()


def _joins_slice() -> bool:
    """Tell whether this program uses the chips here, which those of a slice do together."""
    return on_cloud_tpu() and os.environ.get("JAX_PLATFORMS") != "cpu"


def on_cloud_tpu() -> bool:
    """Tell whether this machine has TPU chips and the library to drive them."""
    chips = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
    return bool(chips) and importlib.util.find_spec("libtpu") is not None


def metadata_server() -> str | None:
    """Return the host of Google Cloud's metadata server; None elsewhere.

    The environment variable is the one that Google's own libraries read.
    """
    named = os.environ.get("GCE_METADATA_HOST")
    return named or ("metadata.google.internal" if on_cloud_tpu() else None)


def check(*, found: int, expected: int | None) -> None:
    """Check the number of processes. Errors: ValueError when it is not the expected one."""
    if expected is None or found == expected:
        return
    raise ValueError(
        f"found {found} process(es), expected {expected}: usually the command was started on one "
        "worker only; start it on every worker at the same time (on Cloud TPU: `gcloud compute "
        f"tpus tpu-vm ssh ... --worker=all`), or give --processes {found}"
    )


def _join(initialize: Callable[[], None]) -> None:
    try:
        initialize()
    except RuntimeError as error:  # jax's own is one: a deadline, or a refused connection
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"the processes did not find each other ({reason}): start the command on every worker "
            "at the same time, and let them reach the coordinator's port"
        ) from error
