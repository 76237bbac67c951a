"""What a bucket says of a launch, leases, and logs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz.mutator import Files
from fuzz.target import Target

from imagen_jax.cloud import gcloud, observe, run_record, status
from imagen_jax.cloud.gcloud import Gcloud
from imagen_jax.cloud.run_record import Attempt, LaunchSpec, Limits, RunRecord
from imagen_jax.cloud.tpu_slice import Slice
from imagen_jax.io import log_files
from imagen_jax.runtime import lease, lease_file, lease_holder

WORKDIR = "gs://bucket/runs/mine"
WHERE = f"{WORKDIR}/{run_record.FOLDER}/{run_record.FILE}"
RUN = RunRecord(
    job=LaunchSpec(run_id="mine", workdir=WORKDIR, commands=(("imagen", "train", "tiny"),)),
    wanted=Slice(accelerator="v5litepod-8", zone="us-west4-a"),
    limits=Limits(until=9e9),
    attempts=(Attempt(number=1, made=1.0), Attempt(number=2, made=2.0, ended="crash", code=1)),
)


@dataclass(frozen=True)
class Answers(Gcloud):
    """gcloud that answers every question with one text."""

    text: str = ""

    def run(self, command: Any, stdin: str | None = None) -> str:
        return self.text


def _read(folder: Path, name: str) -> str:
    file = folder / name
    return file.read_text(errors="replace") if file.is_file() else ""


def _records(_: Path) -> list[Files]:
    other = run_record.to_json(RUN).replace('"code": null', '"code": "code.zip"')
    return [{run_record.FILE: text.encode()} for text in (run_record.to_json(RUN), other)]


def _parse_record(folder: Path) -> None:
    run = run_record.from_json(_read(folder, run_record.FILE), where=WHERE)
    words = [*gcloud.describe(run.wanted, "x"), *gcloud.every(run.wanted)]
    assert all("\n" not in word and "\0" not in word for word in words)
    assert run_record.from_json(run_record.to_json(run), where=WHERE) == run


def _reports(_: Path) -> list[Files]:
    report = {"worker": 0, "of": 2, "phase": "running", "beat": 3, "code": None, "step": "12"}
    lines = [json.dumps({**report, "worker": n, "said": "the end"}) for n in range(2)]
    return [{"reports": "\n".join(lines).encode()}]


def _parse_reports(folder: Path) -> None:
    cloud = Answers(text=_read(folder, "reports"))
    beats = observe.HeartbeatTracker(lambda: 0.0)
    found = observe.read_reports(cloud, RUN, RUN.attempts[0], beats)
    observe.furthest_step(found)


def _leases(_: Path) -> list[Files]:
    holder = {"host": "a", "process": 3, "begun": "5", "machine": "b", "command": "imagen train"}
    holder |= {"since": "2026-11-29", "owner": "0f"}
    return [{lease.FILE: json.dumps({**holder, "at": 3.0}).encode()}, {lease.FILE: b"{}"}]


def _parse_lease(folder: Path) -> None:
    found = lease_file.open_lease_file(folder, lease.FILE).read()
    if found is not None:
        lease_file.read_time(found.text)
        holder = lease_holder.parse_holder(found)
        str(holder).encode(errors="backslashreplace")
        assert holder is None or holder.is_here in (True, False)


def _logs(_: Path) -> list[Files]:
    lines = [json.dumps({"step": n, "loss": 0.5, "images_per_s": 3.0}) for n in range(3)]
    return [{"metrics.jsonl": "\n".join(lines).encode()}]


def _parse_log(folder: Path) -> None:
    file = folder / "metrics.jsonl"
    log_files.read_entries(file, "step", "loss")
    log_files.repair(file)
    text = _read(folder, "metrics.jsonl")
    list(status._training(_Metrics(text=text), WORKDIR))


@dataclass(frozen=True)
class _Metrics(Answers):
    """A bucket with one log."""

    def run(self, command: Any, stdin: str | None = None) -> str:
        listing = any(word in ("ls", "list") for word in command)
        return f"{WORKDIR}/base/metrics.jsonl\n" if listing else self.text


TARGETS = [
    Target(name="launch_record", corpus=_records, parse=_parse_record),
    Target(name="worker_reports", corpus=_reports, parse=_parse_reports),
    Target(name="lease", corpus=_leases, parse=_parse_lease),
    Target(name="log", corpus=_logs, parse=_parse_log),
]
