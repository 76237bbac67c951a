"""What a frozen text encoder tells of emoji's captions: subject, style and skin tone.

A linear classifier reads the mean of a caption's encodings. It learns from the captions of training
and is asked about those of held-out combinations, which it has never seen. What it finds, a network
that attends to every token can find, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32, Int
from lib import command
from lib.emoji_images import REASONS, meaning
from lib.results import Page, collect_settings, shell_command, write_page, write_results
from matplotlib.figure import Figure
from tqdm import tqdm

from imagen_jax import config
from imagen_jax.data.synthetic.emoji import styles_dataset
from imagen_jax.text.encoder import TextEncoder

NAME = "emoji_words"
SPLITS = ("train", "validation", "held_out")
OTHERWISE = "held out otherwise"  # for both reasons, or as a near duplicate
WEIGHT_DECAY = 1e-4


@dataclasses.dataclass(frozen=True)
class Options:
    """Encoders to compare, and how the classifier learns."""

    encoders: tuple[str, ...] = ("t5_1_1_tiny", "t5_1_1_mini")
    """Embedded encoders, or folders with a T5X checkpoint."""
    configs: Path = Path("configs/emoji/base32.py")
    """The config whose length of captions counts."""
    data_dir: Path = Path("data")
    """Where `imagen data build emoji --styles ...` wrote the dataset."""
    epochs: config.Count = 40
    """Visits of every caption of training."""
    batch_size: config.Count = 1024
    """Captions a step."""
    learning_rate: config.Positive = 0.01
    """Of Adam, falling to zero on a cosine."""
    out: Path = Path("results")
    """Folder for plot, table and numbers."""
    seed: config.Seed = 0
    """Seed of the order of captions."""

    def __post_init__(self) -> None:
        config.check_options(self)


@dataclasses.dataclass(frozen=True)
class Asked:
    """Captions, what each is of, by question, and the group that each is judged in."""

    captions: list[str]
    labels: dict[str, list[str]]
    groups: list[str]


def run(options: Options) -> None:
    """Encode, learn, ask; writes emoji_words.png, .md and .json.

    Errors: FileNotFoundError where the dataset is not built.
    """
    experiment = config.load(str(options.configs))[0]
    asked = read_captions(options.data_dir)
    results: dict[str, Any] = {}
    for name in options.encoders:
        encoder = TextEncoder.load(name, max_length=experiment.text.max_length)
        features = mean_encodings(encoder, asked.captions)
        results[Path(name).name] = {
            "width": encoder.width,
            **{q: _shares(features, asked, q, options) for q in asked.labels},
        }
    kept = collect_settings(options, experiment, leave_out=("configs",))
    write_results(options.out, NAME, kept, results)
    write_page(options.out, NAME, _page(results), made_by=shell_command(NAME, options))


def read_captions(data_dir: Path) -> Asked:
    """Every caption of the dataset with its answers; skin tones are one, `none` or `several`."""
    asked = Asked([], {"subject": [], "style": [], "skin tone": []}, [])
    groups = {reason: group for group, reason in REASONS.items()}
    for split in SPLITS:
        for example in styles_dataset.open_styles(split, data_dir):
            meant, said = meaning(example), example["captions"]
            answers = {
                "subject": meant.subject,
                "style": meant.style,
                "skin tone": "several" if len(meant.tones) > 1 else str(*meant.tones) or "none",
            }
            asked.captions.extend(said)
            group = groups.get(example["held_out"], OTHERWISE if split == "held_out" else split)
            asked.groups.extend([group] * len(said))
            for question, answer in answers.items():
                asked.labels[question].extend([answer] * len(said))
    return asked


def mean_encodings(encoder: TextEncoder, captions: Sequence[str]) -> Float32[np.ndarray, "p d"]:
    """The mean of each caption's encodings, over its tokens."""
    plan = encoder.plan(captions)
    found = np.zeros((len(captions), encoder.width), np.float32)
    for row, encoding in tqdm(encoder.run(plan), "encode", len(captions), unit=" captions"):
        found[row] = np.asarray(encoding, np.float32).mean(axis=0)
    return found


def _shares(
    features: Float32[np.ndarray, "p d"], asked: Asked, question: str, options: Options
) -> dict[str, float]:
    """Percent of right answers, by group, of a classifier that learns from training's captions.

    Captions of an answer that training has none of are left out.
    """
    groups = np.array(asked.groups)
    seen = sorted({a for a, g in zip(asked.labels[question], groups, strict=True) if g == "train"})
    number = {answer: index for index, answer in enumerate(seen)}
    labels = np.array([number.get(answer, -1) for answer in asked.labels[question]])
    learned = groups == "train"
    scale = features[learned].mean(axis=0), features[learned].std(axis=0) + 1e-6
    scaled = (features - scale[0]) / scale[1]
    weights = fit_linear(scaled[learned], labels[learned], classes=len(seen), options=options)
    right = np.argmax(scaled @ weights["kernel"] + weights["bias"], axis=1) == labels
    known = labels >= 0
    return {g: 100 * float(right[known & (groups == g)].mean()) for g in dict.fromkeys(groups)}


def fit_linear(
    features: Float32[np.ndarray, "p d"],
    labels: Int[np.ndarray, " p"],
    *,
    classes: int,
    options: Options,
) -> Mapping[str, np.ndarray]:
    """A linear classifier, by cross-entropy with some weight decay."""
    steps = max(1, options.epochs * len(features) // options.batch_size)
    rate = optax.cosine_decay_schedule(options.learning_rate, steps)
    optimiser = optax.adamw(rate, weight_decay=WEIGHT_DECAY)
    start = {"kernel": jnp.zeros((features.shape[1], classes)), "bias": jnp.zeros(classes)}

    def loss(weights: Any, x: Float[Array, "b d"], y: Int[Array, " b"]) -> Float[Array, ""]:
        logits = x @ weights["kernel"] + weights["bias"][None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def update(weights: Any, state: Any, x: Float[Array, "b d"], y: Int[Array, " b"]) -> Any:
        gradients = jax.grad(loss)(weights, x, y)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes floats with its count
            updates, state = optimiser.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state

    draw = np.random.default_rng(options.seed)
    weights, state = start, optimiser.init(start)
    for _ in tqdm(range(steps), "learn", unit=" steps"):
        rows = draw.integers(0, len(features), min(options.batch_size, len(features)))
        weights, state = update(weights, state, features[rows], labels[rows])
    return jax.tree.map(np.asarray, weights)


def plot(results: Mapping[str, Any]) -> Figure:
    """Percent right for each question and group, a bar for each encoder."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    questions = [key for key in next(iter(results.values())) if key != "width"]
    axes = figure.subplots(1, len(questions), sharey=True, squeeze=False)[0]
    for axis, question in zip(axes, questions, strict=True):
        for index, (name, found) in enumerate(results.items()):
            shares = found[question]
            places = np.arange(len(shares)) + 0.8 * index / len(results)
            axis.bar(places, list(shares.values()), 0.8 / len(results), label=name)
            axis.set_xticks(np.arange(len(shares)), list(shares), rotation=30, fontsize=7)
        axis.set(title=question, ylim=(0, 100))
    axes[0].set_ylabel("right, %")
    axes[0].legend(fontsize=7, loc="lower left")
    return figure


def _page(results: Mapping[str, Any]) -> Page:
    rows = [
        {
            "encoder": f"{name}, {found['width']} wide",
            "question": question,
            **{group: f"{share:.1f}" for group, share in shares.items()},
        }
        for name, found in results.items()
        for question, shares in found.items()
        if question != "width"
    ]
    return Page(
        title="What encodings tell of emoji's captions",
        text="Percent of captions whose subject, style and skin tone a linear classifier reads "
        "from the mean of their encodings. It learns from the captions of `train`; those of other "
        "groups are none of them.",
        rows=rows,
        figure=plot(results),
    )


if __name__ == "__main__":
    command.main(Options, run, description=__doc__)
