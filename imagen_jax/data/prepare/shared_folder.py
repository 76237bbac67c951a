"""Proof that several processes write to one folder: what one of them writes there, all see."""

import secrets
import time
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from imagen_jax.io import folder_files
from imagen_jax.io.workdir import Workdir

PATIENCE = 10.0  # seconds: network file systems show a new file a little later
PERIOD = 0.2  # seconds between two looks


def require_shared(folder: Workdir) -> None:
    """Refuse a folder that this program's processes do not share; a bucket is shared.

    All processes call this together; process 0 makes the folder.
    Errors: ValueError, in every process, with the remedies; OSError of process 0's disk.
    """
    if jax.process_count() == 1 or not isinstance(folder, Path):
        return
    token = np.asarray(multihost_utils.broadcast_one_to_all(np.uint32(secrets.randbits(32))))
    marker = folder / f"shared-{int(token):08x}.tmp"
    made, failure = not folder.exists(), None
    if jax.process_index() == 0:
        failure = _write(marker)
    multihost_utils.sync_global_devices("the marker of a shared folder is written")
    sees = np.asarray(multihost_utils.process_allgather(np.array([_sees(marker)]))).ravel()
    if jax.process_index() == 0:
        folder_files.delete(marker)
        if made and not sees.all() and failure is None:
            folder.rmdir()
    if failure is not None:
        raise failure
    if not sees.all():
        blind = ", ".join(str(number) for number, one in enumerate(sees) if not one)
        raise ValueError(
            f"{folder} is not one folder for all {len(sees)} processes: what process 0 writes "
            f"there is not seen by {blind}; write to a bucket (--out gs://...), to a folder of a "
            "file system that all of them mount at this path, or encode with one process"
        )


def _write(marker: Path) -> OSError | None:
    """Make a marker and its folder; the reason why that failed, for all processes go on."""
    try:
        folder_files.make_folder(marker.parent)
        marker.touch(exist_ok=False)
    except OSError as error:
        return error
    return None


def _sees(marker: Path) -> bool:
    """Return whether a file is there, or comes soon: a list of its folder is no old knowledge."""
    end = time.monotonic() + PATIENCE
    while marker.name not in folder_files.list_files(marker.parent):
        if time.monotonic() > end:
            return False
        time.sleep(PERIOD)
    return True
