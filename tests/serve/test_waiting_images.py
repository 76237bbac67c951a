"""The queue: turns of clients, stages, bounds."""

import threading

import pytest
from served_images import PATIENCE, ask

from imagen_jax.serve.image_request import Ticket
from imagen_jax.serve.waiting_images import QueueFull, WaitingImages


def ticket(client: str, count: int = 1, **options: object) -> Ticket:
    return Ticket(ask(0, count=count, **options), client, lambda event: None)


def clients(jobs: list) -> str:
    return "".join(job.ticket.client for job in jobs)


@pytest.fixture
def waiting() -> WaitingImages:
    return WaitingImages(stages=2, most=12)


def test_clients_take_turns(waiting: WaitingImages) -> None:
    waiting.add(ticket("a", 6))
    waiting.add(ticket("b", 2))
    waiting.add(ticket("c", 1))
    assert clients(waiting.take(4, wait=False)) == "abca"
    assert clients(waiting.take(4, wait=False)) == "baaa"
    assert clients(waiting.take(4, wait=False)) == "a"
    assert waiting.take(4, wait=False) == []


def test_a_batch_has_images_of_the_same_options(waiting: WaitingImages) -> None:
    waiting.add(ticket("a", 2, steps=2))
    waiting.add(ticket("b", 2))
    waiting.add(ticket("c", 1, steps=2))
    assert clients(waiting.take(8, wait=False)) == "aca"
    assert clients(waiting.take(8, wait=False)) == "bb"


def test_whose_options_differ_has_its_turn_all_the_same(waiting: WaitingImages) -> None:
    waiting.add(ticket("a", 8))
    waiting.add(ticket("b", 1, steps=2))
    assert [clients(waiting.take(2, wait=False)) for _ in range(3)] == ["aa", "b", "aa"]


def test_what_has_begun_goes_first(waiting: WaitingImages) -> None:
    waiting.add(ticket("a", 2))
    begun = waiting.take(2, wait=False)
    waiting.add(ticket("b", 2))
    for job in begun:
        job.stage = 1
    waiting.add_begun(begun)
    assert waiting.take(8, wait=False) == begun
    assert clients(waiting.take(8, wait=False)) == "bb"


def test_all_images_of_a_request_wait_or_none(waiting: WaitingImages) -> None:
    waiting.add(ticket("a", 10))
    with pytest.raises(QueueFull) as full:
        waiting.add(ticket("b", 3))
    assert full.value.waiting == len(waiting) == 10
    waiting.add(ticket("b", 2))
    assert len(waiting) == 12


def test_a_request_given_up_leaves_no_trace(waiting: WaitingImages) -> None:
    first, second = ticket("a", 5), ticket("a", 2)
    waiting.add(first)
    waiting.add(second)
    (job,) = waiting.take(1, wait=False)
    job.stage = 1
    waiting.add_begun([job])
    waiting.discard(first)
    assert len(waiting) == 2
    assert [job.ticket for job in waiting.take(9, wait=False)] == [second, second]
    assert not waiting.take(9, wait=False)


def test_one_that_waits_is_woken_by_an_image_and_by_the_end(waiting: WaitingImages) -> None:
    found: list[list] = []
    thread = threading.Thread(
        target=lambda: found.extend([waiting.take(1, wait=True), waiting.take(1, wait=True)])
    )
    thread.start()
    waiting.add(ticket("a"))
    waiting.close()
    thread.join(PATIENCE)
    assert [clients(jobs) for jobs in found] == ["a", ""]
