"""Compile all programs before the first request.

Tracing and lowering hold Python's lock, compiling and reading compiled programs do not: two
programs at a time take less than one after the other. More at once would need more memory than
sampling does, in which a batch is begun while another is finished.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np

from imagen_jax.imagen import Imagen
from imagen_jax.serve import hosts
from imagen_jax.serve.batches import Batches, to_pixels
from imagen_jax.serve.image_request import ImageRequest, Ticket
from imagen_jax.serve.metrics import Metrics
from imagen_jax.serve.waiting_images import Job
from imagen_jax.text.encoder import TextEncoder

AT_ONCE = 2

Size = tuple[int, int]
Task = tuple[str, Callable[[], None]]  # what it compiles


def compile_programs(
    imagen: Imagen,
    sizes: Sequence[Size],
    *,
    batch_size: int,
    report: Callable[[str, float], None],
) -> None:
    """Compile what images of these sizes need, from nothing, from images and with masks.

    And the text encoder, for prompts of all lengths. `report` gets what was compiled, and its
    seconds. Several hosts call it all, and run the programs one by one, in the same order.
    Errors: ValueError for a size that the memory can't hold; those of reading the weights.
    """
    batches = Batches(imagen, batch_size, Metrics())
    for size in sizes:
        batches.check_memory(size)
    tasks = [*_stages(imagen, batches, sizes), *_encoder(imagen)]
    with ThreadPoolExecutor(1 if hosts.are_several() else AT_ONCE) as pool:
        started = [pool.submit(_timed, *task) for task in tasks]
        try:
            for done in as_completed(started):
                report(*done.result())
        finally:
            pool.shutdown(cancel_futures=True)


def _timed(what: str, work: Callable[[], None]) -> tuple[str, float]:
    began = time.monotonic()
    work()
    return what, time.monotonic() - began


def _stages(imagen: Imagen, batches: Batches, sizes: Sequence[Size]) -> Iterator[Task]:
    """Those with masks, which take longest, go first."""
    for with_masks in (True, False):
        for size in sizes:
            blank = np.zeros((*size, 3), np.uint8)
            requests = (
                [_request(size, init_image=blank, mask=np.ones(size, np.bool_))]
                if with_masks
                else [_request(size), _request(size, init_image=blank)]
            )
            for number, trained in enumerate(imagen.stages):
                height, width = batches.sizes(size)[number]
                what = f"{trained.stage.name} of {width}x{height}{' with masks' * with_masks}"
                yield what, functools.partial(_sample, batches, requests, number)


def _request(
    size: Size, init_image: np.ndarray | None = None, mask: np.ndarray | None = None
) -> ImageRequest:
    return ImageRequest(prompt="", size=size, seed=0, init_image=init_image, mask=mask)


def _sample(batches: Batches, requests: Sequence[ImageRequest], number: int) -> None:
    """Make two steps of a stage, of images that nobody gets."""
    for request in requests:
        low_res = None
        if number:
            low_res = np.zeros((*batches.sizes(request.size)[number - 1], 3), np.float32)
        ticket = Ticket(request, "", lambda event: None)
        job = Job(ticket, 0, time.monotonic(), stage=number, low_res=low_res)
        batch = batches.begin([job]).batch
        if not batch.is_done:
            batch.advance()  # of a state that the program made itself
        images, _ = batch.images()
        to_pixels(images)


def _encoder(imagen: Imagen) -> Iterator[Task]:
    encoder = imagen.encoder
    if not isinstance(encoder, TextEncoder):
        return
    for length in encoder.lengths:
        yield (
            f"the text encoder of {length} tokens",
            functools.partial(encoder.compile_length, length),
        )
