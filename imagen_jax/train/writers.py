"""Where a run's figures and pictures go: JSON lines, TensorBoard, Weights & Biases on request."""

import importlib.util
import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from tensorboardX import SummaryWriter

from imagen_jax import config, workdir
from imagen_jax.workdir import Workdir

LINES = "metrics.jsonl"
RUN_ID = "wandb_id.txt"  # Weights & Biases' name of the run, so that each start goes on with it


@runtime_checkable
class Writer(Protocol):
    """One place for figures and pictures."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Figures after a step."""
        ...

    def pictures(self, step: int, pictures: np.ndarray) -> None:
        """Pictures (b, h, w, 3) uint8 after a step."""
        ...

    def close(self) -> None:
        """Finish what is on its way."""
        ...


class Lines:
    """One JSON object a line; pictures are left out."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / LINES).open("a")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step, "time": time.time(), **values}) + "\n")
        self._file.flush()

    def pictures(self, step: int, pictures: np.ndarray) -> None:
        """Nothing: lines are for figures."""

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """Event files; those of steps after `start`, which are made again, are hidden."""

    def __init__(self, folder: Path, *, start: int) -> None:
        self._events = SummaryWriter(str(folder), purge_step=start if start else None)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            self._events.add_scalar(tag, value, step)

    def pictures(self, step: int, pictures: np.ndarray) -> None:
        self._events.add_images("samples", pictures, step, dataformats="NHWC")

    def close(self) -> None:
        self._events.close()


class WeightsAndBiases:
    """The same run of Weights & Biases at every start; its id is in the run's folder.

    The x axis is our own step, not theirs, which must not go back after a crash.
    Errors: ValueError when the package is missing, or when it can't log in.
    """

    def __init__(self, place: Workdir, folder: Path, experiment: config.Experiment) -> None:
        project = experiment.train.wandb_project
        if importlib.util.find_spec("wandb") is None:
            raise ValueError(
                f"train.wandb_project={project}: wandb is missing; pip install 'imagen_jax[wandb]'"
            )
        import wandb

        file = place / RUN_ID
        if not file.is_file():
            workdir.write(file, secrets.token_hex(4))
        try:
            self._run = wandb.init(
                project=project,
                id=file.read_text().strip(),
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

    def pictures(self, step: int, pictures: np.ndarray) -> None:
        self._run.log({"step": step, "samples": [self._image(x) for x in pictures]})

    def close(self) -> None:
        self._run.finish()


def of(place: Workdir, folder: Path, experiment: config.Experiment, *, start: int) -> list[Writer]:
    """Every writer of a run in `place`, whose logs are written in `folder`.

    Errors: those of `WeightsAndBiases`.
    """
    found: list[Writer] = []
    if experiment.train.wandb_project:
        found.append(WeightsAndBiases(place, folder, experiment))
    return [*found, Lines(folder), TensorBoard(folder, start=start)]
