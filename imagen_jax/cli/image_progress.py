"""The progress bar of a command that goes through images in batches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def image_progress(
    unfinished: Path, doing: str, *, total: int, kept: str = "the images so far"
) -> Iterator[Callable[[str, int], None]]:
    """A progress bar of `total` images, and the stop that a signal asks for between two batches."""
    from tqdm import tqdm

    from imagen_jax.parallel import distributed
    from imagen_jax.runtime import preemption

    with (
        preemption.watch_between_batches(
            unfinished, distributed.metadata_server(), kept=kept
        ) as check,
        tqdm(desc=doing, total=total, unit="image", dynamic_ncols=True) as bar,
    ):

        def step(what: str, done: int) -> None:
            bar.set_description(what)
            bar.update(done)
            check()

        yield step
