"""Sentences about a prepared store, for people."""

from imagen_jax.data.prepare.encode import ProcessShare, Written
from imagen_jax.data.prepare.jobs import EncodeJob
from imagen_jax.data.sources import base
from imagen_jax.data.sources.base import Address, Source
from imagen_jax.data.store import skipped
from imagen_jax.data.store.store import Store


def summarize_store(written: Written, job: EncodeJob, share: ProcessShare | None = None) -> str:
    """Describe the written store, or this process's share of it, in lines to print."""
    counts = written.counts
    what = f"(image, encoding) pairs of {job.address.dataset} ({job.address.split})"
    if written.store is not None:
        lines = [f"{written.store.count:,} {what} in {job.folder}", *_skipped(written.store)]
    else:
        assert share is not None  # alone, a process completes it
        lines = [
            f"process {share.process} of {share.processes} is done with its share of the {what}; "
            f"the last one completes {job.folder}, which all of them have to see"
        ]
    length = job.text.max_length
    if counts.captions:
        padded = counts.different * length
        lines.append(
            f"{counts.different:,} different captions of {counts.captions:,} encoded: "
            f"{counts.useful / counts.different:.1f} tokens each, "
            f"{counts.useful / counts.computed:.1%} of the tokens computed are useful, "
            f"{padded / counts.computed:.1f} times fewer than padded to {length}; "
            f"stored as {job.text_dtype} with an error of {counts.error:.2%}"
        )
    if counts.cut:
        lines.append(f"{counts.cut:,} captions are longer than {length} tokens and were cut")
    return "\n".join(map(base.make_printable, lines))  # paths may be no Unicode


def describe_skipped(source: Source, address: Address) -> str:
    """Describe a source's files that are no examples, in a line to print; "" for none."""
    if not source.skipped:
        return ""
    return (
        f"{base.make_printable(address.dataset)} itself left out "
        f"{base.summarise_skips(source.skipped)}; {skipped.FILE} and `imagen data check` name "
        "more\n"
    )


def _skipped(found: Store) -> list[str]:
    """The line about examples of the source that a store lacks, if there are any."""
    if not found.skipped:
        return []
    return [
        f"{found.examples - found.count:,} of {found.examples:,} examples were skipped: "
        f"{skipped.summarise_skipped(found.skipped)}; each is listed in "
        f"{found.folder / skipped.FILE}"
    ]
