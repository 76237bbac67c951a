"""People's preferences between two sets of images: their CSV, and shares with intervals."""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imagen_jax import config
from imagen_jax.config.names import check_line
from imagen_jax.io import text_files

COLUMNS = ("study", "rater", "index", "category", "prompt", "question", "left", "choice")
QUESTIONS = ("fidelity", "alignment")
CHOICES = ("A", "same", "B")
VOTED = ("study", "rater", "index", "category", "question", "choice")  # fields of `Vote`
Z = 1.959963984540054  # standard normal, of 95 % on both sides
DRAWS, FEWEST_DRAWS = 10_000, 1000  # of the bootstrap; the second of very many prompts
DRAWN = 20_000_000  # prompts that are drawn in all of them
MOST_ANSWERS, MOST_CATEGORIES = 100_000, 200


@dataclass(frozen=True)
class Vote:
    """One answer."""

    study: str
    rater: str
    index: str  # of the prompt
    category: str
    question: str
    choice: str


class Share(NamedTuple):
    """A share of the answers with its interval of 95 %, in percent."""

    share: float
    low: float
    high: float


def read_votes(files: Sequence[Path]) -> list[Vote]:
    """Read the answers of several people.

    Errors: ValueError, by the line, for a table of another form, answers of two pages, or one that
    is there twice; OSError.
    """
    votes: dict[tuple[str, str, str], Vote] = {}
    for file in files:
        reader = csv.reader(io.StringIO(text_files.read_text(file), newline=""), strict=True)
        try:
            rows = list(reader)
        except csv.Error as error:
            raise ValueError(f"{file}, line {reader.line_num}: {error}") from error
        if not rows or tuple(rows[0]) != COLUMNS:
            raise ValueError(
                f"{file} has no columns {', '.join(COLUMNS)}: give preferences.csv, as the page of "
                "`imagen eval --pairs` downloads it"
            )
        for number, row in enumerate(filter(None, rows[1:]), 1):
            vote = _vote(f"{file}, answer {number}", row)
            key = (vote.rater, vote.index, vote.question)
            if key in votes:
                raise ValueError(
                    f"{file}, answer {number}: {vote.rater} has answered {vote.question} of prompt "
                    f"{vote.index} before: give each file once, and each person another name"
                )
            votes[key] = vote
    if len(studies := {vote.study for vote in votes.values()}) > 1:
        raise ValueError(f"these are answers on {len(studies)} pages: score each alone")
    _check_counts(list(votes.values()), ", ".join(map(str, files)))
    return list(votes.values())


def _check_counts(votes: Sequence[Vote], where: str) -> None:
    """Errors: ValueError for no answer, or for more of them or of categories than are scored."""
    config.require(bool(votes), f"{where}: no answer is there")
    counted = {"answers": (len(votes), MOST_ANSWERS)}
    counted["categories"] = (len({vote.category for vote in votes}), MOST_CATEGORIES)
    for what, (count, most) in counted.items():
        if count > most:
            raise ValueError(f"{where}: {count:,} {what}, more than {most:,}: score a part of them")


def score(votes: Iterable[Vote]) -> dict[str, dict[str, Share]]:
    """By question, the share of each choice.

    With one answer a prompt the interval is Wilson's; with several, whose answers depend on the
    prompt, it is the percentile bootstrap over prompts.
    """
    votes = list(votes)
    asked = [q for q in QUESTIONS if any(vote.question == q for vote in votes)]
    return {q: _shares([vote for vote in votes if vote.question == q]) for q in asked}


def by_category(votes: Sequence[Vote]) -> dict[str, dict[str, dict[str, Share]]]:
    """The same of each category; {} where there is none."""
    groups: dict[str, list[Vote]] = {}
    for vote in votes:
        if vote.category:
            groups.setdefault(vote.category, []).append(vote)
    return {name: score(group) for name, group in groups.items()}


def wilson(count: int, total: int) -> tuple[float, float]:
    """Wilson's interval of 95 % for a share, both ends in [0, 1].

    Source: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    share = count / total
    scale = 1 + Z * Z / total
    middle = (share + Z * Z / (2 * total)) / scale
    half = Z * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


def _shares(votes: Sequence[Vote]) -> dict[str, Share]:
    counts = Counter(vote.choice for vote in votes)
    prompts = sorted({vote.index for vote in votes})
    found = {}
    ends: Mapping[str, tuple[float, float]]
    if len(prompts) == len(votes):
        ends = {choice: wilson(counts[choice], len(votes)) for choice in CHOICES}
    else:
        ends = _bootstrap(votes, prompts)
    for choice in CHOICES:
        low, high = ends[choice]
        found[choice] = Share(100 * counts[choice] / len(votes), 100 * low, 100 * high)
    return found


def _bootstrap(votes: Sequence[Vote], prompts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Ends of intervals when prompts are drawn again, each with all its answers."""
    place = {prompt: number for number, prompt in enumerate(prompts)}
    counts = np.zeros((len(prompts), len(CHOICES)))  # answers by prompt and choice
    for vote in votes:
        counts[place[vote.index], CHOICES.index(vote.choice)] += 1
    draw, draws = np.random.default_rng(0), min(DRAWS, max(FEWEST_DRAWS, DRAWN // len(prompts)))
    drawn = draw.multinomial(len(prompts), np.full(len(prompts), 1 / len(prompts)), draws) @ counts
    shares = drawn / drawn.sum(axis=1, keepdims=True)
    low, high = np.percentile(shares, [2.5, 97.5], axis=0)
    return {choice: (float(low[i]), float(high[i])) for i, choice in enumerate(CHOICES)}


def _vote(where: str, row: Sequence[str]) -> Vote:
    if len(row) != len(COLUMNS):
        raise ValueError(f"{where} has {len(row)} fields, not {len(COLUMNS)}")
    values = dict(zip(COLUMNS, row, strict=True))
    for column, known in (("question", QUESTIONS), ("choice", CHOICES)):
        if values[column] not in known:
            raise ValueError(
                f"{where}: {column} {config.shorten(values[column])} is none of {', '.join(known)}"
            )
    for column in ("study", "rater", "index", "category"):
        check_line(values[column], f"{where}: {column}")
    return Vote(**{name: values[name] for name in VOTED})
