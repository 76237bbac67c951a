"""A monitor of updates: a part of the network that hardly learns is reported, once."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from imagen_jax import config
from imagen_jax.train import optim
from imagen_jax.train.step import SKIPPED
from imagen_jax.types import Params

# Of the parameters' norm, over the learning rate: Adam, Muon and unscaled Adafactor make .2 and
# more; Adafactor scaled by a part that began at zero makes .01.
SHARE = 0.03
LEAST_RMS = 0.1  # of parameters whose norm is taken: those that began at zero have hardly any
LONG = 200  # steps after the warm-up


class UpdateMonitor:
    """Compares the updates of each part of the network with its parameters."""

    def __init__(self, experiment: config.Experiment) -> None:
        self._options = experiment.optim
        self._rate = optim.schedule(experiment.optim, steps=experiment.train.steps)
        self._since: dict[str, int] = {}  # the first step of those at which a part hardly moved
        self._reported: set[str] = set()

    def check(
        self,
        steps: Mapping[int, Mapping[str, Any]],
        params: Params,
        found: Mapping[str, Any],
    ) -> Sequence[str]:
        """Return sentences about parts that hardly moved for long, each part once.

        `steps` are the metrics of the last steps; `found` has each part's `param_norm/PART`.
        """
        after = {
            step: metrics
            for step, metrics in steps.items()
            if step > self._options.warmup_steps and not metrics[SKIPPED]
        }
        if not after:
            return []
        first, last = min(after), max(after)
        with jax.numpy_dtype_promotion("standard"):
            least = SHARE * float(self._rate(last - 1))
        sentences = []
        for part in params.keys() - self._reported - self._held(params):
            update = np.mean([float(metrics[f"update_norm/{part}"]) for metrics in after.values()])
            count = sum(leaf.size for leaf in jax.tree.leaves(params[part]))
            norm = max(float(found[f"param_norm/{part}"]), LEAST_RMS * count**0.5)
            if not update < least * norm:
                self._since.pop(part, None)
            elif last - self._since.setdefault(part, first) >= LONG:
                self._reported.add(part)
                sentences.append(self._sentence(part, float(update / norm), least, last))
        return sorted(sentences)

    def _held(self, params: Params) -> set[str]:
        """Parts that have frozen parameters: how far they move is what was asked for."""
        if not self._options.frozen:
            return set()
        trained = optim.select_trained(params, self._options.frozen)
        return {part for part, leaves in trained.items() if not all(jax.tree.leaves(leaves))}

    def _sentence(self, part: str, share: float, least: float, step: int) -> str:
        remedy = "raise optim.learning_rate"
        if self._options.kind == "adafactor" and self._options.adafactor_param_scale:
            remedy = "set optim.adafactor_param_scale to False"
        return (
            f"{part} hardly learns: from step {self._since[part]} to {step} an update had "
            f"{share:.1e} of its parameters' norm (of RMS {LEAST_RMS:g} at least), and "
            f"{SHARE:g} times the learning rate is {least:.1e}: {remedy}"
        )
