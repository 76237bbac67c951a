"""Processes that work together: how they find each other, and how many there have to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from imagen_jax.config.ranges import Parallel, Range, Whole, check_options
from imagen_jax.config.validate import require


@dataclass(frozen=True)
class Processes:
    """Processes that take part; nothing to give on Cloud TPU, or for one process."""

    coordinator: str | None = None
    """HOST:PORT of process 0, the same on all; not on Cloud TPU, where jax finds the others."""
    processes: Parallel | None = None
    """Number of processes there have to be; another number is refused."""
    process_id: Whole | None = None
    """Number of this one, from 0; with --coordinator."""
    heartbeat_timeout: Annotated[
        int, Range(low=5, remedy="below 5 seconds a slow process counts as gone")
    ] = 60
    """Seconds without a heartbeat until a process counts as gone; then the others end, too."""

    def __post_init__(self) -> None:
        check_options(self)
        given = self.coordinator is not None
        require(
            given == (self.process_id is not None) and (not given or self.processes is not None),
            f"--coordinator {self.coordinator}, --processes {self.processes} and --process-id "
            f"{self.process_id}: elsewhere than on Cloud TPU give all three",
        )
        require(
            self.process_id is None or self.process_id < (self.processes or 1),
            f"--process-id {self.process_id}: of {self.processes} processes the last is number "
            f"{(self.processes or 1) - 1}",
        )
