"""The state of a run in a few lines, its logs, and what it left behind."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from imagen_jax.cloud import gcloud, untrusted
from imagen_jax.cloud.gcloud import Gcloud, MissingResourceError
from imagen_jax.cloud.observe import HeartbeatTracker, furthest_step, observe
from imagen_jax.cloud.restart_policy import LOST
from imagen_jax.cloud.run_record import Attempt, RunRecord
from imagen_jax.cloud.tpu_slice import Slice
from imagen_jax.io import log_files

METRICS = ("metrics.jsonl", "*/metrics.jsonl")  # of a stage; of a cascade's stages
LAST = 8192  # bytes of the end of the metrics that are read
STEP = re.compile("[0-9]{1,18}")  # the name of a checkpoint's folder
MOST = 16 << 20  # bytes of the end of a log: a worker copies no more


def status_text(cloud: Gcloud, run: RunRecord) -> str:
    """Slice, workers, training, attempts. Errors: gcloud.GcloudError."""
    wanted, current = run.wanted, run.current
    lines = [
        f"run       {run.job.run_id}, {run.job.workdir}",
        f"slice     {wanted.slices} x {wanted.accelerator}, {wanted.provisioning}, {wanted.zone}",
    ]
    if run.finished is not None:
        lines.append(f"ended     {run.finished}")
    if current is not None:
        seen = observe(cloud, run, current, HeartbeatTracker(time.monotonic))
        states = f"; slices {', '.join(seen.nodes)}" if seen.nodes else ""
        reason = f" ({seen.reason})" if seen.reason else ""
        lines.append(f"resource  {run.name(current)}: {seen.queued}{reason}{states}")
        for report in seen.reports:
            ended = f" with code {report.code}" if report.code is not None else ""
            lines.append(
                f"worker {report.worker}  {report.phase}{ended}, {report.step or 'no step yet'}"
            )
        lines.append(f"reached   {furthest_step(seen.reports) or 'no step yet'}")
    lines += [f"training  {line}" for line in _training(cloud, run.job.workdir)]
    lines += [f"attempt {a.number} {_describe(a)}" for a in run.attempts]
    left = max(run.limits.until - time.time(), 0) / 3600
    used = max(len(run.attempts) - 1, 0)
    lines.append(f"limits    {used} of {run.limits.max_restarts} restarts used, {left:.1f} h left")
    return "\n".join(lines)


def _describe(attempt: Attempt) -> str:
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(attempt.made))
    return f"{made}: {attempt.ended or 'present'}"


def _training(cloud: Gcloud, workdir: str) -> Iterator[str]:
    """Describe each stage that logs: step, loss, images/s and the last checkpoint."""
    for pattern in METRICS:
        try:
            listed = cloud.run(gcloud.ls(f"{workdir}/{pattern}")).splitlines()
        except MissingResourceError:
            continue
        # A name with an end of a line in it is several here, which gcloud may take for options.
        for file in filter(re.compile(f"{re.escape(workdir)}/.*metrics.jsonl").fullmatch, listed):
            *_, last = (
                {},
                *log_files.parse_entries(cloud.run(gcloud.cat(file, last=LAST)), "step", "loss"),
            )
            rates = (v for k, v in last.items() if k.endswith("images_per_s"))
            rate = next((v for v in rates if isinstance(v, float)), None)
            stage = file.removesuffix("/metrics.jsonl")
            words = [f"{untrusted.spell_unprintable(stage)}: step {last.get('step')}"]
            words += [f"loss {last['loss']:.4g}"] if "loss" in last else []
            words += [f"{rate:.4g} images/s"] if rate is not None else []
            words.append(f"last checkpoint {_checkpoint(cloud, stage)}")
            yield ", ".join(words)


def _checkpoint(cloud: Gcloud, stage: str) -> str:
    try:
        names = cloud.run(gcloud.ls(f"{stage}/checkpoints/")).split()
    except MissingResourceError:
        return "none"
    steps = [int(n) for name in names if STEP.fullmatch(n := name.rstrip("/").rpartition("/")[2])]
    return str(max(steps)) if steps else "none"


def follow_logs(
    cloud: Gcloud,
    address: str,
    *,
    again: bool,
    every: float = 10.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """A log, and with `again` what is added to it. Errors: ValueError where there is none yet."""
    printed = ""
    while True:
        try:
            found = cloud.run(gcloud.cat(address, last=MOST))
        except MissingResourceError as error:
            if not again:
                raise ValueError(
                    f"{address} is not there: no worker has written a log yet; see "
                    "`imagen launch status`"
                ) from error
            found = printed
        if found != printed:
            yield found.removeprefix(printed)  # whole again where its beginning was cut off
            printed = found
        if not again:
            return
        sleep(every)


def list_remaining(cloud: Gcloud, run: RunRecord) -> list[str]:
    """Names of the run's queued resources that exist. Errors: gcloud.GcloudError."""
    found = cloud.ask(gcloud.every(run.wanted))
    names = (r["name"].rpartition("/")[2] for r in found if _may_be_of(r, run.job.folder))
    return sorted(name for name in names if _is_of(name, run))


def _is_of(name: str, run: RunRecord) -> bool:
    """Compare a name with those of the run's attempts, and of the one that may just be made."""
    run_id, _, number = name.rpartition("-")
    counted = number.isascii() and number.isdigit() and number == str(int(number))
    return run_id == run.job.run_id and counted and 1 <= int(number) <= run.next_number


def _may_be_of(resource: Mapping[str, Any], folder: str) -> bool:
    """False where the machines' metadata say that they are of another run of the same name."""
    nodes = [spec.get("node", {}) for spec in resource.get("tpu", {}).get("nodeSpec", ())]
    folders = [node.get("metadata", {}).get("imagen-folder", folder) for node in nodes]
    return all(other == folder for other in folders)


def list_leftovers(cloud: Gcloud, wanted: Slice, *, everyone: bool) -> list[tuple[str, str]]:
    """Name and state of the queued resources of a zone that hold quota and never come back.

    Those of `imagen launch` alone, by their label and name, unless `everyone`.
    Errors: gcloud.GcloudError.
    """
    found = cloud.ask(gcloud.every(wanted))
    dead = [r for r in found if r.get("state", {}).get("state") in LOST]
    named = [(r["name"].rpartition("/")[2], r) for r in dead]
    return sorted(
        (name, resource["state"]["state"])
        for name, resource in named
        if everyone or _is_launched(name, resource)
    )


def _is_launched(name: str, resource: Mapping[str, Any]) -> bool:
    """Return whether a resource has the label and the name that `imagen launch` gives."""
    nodes = resource.get("tpu", {}).get("nodeSpec", [])
    runs = {node.get("node", {}).get("labels", {}).get("run") for node in nodes}
    run_id, _, number = name.rpartition("-")
    return runs == {run_id} and number.isascii() and number.isdigit()
