"""The summary at the beginning of a dry run."""

import shlex

import pytest

from imagen_jax.cli import launch_summary
from imagen_jax.cloud.run_record import LaunchSpec, Limits, RunRecord
from imagen_jax.cloud.tpu_slice import Slice

WORKDIR = "gs://bucket/runs/mine"
NOW = 1e9


def summarize(accelerator: str, price: float | None = None, **more: object) -> dict[str, str]:
    """The summary's lines by their names."""
    wanted = Slice(accelerator=accelerator, zone="us-west4-a", **more)
    limits = Limits(until=NOW + 24 * 3600, max_restarts=7, linger=1800)
    job = LaunchSpec(run_id="mine", workdir=WORKDIR, commands=())
    run = RunRecord(job=job, wanted=wanted, limits=limits, before=2)
    text = launch_summary.summarize(run, price=price, now=NOW)
    lines = [line.removeprefix("# ").split(maxsplit=1) for line in text.splitlines()]
    return dict(lines)


@pytest.mark.parametrize(
    ("accelerator", "more", "machines", "hour", "most"),
    [
        ("v5litepod-8", {}, "8 chips of v5e on 1 host: v5litepod-8", 9.60, 235),
        ("v4-512", {}, "256 chips of v4 on 64 hosts: v4-512", 824.32, 20_196),
        ("v6e-1", {"slices": 2}, "2 chips of v6e on 2 hosts: 2 slices of v6e-1", 5.40, 132),
    ],
)
def test_chips_hosts_and_dollars(accelerator, more, machines, hour, most) -> None:
    found = summarize(accelerator, **more)
    assert found["machines"] == f"{machines} in us-west4-a, on-demand"
    assert found["price"].startswith(f"${hour:,.2f} an hour, at $")
    assert "on demand in the US in 2025" in found["price"]
    assert found["ceiling"].startswith(f"${most:,} at most: 24 hours until the deadline and 0.5")


def test_a_price_that_is_given() -> None:
    found = summarize("v5litepod-8", 0.5, provisioning="spot")
    assert found["price"] == "$4.00 an hour, at $0.50 a chip hour (--price)"
    assert found["ceiling"].startswith("$98 at most")
    assert found["machines"].endswith("us-west4-a, spot")


def test_a_price_that_nobody_knows() -> None:
    found = summarize("v3-8")
    assert found["price"] == "not known for v3: give --price DOLLARS, of a chip hour"
    assert "not known" in found["ceiling"]


def test_what_is_created_and_deleted() -> None:
    found = summarize("v5litepod-8")
    assert "queued resource mine-3, and up to 7 more" in found["creates"]
    assert f"{WORKDIR}/launch" in found["creates"]
    assert "mine-3 with its nodes" in found["deletes"]


def test_what_to_do_next() -> None:
    own = ["tiny", "--accelerator", "v5litepod-8", "--dry-run", "--before", "a b"]
    of_train = ["--", "--dry-run"]
    line = launch_summary.describe_next([*own, *of_train])
    assert line.startswith("# next     imagen launch tpu tiny")
    own.remove("--dry-run")
    assert shlex.split(line, comments=False)[2:] == ["imagen", "launch", "tpu", *own, *of_train]
