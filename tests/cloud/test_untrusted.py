"""What strangers write to the bucket: refused in a sentence, and nothing of others is touched."""

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import run_imagen

from imagen_jax.cloud import gcloud, run_record, status, untrusted, validate
from imagen_jax.cloud.gcloud import Gcloud
from imagen_jax.cloud.observe import HeartbeatTracker, WorkerReport, read_reports
from imagen_jax.cloud.run_record import Attempt, LaunchSpec, Limits, RunRecord
from imagen_jax.cloud.tpu_slice import Slice
from imagen_jax.runtime import exit_codes

ROOT = Path(__file__).parents[2]
HOSTILE = Path(__file__).parent / "hostile"
WORKDIR = "gs://bucket/runs/mine"
RECORD = f"{WORKDIR}/launch/run.json"
SLICE = {"accelerator": "v5litepod-8", "zone": "us-west4-a"}
HONEST: dict[str, Any] = {
    "format": 1,
    "job": {"run_id": "mine", "workdir": WORKDIR, "commands": [["imagen", "train", "x"]]},
    "wanted": SLICE,
    "limits": {"until": 9e9},
    "attempts": [{"number": 1, "made": 1.0}],
    "before": 0,
    "finished": None,
}


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    return run_imagen(monkeypatch, "launch", *arguments)


def changed(path: str, value: object) -> dict[str, Any]:
    """The honest record with another value at `job.image`."""
    record = json.loads(json.dumps(HONEST))
    *parts, last = path.split(".")
    place = record
    for part in parts:
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[last] = value
    return record


CASES = {
    "stop-others": "'.*' is no run id",
    "metadata-comma": "'x,ssh-keys=evil:ssh-rsa AAAA.* is no image",
    "package-option": "'-oAPT::Update::Pre-Invoke::=touch /x' is no package",
    "linger-str": r"linger=.*: must be a whole number",
    "ssh-flag": "'--ssh-flag=-oProxyCommand=touch .* is no run id",
    "foreign-workdir": "is the record of gs://evil-bucket/x, and not of the folder that it is in",
}


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_record_is_refused_in_a_sentence(case: str) -> None:
    text = (HOSTILE / f"hand-run-{case}.json").read_text()
    with pytest.raises(ValueError, match=CASES[case]):
        run_record.from_json(text, where=RECORD)


@pytest.mark.parametrize("command", ["stop", "status", "ssh", "watch", "logs"])
def test_no_command_acts_on_a_hostile_record(command: str, cloud, monkeypatch, capsys) -> None:
    cloud.plan([])
    cloud.create("victim-1")
    for case in CASES:
        data = (HOSTILE / f"hand-run-{case}.json").read_bytes()
        cloud.bucket.put("runs/mine/launch/run.json", data)
        options = ["--yes"] if command == "stop" else []
        assert call(monkeypatch, command, WORKDIR, *options) == exit_codes.REFUSED, case
        assert "Traceback" not in capsys.readouterr().err
        assert cloud.bucket.objects["runs/mine/launch/run.json"][1] == data
    assert {call[:2] == ["storage", "cat"] for call in cloud.calls("")} == {True}
    assert cloud.left() == ["victim-1"]


def test_names_of_logs_are_no_options_and_no_orders(cloud, monkeypatch, capsys) -> None:
    """Whoever writes to the bucket names its objects."""
    cloud.plan([])
    cloud.bucket.put("runs/mine/launch/run.json", json.dumps(HONEST).encode())
    log = json.dumps({"step": 3, "loss": 0.5}).encode()
    names = ("\x1b[2J", "\u202ea", "a b", "x\n--flags-file=/etc/passwd\ny", "--help", "base")
    for name in names:
        cloud.bucket.put(f"runs/mine/{name}/metrics.jsonl", log)
    assert call(monkeypatch, "status", WORKDIR) == 0
    said = capsys.readouterr().out
    assert r"training  gs://bucket/runs/mine/\x1b[2J: step 3, loss 0.5" in said
    assert r"gs://bucket/runs/mine/\u202ea: step 3" in said
    assert "gs://bucket/runs/mine/a b: step 3" in said
    assert "gs://bucket/runs/mine/base: step 3" in said
    for words in cloud.calls("storage cat"):
        assert words[2].startswith(f"{WORKDIR}/")
        assert all(word.startswith("--range=") for word in words[3:])


def test_the_record_of_before_is_read() -> None:
    """With the keys alone that have no default."""
    run = run_record.from_json(json.dumps(HONEST), where=RECORD)
    assert (run.job.run_id, run.limits.linger, run.attempts[0].number) == ("mine", 1800, 1)
    for name in ("attempts", "before", "finished"):
        less = {key: value for key, value in HONEST.items() if key != name}
        assert run_record.from_json(json.dumps(less), where=RECORD).job == run.job


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", True),
        ("format", "1"),
        ("format", 0),
        ("new", 1),
        ("job", []),
        ("job.new", 1),
        ("job.run_id", None),
        ("job.run_id", "a\n"),
        ("job.commands", []),
        ("job.commands", [[]]),
        ("job.commands", "imagen train x"),
        ("job.commands", [["imagen"]]),
        ("job.commands", [["imagen", "launch", "stop"]]),
        ("job.commands", [["a", "\0"]]),
        ("job.commands", [["a", "\ud800"]]),
        ("job.commands", [["a", 1]]),
        ("job.once", [1]),
        ("job.once", [-1]),
        ("job.once", ["0"]),
        ("job.code", "../../x"),
        ("job.code", "-x"),
        ("job.image", "i/b:c/../"),
        ("job.image", 5),
        ("job.packages", "nano"),
        ("job.packages", ["a+b"]),
        ("wanted.zone", "us-west4-a --project=x"),
        ("wanted.zone", 3),
        ("wanted.accelerator", ["v5litepod-8"]),
        ("wanted.slices", 10**9),
        ("wanted.slices", 1.5),
        ("wanted.internal_ips", "yes"),
        ("limits.until", "1"),
        ("limits.until", float("inf")),
        ("limits.until", float("nan")),
        ("limits.until", 10**400),
        ("limits.until", -1),
        ("limits.linger", True),
        ("limits.linger", 1e300),
        ("limits.max_restarts", -1),
        ("attempts", {}),
        ("attempts", [1]),
        ("attempts.0.number", 10**9),
        ("attempts.0.number", "1; x"),
        ("attempts.0.made", 1e18),
        ("attempts.0.granted", "no"),
        ("attempts.0.ended", 5),
        ("before", -1),
        ("before", 10**9),
        ("finished", ["x"]),
    ],
)
def test_wrong_kinds_and_ranges_are_refused(path: str, value: object) -> None:
    with pytest.raises(ValueError, match=re.escape(RECORD)):
        run_record.from_json(json.dumps(changed(path, value)), where=RECORD)


@pytest.mark.parametrize(
    "text",
    ["", "null", "[" * 100_000, '{"a":' * 100_000, " " * (untrusted.MAX_TEXT + 1), "1" * 9_999],
)
def test_depth_and_size_are_bounded(text: str) -> None:
    with pytest.raises(ValueError, match=RECORD):
        run_record.from_json(text, where=RECORD)


def test_what_a_terminal_would_obey_is_spelled_out() -> None:
    record = changed("attempts.0.ended", "\x1b[2Jgone\n")
    record["finished"] = "\x9b2J"
    run = run_record.from_json(json.dumps(record), where=RECORD)
    assert run.attempts[0].ended == r"\x1b[2Jgone\n"
    assert run.finished == r"\x9b2J"


def test_a_log_does_not_command_a_terminal() -> None:
    log = "№ 1\t100%\r\x1b[2J\x9b1m\n"
    assert untrusted.spell_controls(log) == "№ 1\t100%\r\\x1b[2J\\x9b1m\n"


def launched(*numbers: int) -> RunRecord:
    job = LaunchSpec(run_id="mine", workdir=WORKDIR, commands=(("imagen", "train", "x"),))
    attempts = tuple(Attempt(number=n, made=1.0) for n in numbers)
    return RunRecord(job=job, wanted=Slice(**SLICE), limits=Limits(until=9e9), attempts=attempts)


def queue(cloud, name: str, *, state: str = "ACTIVE", **more: object) -> None:
    """A queued resource in a state, with labels and metadata."""
    cloud.create(name)
    file = cloud.folder / "resources" / f"{name}.json"
    resource = json.loads(file.read_text()) | {"state": state, "script": [state], **more}
    file.write_text(json.dumps(resource))


def test_stop_deletes_exact_names_after_showing_them(cloud, monkeypatch, capsys) -> None:
    cloud.plan([])
    others = ["mine-9", "mine-01", "mine-2-1", "amine-1", "mine-x", "mine"]
    for name in ("mine-1", "mine-2", *others):
        queue(cloud, name)
    cloud.bucket.put("runs/mine/launch/run.json", run_record.to_json(launched(1, 2)).encode())
    assert call(monkeypatch, "stop", WORKDIR) == exit_codes.REFUSED
    said = capsys.readouterr().err
    assert "to delete in us-west4-a: mine-1\nto delete in us-west4-a: mine-2\n" in said
    assert "nobody to ask, so nothing was deleted: give --yes" in said
    assert cloud.record()["finished"] is None
    assert len(cloud.left()) == 8
    assert call(monkeypatch, "stop", WORKDIR, "--yes") == 0
    assert cloud.left() == sorted(others)
    assert "stopped" in cloud.record()["finished"]
    assert not any("--filter" in word for call in cloud.calls("list") for word in call)


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_a_terminal_is_asked(answer: str, left: int, cloud, monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    cloud.plan([])
    queue(cloud, "mine-1")
    cloud.bucket.put("runs/mine/launch/run.json", run_record.to_json(launched(1)).encode())
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert call(monkeypatch, "stop", WORKDIR) == (exit_codes.REFUSED if left else 0)
    assert len(cloud.left()) == left


def resource(name: str, **node: object) -> dict[str, Any]:
    state = {"state": "FAILED"}
    return {"name": f"p/{name}", "state": state, "tpu": {"nodeSpec": [{"node": node}]}}


class Listed(Gcloud):
    """gcloud that lists these resources."""

    found: list[dict[str, Any]]

    def run(self, arguments: list[str], *, stdin: str | None = None) -> str:
        return json.dumps(self.found)


def test_machines_of_another_workdir_are_left_alone() -> None:
    cloud = Listed()
    object.__setattr__(
        cloud,
        "found",
        [
            resource("mine-1", metadata={"imagen-folder": "gs://bucket/runs/other/launch"}),
            resource("mine-2", metadata={"imagen-folder": f"{WORKDIR}/launch"}),
        ],
    )
    assert status.list_remaining(cloud, launched(1, 2)) == ["mine-2"]


def test_leftovers_have_label_and_name() -> None:
    cloud = Listed()
    found = [
        resource("a-1", labels={"run": "a"}),
        resource("b-1", labels={"run": "a"}),
        resource("c", labels={"run": "c"}),
        resource("d-1"),
    ]
    object.__setattr__(cloud, "found", found)
    wanted = Slice(**SLICE)
    assert status.list_leftovers(cloud, wanted, everyone=False) == [("a-1", "FAILED")]
    assert len(status.list_leftovers(cloud, wanted, everyone=True)) == 4


@pytest.mark.parametrize("name", ["--flag", "-x", "a b", "a.*", "", "../a", "A", "a" * 64])
def test_no_name_can_be_taken_for_a_flag(name: str) -> None:
    wanted = Slice(**SLICE)
    for command in (gcloud.describe, gcloud.delete):
        with pytest.raises(ValueError, match="is no resource"):
            command(wanted, name)
    with pytest.raises(ValueError, match="is no resource"):
        gcloud.ssh(wanted, name, node="0", worker="0", command=None)
    with pytest.raises(ValueError, match="is no resource"):
        gcloud.create(wanted, name, startup=Path("s"), metadata={"imagen-run": "a"}, valid=9)


@pytest.mark.parametrize("value", ["a,ssh-keys=b", "a b", "a\nb", '"a', "^:^a", "a;b", "$(id)"])
def test_no_value_of_metadata_adds_a_key(value: str) -> None:
    metadata = {"imagen-run": "a", "imagen-image": value}
    with pytest.raises(ValueError, match="metadata imagen-image can't be"):
        gcloud.create(Slice(**SLICE), "a-1", startup=Path("s"), metadata=metadata, valid=9)


@pytest.mark.parametrize("image", ["i/b:c/../", "..", "a/../b", "a//b"])
def test_no_image_has_two_points_or_slashes(image: str) -> None:
    with pytest.raises(ValueError, match="is no image"):
        validate.check_names("image", image)


@pytest.mark.parametrize(
    "report",
    [
        {"worker": "0"},
        {"worker": -1},
        {"of": "2"},
        {"of": 0},
        {"beat": None},
        {"code": "1"},
        {"step": 5},
        {"new": 1},
        {"silent": "x"},
    ],
)
def test_a_report_of_wrong_kinds_is_refused(report: dict, cloud) -> None:
    cloud.plan([])
    honest = {"worker": 0, "of": 1, "phase": "running", "beat": 1}
    cloud.bucket.put("runs/mine/launch/1/worker-0.json", json.dumps(honest | report).encode())
    run = launched(1)
    with pytest.raises(ValueError, match="report"):
        read_reports(Gcloud(), run, run.attempts[0], HeartbeatTracker(lambda: 0.0))


def test_a_report_is_fit_to_print() -> None:
    report = WorkerReport(worker=0, of=1, phase="\x1b[2J", beat=1, step="step 1\r")
    assert (report.phase, report.step) == (r"\x1b[2J", r"step 1\r")


BASH = shutil.which("bash") or "bash"


def checked(function: str, *words: str) -> int:
    """The exit code of a function of the start-up script, by itself."""
    script = (ROOT / "launch" / "startup.sh").read_text()
    body = re.search(rf"^{function}\(\) {{\n.*?^}}\n", script, re.M | re.S)
    assert body is not None
    done = subprocess.run([BASH, "-c", f'{body[0]}\n{function} "$@"', "x", *words], check=False)
    return done.returncode


@pytest.mark.parametrize(
    "word", ["a[$(touch {})0]", "", "08", "-1", "1e3", "x", "1 ", "1\n2", "9" * 13]
)
def test_the_script_reckons_with_digits_only(word: str, tmp_path: Path) -> None:
    mark = tmp_path / "touched"
    assert checked("numbers", word.format(mark)) == 1
    assert checked("numbers", "0", word.format(mark)) == 1
    assert not mark.exists()
    assert checked("numbers", "0", "9000000000", "600") == 0
