"""Steps, learning rate and averaging of a short run on a few images."""

import dataclasses
from dataclasses import dataclass

from imagen_jax import config

STEPS_PER_IMAGE = 50
FEWEST, MOST = 400, 2000  # steps
BATCH = 32
CLASS_IMAGES = 400  # and at least so many; each subject's image has as many of its class
CLASS_PER_IMAGE = 40
RATES = {True: 2e-3, False: 2e-4}  # of adapters, and of all weights
AVERAGED = 10  # steps of the run by the mean age of its moving average
WARMUP = 20  # steps of the run by those of the warm-up


@dataclass(frozen=True, kw_only=True)
class Choices:
    """A run's length and rates."""

    steps: int
    batch_size: int
    learning_rate: float
    ema_decay: float
    class_images: int
    rank: int  # of adapters; 0: all weights

    def describe(self) -> str:
        """One sentence for people."""
        what = f"adapters of rank {self.rank}" if self.rank else "all weights"
        return (
            f"{what}, {self.steps:,} steps of {self.batch_size} images, learning rate "
            f"{self.learning_rate:g}, average over {1 / (1 - self.ema_decay):.0f} steps, "
            f"{self.class_images:,} images of the class"
        )


def choose(
    images: int, *, rank: int, batch_size: int, steps: int = 0, class_prompts: int = 0
) -> Choices:
    """Choose for so many images of the subject; `batch_size` is that of the stage's training.

    `steps` are given or, where 0, chosen. Each of the `class_prompts` has an image at least.

    Ours: 50 steps an image, between 400 and 2,000, and an average over a tenth of them.
    """
    steps = steps or min(max(STEPS_PER_IMAGE * images, FEWEST), MOST)
    return Choices(
        steps=steps,
        batch_size=min(batch_size, BATCH),
        learning_rate=RATES[rank > 0],
        ema_decay=max(1 - AVERAGED / steps, 0.0),
        class_images=max(CLASS_IMAGES, CLASS_PER_IMAGE * images, class_prompts),
        rank=rank,
    )


def adapt(
    experiment: config.Experiment, choices: Choices, *, data: config.Data, base: str
) -> config.Experiment:
    """Return the stage's experiment as a short run over `data` that begins with `base`."""
    optim = config.Optim(
        kind="adam",
        learning_rate=choices.learning_rate,
        warmup_steps=choices.steps // WARMUP,
        clip_norm=experiment.optim.clip_norm,
        ema_decay=choices.ema_decay,
    )
    train = dataclasses.replace(
        experiment.train,
        steps=choices.steps,
        batch_size=choices.batch_size,
        micro_batches=1,
        save_every=max(choices.steps // 4, 1),
        sample_every=0,
        sample_prompts=(),
    )
    adapters = config.Lora(rank=choices.rank, base=base if choices.rank else "")
    return dataclasses.replace(
        experiment, optim=optim, train=train, data=data, lora=adapters, layout=None
    )
