"""`imagen launch` from the command line, against the stand-in for gcloud."""

import hashlib
import json
import shlex
import subprocess
from pathlib import Path

import pytest
from command_line import run_imagen

from imagen_jax.cli import launch
from imagen_jax.runtime import exit_codes

UP = ["WAITING_FOR_RESOURCES", "ACTIVE"]
WORKDIR = "gs://bucket/runs/mine"
SLICE = ("--accelerator", "v5litepod-8", "--zone", "us-west4-a")
OFTEN = ("--every", "0.1")
DRAW = ("imagen data build shapes/tiny", "imagen encode tiny/base8")
TPU = ("tpu", "tiny/base8", *SLICE, *OFTEN, "--before", *DRAW, "--workdir", WORKDIR)


@pytest.fixture(autouse=True)
def _clone(tmp_path: Path, monkeypatch) -> None:
    """A small repository to ship from."""
    clone = tmp_path / "clone"
    (clone / "launch").mkdir(parents=True)
    (clone / "launch" / "requirements.lock").write_text("jax==0.10.2\n")
    for words in (
        ("init", "-q"),
        ("add", "-A"),
        ("-c", "user.email=a@b.c", "-c", "user.name=a", "commit", "-qm", "first"),
    ):
        subprocess.run(["git", "-C", str(clone), *words], check=True)
    monkeypatch.chdir(clone)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    return run_imagen(monkeypatch, "launch", *arguments)


@pytest.mark.cloud
def test_from_nothing_to_the_end_and_again(cloud, monkeypatch) -> None:
    cloud.plan(UP, does="exit 0")
    options = ("--train.steps", "5", "--coordinator", "a:1", "--process-id", "{worker}")
    processes = ("--processes", "{workers}")
    assert call(monkeypatch, *TPU, "--run-id", "mine", "--", *options, *processes) == 0
    record = cloud.record()
    assert record["job"]["commands"] == [
        *(command.split() for command in DRAW[:1]),
        [*DRAW[1].split(), "--processes", "1"],  # each machine for itself
        ["imagen", "train", "tiny/base8", "--workdir", WORKDIR, *options, *processes],
    ]
    assert cloud.bucket.names(f"runs/mine/launch/{record['job']['code']}")
    assert cloud.left() == []
    assert call(monkeypatch, *TPU, "--run-id", "mine") == 0  # goes on in the same workdir
    assert [a["number"] for a in cloud.record()["attempts"]] == [2]  # nothing old is taken for new


@pytest.mark.cloud
def test_a_run_that_is_up_is_not_launched_twice(cloud, monkeypatch, capsys) -> None:
    cloud.plan([*UP, "ACTIVE"])
    assert call(monkeypatch, *TPU, "--detach") == 0
    assert f"`imagen launch watch {WORKDIR}` keeps it up" in capsys.readouterr().err
    assert call(monkeypatch, *TPU) == exit_codes.REFUSED
    assert f"imagen launch watch {WORKDIR}" in capsys.readouterr().err
    assert len(cloud.left()) == 1
    assert call(monkeypatch, "stop", WORKDIR, "--yes") == 0
    assert cloud.left() == []
    assert "stopped" in cloud.record()["finished"]
    assert call(monkeypatch, "watch", WORKDIR) == 0  # and stays stopped
    assert cloud.left() == []


def test_a_dry_run_changes_nothing_and_prints_everything(
    cloud, monkeypatch, capsys, tmp_path: Path
) -> None:
    cloud.plan(UP)
    assert call(monkeypatch, *TPU, "--provisioning", "spot", "--dry-run") == 0
    out = capsys.readouterr().out
    begin = [line.split()[1] for line in out.splitlines()[:6]]
    assert begin == ["machines", "price", "ceiling", "creates", "deletes", "data"]
    last = out.splitlines()[-1]
    assert last == f"# next     {shlex.join(['imagen', 'launch', *TPU])} --provisioning spot"
    for line in (
        "gcloud storage cp - gs://bucket/runs/mine/launch/run.json",
        "gcloud compute tpus queued-resources create run-mine-",
        "--spot",
        "gcloud compute tpus queued-resources delete run-mine-",
        "#!/usr/bin/env bash",
    ):
        assert line in out
    assert not (cloud.folder / "calls").exists()
    assert cloud.bucket.names() == []
    # By hand it is the file that machines compare with its name.
    made = next(line for line in out.splitlines() if line.startswith("git -C "))
    file = tmp_path / "code.tar"
    command = f"{made.partition(' > ')[0]} > {shlex.quote(str(file))}"
    subprocess.run(["bash", "-c", command], check=True)
    assert f" > code-{hashlib.sha256(file.read_bytes()).hexdigest()}.tar" in made


@pytest.mark.cloud
def test_jobs_of_data(cloud, monkeypatch) -> None:
    cloud.plan(UP, does="exit 0")
    encode = "imagen encode 'tars:gs://bucket/a b' --out gs://bucket/{worker} --sizes 8 "
    encode += "--encoder t5_1_1_tiny"
    job = ("tpu", "--command", encode, *SLICE, *OFTEN, "--workdir", WORKDIR)
    assert call(monkeypatch, *job, "--before", "imagen data build shapes/tiny") == 0
    assert cloud.record()["job"]["commands"] == [
        ["imagen", "data", "build", "shapes/tiny"],
        shlex.split(encode),
    ]


@pytest.mark.cloud
def test_an_image_ships_no_code(cloud, monkeypatch, tmp_path: Path) -> None:
    cloud.plan(UP, does="exit 0")
    monkeypatch.chdir(tmp_path)  # no repository
    assert call(monkeypatch, *TPU, "--image", "us-docker.pkg.dev/p/i:1") == 0
    assert cloud.record()["job"]["code"] is None
    (created,) = cloud.calls("queued-resources create")
    assert any("imagen-image=us-docker.pkg.dev/p/i:1" in word for word in created)


@pytest.mark.cloud
def test_status_and_logs(cloud, monkeypatch, capsys) -> None:
    cloud.plan([*UP, *["ACTIVE"] * 9], workers=2, does="step 12; wait")
    assert call(monkeypatch, *TPU, "--run-id", "mine", "--detach") == 0
    told = json.dumps({"step": 10, "loss": 0.25, "images_per_s": 123.4})
    cloud.bucket.put("runs/mine/metrics.jsonl", f"{told}\n".encode())
    cloud.bucket.put("runs/mine/checkpoints/8/a", b"")
    cloud.bucket.put("runs/mine/checkpoints/10/a", b"")
    cloud.bucket.put("runs/mine/launch/1/worker-1.log", b"what was printed\n")
    out = ""
    for _ in range(20):
        assert call(monkeypatch, "status", WORKDIR) == 0
        out = capsys.readouterr().out
        if out.count("step 12") == 3:
            break
    assert "mine-1: ACTIVE; slices READY" in out
    assert "worker 1  running, step 12 of base8" in out
    assert "step 10, loss 0.25, 123.4 images/s, last checkpoint 10" in out
    assert call(monkeypatch, "logs", WORKDIR) == 0
    assert capsys.readouterr().out == "what was printed\n"
    assert call(monkeypatch, "logs", WORKDIR, "--worker", "0") == exit_codes.REFUSED
    assert "no worker has written a log yet" in capsys.readouterr().err


@pytest.mark.cloud
def test_a_shell_and_a_command_on_all(cloud, monkeypatch, capsys) -> None:
    cloud.plan(UP)
    assert call(monkeypatch, *TPU, "--run-id", "mine", "--internal-ips", "--detach") == 0
    assert call(monkeypatch, "ssh", WORKDIR, "--worker", "all", "--", "ls", "a b") == 0
    (called,) = cloud.calls("queued-resources ssh")
    assert "--command=ls 'a b'" in called
    assert {"--worker=all", "--tunnel-through-iap", "mine-1"} <= set(called)
    assert call(monkeypatch, "stop", WORKDIR, "--yes") == 0
    assert call(monkeypatch, "ssh", WORKDIR) == exit_codes.REFUSED
    assert "no slice is up" in capsys.readouterr().err


@pytest.mark.cloud
def test_leftovers_are_removed_and_others_kept(cloud, monkeypatch, capsys) -> None:
    cloud.plan(["FAILED"], ["ACTIVE"], ["SUSPENDED"])
    for name in ("one", "two", "three"):
        where = (*TPU[:-1], f"{WORKDIR}/{name}", "--run-id", name)
        assert call(monkeypatch, *where, "--detach") == 0
        assert call(monkeypatch, "status", where[-3]) == 0  # a look: the next event comes
    assert call(monkeypatch, "clean", "--zone", "us-west4-a", "--dry-run") == 0
    assert len(cloud.left()) == 3
    capsys.readouterr()
    assert call(monkeypatch, "clean", "--zone", "us-west4-a") == exit_codes.REFUSED
    assert len(cloud.left()) == 3
    assert "2 to delete and nobody to ask, so nothing was deleted: give --yes" in (
        capsys.readouterr().err
    )
    assert call(monkeypatch, "clean", "--zone", "us-west4-a", "--yes") == 0
    assert cloud.left() == ["two-1"]
    assert "deleting one-1, FAILED\ndeleting three-1, SUSPENDED\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 1, "give one of tpu, watch, status"),
        (("fly",), 1, "no `imagen launch fly`"),
        (("tpu", *SLICE, "--workdir", WORKDIR), 1, "give a config, or --command"),
        ((*TPU, "--command", "imagen encode a"), 1, "one of the two"),
        ((*TPU, "--workdir", "runs/here"), 2, "is no workdir"),
        ((*TPU, "--accelerator", "v5e-8"), 1, "is no accelerator"),
        ((*TPU, "--run-id", "Mine"), 2, "is no run id"),
        ((*TPU, "--deadline", "soon"), 1, "is no duration"),
        ((*TPU, "--max-restarts", "-1"), 2, "a whole number of 0"),
        ((*TPU, "--every", "0"), 2, "--every 0.0: must be"),
        ((*TPU, "--package", "a;b"), 2, "is no package"),
        ((*TPU, "--image", "$(id)"), 2, "is no image"),
        ((*TPU, "--before", "imagen fly"), 1, "--before 'imagen fly': give a command such as"),
        ((*TPU, "--before", ""), 1, "--before '': give a command such as"),
        ((*TPU, "--before", "imagen 'x"), 1, "No closing quotation"),
        ((*TPU, "--", "--max-restarts", "3"), 1, "give it to `imagen launch tpu` itself"),
        ((*TPU, "--", "--optim.lr", "3"), 2, "--optim.lr"),
        (("tpu", "nowhere", *TPU[2:]), 1, "no config 'nowhere'"),
        (
            ("tpu", "--command", "imagen encode a", *TPU[2:], "--", "-x"),
            1,
            "write the options into",
        ),
        (("status", "gs://bucket/runs/other"), 1, "was not launched"),
        (("watch", "runs/here"), 1, "is no workdir"),
        (("clean", "--zone", "here"), 1, "is no zone"),
    ],
)
def test_bad_input_creates_nothing(
    arguments: tuple, code: int, says: str, cloud, monkeypatch, capsys
) -> None:
    cloud.plan(UP)
    assert call(monkeypatch, *arguments) == code
    assert says in capsys.readouterr().err
    assert cloud.left() == []
    assert cloud.bucket.names() == []


def test_the_script_is_in_the_package() -> None:
    assert "imagen launch tpu" in launch.launch_tpu.startup().read_text()
