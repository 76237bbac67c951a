"""Spans of steps: about a quarter of a second, from one step on, and cut where an image is due."""

import pytest
from served_images import ask

from imagen_jax.serve.batches import Batches
from imagen_jax.serve.image_request import Ticket
from imagen_jax.serve.metrics import Metrics
from imagen_jax.serve.spans import SECONDS, Spans
from imagen_jax.serve.waiting_images import Job


def test_a_span_is_one_step_at_first_and_then_twice_as_long_at_most() -> None:
    spans, seen = Spans(), []
    for _ in range(8):
        seen.append(spans.choose_steps("base"))
        spans.note("base", steps=seen[-1], seconds=seen[-1] * SECONDS / 50)
    assert seen == [1, 2, 4, 8, 16, 32, 50, 50]
    assert spans.choose_steps("other") == 1


def test_a_span_shrinks_at_once_to_what_lasts_that_long() -> None:
    spans = Spans()
    spans.note("base", steps=1, seconds=SECONDS / 2)
    assert spans.choose_steps("base") == 2
    spans.note("base", steps=2, seconds=40 * SECONDS)
    assert spans.choose_steps("base") == 1


def test_no_steps_say_nothing_of_their_time() -> None:
    spans = Spans()
    spans.note("base", steps=0, seconds=1e-9)
    assert spans.choose_steps("base") == 1


@pytest.mark.parametrize(("partials", "first_span"), [(0, 24), (1, 12), (2, 8), (3, 6)])
def test_a_span_ends_where_a_partial_image_is_due(quick, partials: int, first_span: int) -> None:
    """Of 24 steps; the time of a step would allow more."""
    batches = Batches(quick.imagen, 8, Metrics())
    request = ask(1, size=(8, 8), steps=24, partials=partials)
    batches._spans._seconds[0, (8, 8)] = SECONDS / 1000
    events: list = []
    running = batches.begin([Job(Ticket(request, "", events.append), 0, 0.0)])
    assert running.span == first_span
    done = batches.complete(running)
    assert done is not None
    assert [event.share for event in events] == [n / (partials + 1) for n in range(1, partials + 1)]
    assert not batches.finish(done)
