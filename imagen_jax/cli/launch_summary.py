"""The beginning of a dry run: what a launch takes, costs at most, creates and deletes."""

import shlex
from collections.abc import Sequence

from imagen_jax.cloud import tpu_slice
from imagen_jax.cloud.run_record import RunRecord


def summarize(run: RunRecord, *, price: float | None, now: float) -> str:
    """Return the summary, a table of lines.

    `price` is in dollars an hour of one chip, `now` in seconds since 1970.
    """
    wanted, limits, folder = run.wanted, run.limits, run.job.folder
    name = f"{run.job.run_id}-{run.next_number}"
    parts = {
        "machines": f"{_count(wanted.chips, 'chip')} of {wanted.generation} on "
        f"{_count(wanted.hosts, 'host')}: {_slices(wanted)} in {wanted.zone}, "
        f"{wanted.provisioning}",
        "price": _describe_price(wanted, price),
        "ceiling": _describe_ceiling(run, price, now),
        "creates": f"queued resource {name}, and up to {limits.max_restarts} more in its place, "
        f"one at a time; in the bucket {run.job.workdir} (the run) and {folder} (code, record, "
        "reports, logs)",
        "deletes": f"at the end {name} with its nodes, however the run ends; what is in the bucket "
        "stays",
    }
    return "\n".join(f"# {key:<9}{value}" for key, value in parts.items())


def describe_next(words: Sequence[str]) -> str:
    """Return the line with the command that does what the dry run shows.

    `words` are the arguments after `imagen launch tpu`.
    """
    cut = words.index("--") if "--" in words else len(words)
    own = [word for word in words[:cut] if word.replace("_", "-") != "--dry-run"]
    return f"# {'next':<9}{shlex.join(['imagen', 'launch', 'tpu', *own, *words[cut:]])}"


def _slices(wanted: tpu_slice.Slice) -> str:
    many = f"{wanted.slices} slices of " if wanted.slices > 1 else ""
    return f"{many}{wanted.accelerator}"


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number:,} {what}s"


def _chip_hour(wanted: tpu_slice.Slice, price: float | None) -> float | None:
    return tpu_slice.PRICES.get(wanted.generation) if price is None else price


def _describe_price(wanted: tpu_slice.Slice, price: float | None) -> str:
    dollars = _chip_hour(wanted, price)
    if dollars is None:
        return f"not known for {wanted.generation}: give --price DOLLARS, of a chip hour"
    hour = f"${dollars * wanted.chips:,.2f} an hour, at ${dollars:,.2f} a chip hour"
    if price is not None:
        return f"{hour} (--price)"
    return (
        f"{hour}, on demand in the US in {tpu_slice.PRICES_OF}: look at "
        "cloud.google.com/tpu/pricing and give --price"
    )


def _describe_ceiling(run: RunRecord, price: float | None, now: float) -> str:
    """Dollars until the deadline, and until machines that nobody deletes delete themselves."""
    hours = (run.limits.until - now) / 3600
    linger = run.limits.linger / 3600
    dollars = _chip_hour(run.wanted, price)
    times = f"{hours:,.4g} hours until the deadline and {linger:,.4g} of --linger"
    if dollars is None:
        return f"{times}, at a price that is not known"
    return f"${dollars * run.wanted.chips * (hours + linger):,.0f} at most: {times}"
