"""Writers of a run's metrics and images: JSON lines, TensorBoard, Weights & Biases on request."""

import json
import logging
import secrets
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from imagen_jax import config, extras
from imagen_jax.config.names import check_name
from imagen_jax.io import log_files, whole_files, workdir
from imagen_jax.io.workdir import Workdir

LINES = "metrics.jsonl"
LONGEST = 256  # bytes of a file of one line
RUN_ID = "wandb_id.txt"  # Weights & Biases' name of the run, so that each start resumes it


@runtime_checkable
class Writer(Protocol):
    """One place for metrics and images. Errors of all: those of the disk, or of a service."""

    name: str  # for people

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write metrics of a step."""
        ...

    def images(self, step: int, images: np.ndarray) -> None:
        """Write images (b, h, w, 3) uint8 of a step."""
        ...

    def close(self) -> None:
        """Finish what is being written."""
        ...


class JsonlWriter:
    """One JSON object a line; images are left out."""

    def __init__(self, folder: Path) -> None:
        self._log = log_files.JsonLines(folder / LINES)
        self.name = str(self._log.file)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._log.add({"step": step, "time": time.time(), **values})

    def images(self, step: int, images: np.ndarray) -> None:
        """Do nothing: lines are for metrics."""

    def close(self) -> None:
        """Do nothing: each line is written at once."""


class TensorBoardWriter:
    """An event file; those of steps after `start`, which are computed again, are hidden.

    tensorboardX's own writer has a thread that dies of a full disk, and then blocks the writer.
    """

    def __init__(self, folder: Path, *, start: int) -> None:
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        self._file, self._start = folder / name, start
        logging.getLogger("tensorboardX").setLevel(logging.ERROR)  # the guard logs NaN
        self.name = "TensorBoard's events"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        tags = [summary.scalar(tag, value).value[0] for tag, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=tags)))

    def images(self, step: int, images: np.ndarray) -> None:
        self._write(Event(step=step, summary=summary.image("samples", images, dataformats="NHWC")))

    def close(self) -> None:
        """Nothing: no event is on its way."""

    def _write(self, event: Event) -> None:
        begun = self._file.is_file() and self._file.stat().st_size
        records = [] if begun else [_record(e) for e in self._first()]
        log_files.append_line(self._file, b"".join([*records, _record(event)]))

    def _first(self) -> list[Event]:
        found = [Event(file_version="brain.Event:2")]
        if self._start:
            found.append(Event(step=self._start, session_log=SessionLog(status=SessionLog.START)))
        return found


def _record(event: Event) -> bytes:
    """An event as its file has it: length and bytes, each with its sum."""
    event.wall_time = time.time()
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return length + sums[0] + data + sums[1]


class WandbWriter:
    """The same run of Weights & Biases at every start; its id is in the run's folder.

    The x axis is our own step, not theirs, which must not go back after a crash.
    Errors: ValueError when the package is missing, or when it can't log in.
    """

    name = "Weights & Biases"

    def __init__(self, place: Workdir, folder: Path, experiment: config.Experiment) -> None:
        project = experiment.train.wandb_project
        extras.require("wandb", f"train.wandb_project={project} needs")
        import wandb

        file = place / RUN_ID
        if not file.is_file():
            workdir.write(file, secrets.token_hex(4))
        try:
            self._run = wandb.init(
                project=project,
                id=check_name(_read_line(file), f"the run's name in {file}"),
                resume="allow",
                name=f"{place.parent.name}/{place.name}",
                dir=folder,
                config=json.loads(config.to_json(experiment)),
                settings=wandb.Settings(silent=True),
            )
        except wandb.Error as error:
            raise ValueError(
                f"train.wandb_project={project}: {error}; `wandb login` first, or set "
                "WANDB_MODE=offline"
            ) from error
        self._run.define_metric("*", step_metric="step")
        self._image = wandb.Image

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def images(self, step: int, images: np.ndarray) -> None:
        self._run.log({"step": step, "samples": [self._image(x) for x in images]})

    def close(self) -> None:
        self._run.finish()


def _read_line(file: Workdir) -> str:
    """Read a file of one short line. Errors: OSError."""
    return whole_files.read_beginning(file, LONGEST).decode(errors="replace").strip()


def make_writers(
    place: Workdir, folder: Path, experiment: config.Experiment, *, start: int
) -> list[Writer]:
    """Make the writers of a run in `place`, whose logs are written in `folder`.

    Weights & Biases is left out, and that is logged, where it can't start for want of room.
    Errors: ValueError, as `WandbWriter`.
    """
    found: list[Writer] = []
    if experiment.train.wandb_project:
        try:
            found.append(WandbWriter(place, folder, experiment))
        except OSError as error:
            log_files.report_failure(WandbWriter.name, error)
    return [*found, JsonlWriter(folder), TensorBoardWriter(folder, start=start)]
