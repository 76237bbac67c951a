"""Lists of time steps that DeepFloyd published, by their names: "smart50", "fast27" and others.

Each splits the 1,000 steps into equal sections, and takes so many of every section.
"""

from collections.abc import Sequence

from imagen_jax.config.digits import parse_whole
from imagen_jax.discrete_schedule import STEPS

PRESETS = {
    "fast27": (10, 10, 3, 2, 2),
    "smart27": (7, 4, 2, 1, 2, 4, 7),
    "smart50": (10, 6, 4, 3, 2, 2, 3, 4, 6, 10),
    "smart100": (1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7, 7, 8, 9, 10, 13),
    "smart185": (1, 1, 2, 2, 2, 3, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20),
    "super27": (1, 1, 1, 1, 1, 1, 1, 2, 5, 13),
    "super40": (2, 2, 2, 2, 2, 2, 3, 4, 6, 15),
    "super100": (4, 4, 6, 6, 8, 8, 10, 10, 14, 30),
}


def preset(name: str) -> tuple[int, ...]:
    """Return the time steps of a preset, from the noisiest on. Errors: ValueError."""
    if name not in PRESETS:
        raise ValueError(f"no time steps {name!r}; there are {', '.join(PRESETS)}")
    return sectioned_steps(PRESETS[name])


def parse_list(text: str) -> tuple[int, ...]:
    """Read "999:600:0", or a preset's name. Errors: ValueError."""
    return preset(text) if text in PRESETS else tuple(map(parse_whole, text.split(":")))


def sectioned_steps(counts: Sequence[int]) -> tuple[int, ...]:
    """Return as many time steps of each section of all as `counts` says, from the noisiest on.

    Sections are equal; the first are one longer where they don't divide. Positions within a section
    are added up in float64 and rounded half to even: multiplied, or rounded as numbers of all
    steps, one of "super40" or of "smart100" would be another.
    """
    size, longer = divmod(STEPS, len(counts))
    found, start = set[int](), 0
    for number, count in enumerate(counts):
        length = size + (number < longer)
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        position = 0.0
        for _ in range(count):
            found.add(start + round(position))
            position += stride
        start += length
    return tuple(sorted(found, reverse=True))
