"""Packing: every token once, in order, in few rows; batches of few shapes."""

import numpy as np
import pytest

from imagen_jax.text import packing


def web_lengths(count: int, *, seed: int = 0) -> np.ndarray:
    """Caption lengths as they are on the web: mean 20 tokens, tail to 128."""
    drawn = np.random.default_rng(seed).lognormal(np.log(16), 0.65, count)
    return np.clip(np.round(drawn), 2, 128).astype(int)


def captions(lengths: np.ndarray) -> list[list[int]]:
    """Ids that tell their caption and their place in it."""
    return [[1000 * n + k + 1 for k in range(length)] for n, length in enumerate(lengths)]


def test_every_caption_lies_whole_in_its_place() -> None:
    ragged = captions(web_lengths(500))
    plan = packing.plan_rows(ragged, length=128, batch_rows=16)
    seen = np.zeros(plan.tokens.shape, int)
    for ids, (row, start, end) in zip(ragged, plan.places, strict=True):
        assert plan.tokens[row, start:end].tolist() == ids
        (segment,) = set(plan.segments[row, start:end].tolist())
        assert segment > 0
        assert (plan.segments[row] == segment).sum() == len(ids)  # no other has its number
        seen[row, start:end] += 1
    assert seen.max() == 1
    np.testing.assert_array_equal(seen == 0, plan.segments == 0)
    np.testing.assert_array_equal(seen == 0, plan.tokens == 0)


def test_padding_is_under_three_percent_of_a_realistic_shard() -> None:
    lengths = web_lengths(8192)
    assert 19 < lengths.mean() < 21
    assert lengths.max() == 128
    plan = packing.plan_rows(captions(lengths), length=128, batch_rows=128, devices=8)
    assert plan.useful == lengths.sum()
    assert plan.useful / plan.computed > 0.97
    assert 128 * len(lengths) / plan.computed > 6  # against padding to 128


def test_batches_hold_all_rows_in_few_shapes() -> None:
    for count in (1, 3, 40, 333):
        plan = packing.plan_rows(captions(web_lengths(count)), length=128, batch_rows=16, devices=2)
        rows = [row for b in plan.batches for row in range(b.first, b.last)]
        assert rows == list(range(len(plan.tokens)))
        assert {b.rows for b in plan.batches[:-1]} <= {16}
        assert plan.batches[-1].rows in (2, 4, 8, 16)
        assert plan.computed == 128 * sum(b.rows for b in plan.batches)
        held = [index for members in plan.members() for index in members]
        assert sorted(held) == list(range(count))
        for batch, members in zip(plan.batches, plan.members(), strict=True):
            tokens, segments = plan.inputs(batch)
            assert tokens.shape == segments.shape == (batch.rows, 128)
            assert {plan.places[i].row for i in members} == set(range(batch.first, batch.last))
            assert not segments[batch.last - batch.first :].any()


def test_nothing_is_planned_for_nothing() -> None:
    plan = packing.plan_rows([], length=128, batch_rows=8)
    assert (plan.batches, plan.places, plan.useful, plan.computed) == ((), (), 0, 0)


@pytest.mark.parametrize(("longest", "row"), [(1, 128), (128, 128), (129, 256), (256, 256)])
def test_rows_are_multiples_of_the_lanes_of_a_tpu(longest: int, row: int) -> None:
    assert packing.row_length(longest) == row


def test_refusals_name_the_numbers() -> None:
    with pytest.raises(ValueError, match="129 tokens does not fit a row of 128"):
        packing.plan_rows(captions(np.array([3, 129])), length=128, batch_rows=8)
    with pytest.raises(ValueError, match="batches of 6 rows do not divide over 4 devices"):
        packing.plan_rows(captions(np.array([3])), length=128, batch_rows=6, devices=4)
