"""Sharpness against edges whose width is known."""

import numpy as np
import pytest

from imagen_jax.evaluate.sharpness import sharpness


def ramp(width: int, *, ground: int = 64, height: int = 120) -> np.ndarray:
    """One picture with one vertical edge that takes `width` pixels."""
    line = np.interp(np.arange(ground), [20, 20 + width], [10, 10 + height])
    picture = np.broadcast_to(line[None, :, None], (ground, ground, 3))
    return picture[None].astype(np.uint8)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_an_edge_counts_its_height_over_its_width(width: int) -> None:
    assert sharpness(ramp(width)) == pytest.approx(120 / width, rel=0.02)


def test_plain_ground_and_the_number_of_edges_count_nothing() -> None:
    assert sharpness(ramp(2, ground=40)) == pytest.approx(sharpness(ramp(2, ground=200)))
    assert sharpness(np.concatenate([ramp(2)] * 3)) == pytest.approx(sharpness(ramp(2)))
    both = np.concatenate([ramp(2), ramp(8)])
    many = np.concatenate([ramp(2)] * 70 + [ramp(8)] * 70)  # more than are looked at at once
    assert sharpness(many) == pytest.approx(sharpness(both))
    assert sharpness(np.full((1, 16, 16, 3), 77, np.uint8)) == 0.0


def test_horizontal_edges_count_as_vertical_ones_do() -> None:
    assert sharpness(ramp(3).swapaxes(1, 2)) == pytest.approx(sharpness(ramp(3)))
