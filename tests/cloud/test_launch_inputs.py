"""What a run needs is looked for before anything is created or paid for."""

import json
from pathlib import Path

import pytest
from command_line import run_imagen

from imagen_jax.cloud import gcloud
from imagen_jax.cloud.tpu_slice import Slice

WORKDIR = "gs://bucket/runs/mine"
PAIRS = "gs://bucket/pairs"
ZONE = ("--zone", "us-west4-a", "--workdir", WORKDIR, "--ignore-changes", "--dry-run")
BASE = ("imagen/base64_2b", "--accelerator", "v5litepod-256", *ZONE)
TINY = ("tiny/base8", "--accelerator", "v5litepod-16", *ZONE)
ENCODE = "imagen encode tars:gs://bucket/images --encoder gs://bucket/t5_1_1_xxl --sizes 64 256 "
ENCODE += f"--max-length 128 --out {PAIRS}"
DRAW = ("imagen data build shapes/tiny", "imagen encode tiny")
STORE = {
    "version": 3,
    "dataset": "folder:photos",
    "split": "train",
    "count": 5000,
    "sizes": [64, 256],
    "encoder": "t5_1_1_xxl",
    "identity": "0123",
    "vocabulary": "4567",
    "width": 4096,
    "max_length": 128,
    "computed_in": "bfloat16",
    "files": [{"name": "records-00000.array_record", "count": 5000, "bytes": 5_000_000}],
}


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.chdir(Path(__file__).parents[2])
    return run_imagen(monkeypatch, "launch", "tpu", *arguments)


def put_store(cloud, **changes: object) -> None:
    cloud.bucket.put("pairs/store.json", json.dumps(STORE | changes).encode())


REFUSED = {
    "no data": (
        BASE,
        "imagen/base64_2b has no pairs to train on: encode your images to a bucket (imagen encode "
        "SOURCE --for imagen/base64_2b --out gs://my-bucket/pairs), then name them at the end: "
        "`imagen launch tpu ... -- --pairs gs://my-bucket/pairs`",
    ),
    "no data of a config of the package": (
        TINY,
        "tiny/base8 has no pairs to train on: no worker has shapes/tiny encoded by t5_1_1_tiny; "
        "give --before 'imagen data build shapes/tiny' 'imagen encode tiny/base8', or name pairs "
        "in a bucket at the end: `imagen launch tpu ... -- --pairs gs://my-bucket/pairs`",
    ),
    "encoded, not drawn": (
        (*TINY, "--before", DRAW[1]),
        "no worker has shapes/tiny in data: give --before 'imagen data build shapes/tiny' before",
    ),
    "another config's pairs": (
        (*TINY, "--before", "imagen data build shapes/quickstart", "imagen encode quickstart"),
        "no worker has shapes/tiny encoded by t5_1_1_tiny",
    ),
    "too few sizes": (
        ("tiny", *TINY[1:], "--before", DRAW[0], "imagen encode tiny/base8"),
        "--processes 1' stores images of sides [8], but stage sr16 trains on 16",
    ),
    "other tokens": (
        (*TINY, "--before", *DRAW, "--", "--text.max-length", "16"),
        "stores pairs of max_length 32, but text.max_length=16",
    ),
    "an encoder that nobody has": (
        (*BASE, "--before", "imagen encode imagen/base64_2b"),
        "text encoder 't5_1_1_xxl' is neither in the package nor in a bucket",
    ),
    "pairs of this machine": (
        (*BASE, "--", "--pairs", "pairs"),
        "--pairs pairs is a folder that no worker sees: give one in a bucket (gs://BUCKET/PAIRS)",
    ),
    "each its own share": (
        (*TINY, "--before", "imagen encode emoji --encoder t5_1_1_tiny --sizes 8 --out pairs"),
        "--out pairs is a folder of each machine, and each of the 4 would keep its share of the "
        "pairs to itself: give --out gs://BUCKET/PAIRS and `-- --pairs gs://BUCKET/PAIRS`",
    ),
    "worker 0 alone has them": (
        (*TINY, "--before-once", "imagen encode emoji --for tiny --out pairs"),
        "--out pairs is a folder of each machine, and worker 0 would keep the pairs to itself",
    ),
    "worker 0 alone draws": (
        (*TINY, "--before-once", *DRAW),
        "the 4 machines would not see each other's pairs",
    ),
    "worker 0 alone has what all encode": (
        (*TINY, "--before-once", DRAW[0], "--before", DRAW[1]),
        "no worker has shapes/tiny in data",
    ),
    "pairs for another config": (
        (*TINY, "--before", f"imagen encode tars:gs://b/i --for tiny/sr16 --out {PAIRS}", "--"),
        "stores images of sides [16], but stage base8 trains on 8: store that size, too",
    ),
    "the config's encoder is on this machine": (
        (
            *BASE,
            "--before",
            f"imagen encode tars:gs://b/i --for imagen/base64_2b --out {PAIRS}",
            "--",
        ),
        "text encoder 't5_1_1_xxl' is neither in the package nor in a bucket",
    ),
    "images of this machine": (
        (*BASE, "--before", ENCODE.replace("gs://bucket/images", "photos/*.tar"), "--", "--pairs"),
        "tars:photos/*.tar is on no worker: copy it to a bucket",
    ),
    "an encoder of this machine": (
        (*BASE, "--before", ENCODE.replace("gs://bucket/t5_1_1_xxl", "t5/t5_1_1_xxl"), "--"),
        "text encoder 't5/t5_1_1_xxl' is neither in the package nor in a bucket",
    ),
    "weights of this machine": (
        (*TINY, "--before", *DRAW, "--", "--init-from", "runs/first"),
        "--init-from runs/first is on no worker: copy it to a bucket",
    ),
    "a workdir of the machines": (
        (*TINY, "--before", *DRAW, "--", "--workdir", "runs/mine"),
        "--workdir runs/mine is on machines that are deleted: leave it out",
    ),
    "pairs that go with the machines": (
        ("--command", "imagen encode tiny", *TINY[1:]),
        "its pairs are on machines that are deleted at the end: give --out gs://BUCKET/PAIRS",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_created(case: str, cloud, monkeypatch, capsys) -> None:
    cloud.plan([])
    arguments, says = REFUSED[case]
    if "--out gs:" in " ".join(arguments):
        arguments = (*arguments[: arguments.index("--")], "--", "--pairs", PAIRS)
    assert call(monkeypatch, *arguments) == 1
    assert says in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("option", ["--pairs", "--pairs=gs://b/p", "--train.steps", "--data_dir"])
def test_an_option_of_training_is_shown_its_place(cloud, monkeypatch, capsys, option: str) -> None:
    cloud.plan([])
    assert call(monkeypatch, *BASE, option, PAIRS) == 1
    name = option.partition("=")[0].replace("_", "-")
    says = f"imagen launch: error: {name} is an option of `imagen train`: give it at the end, after"
    assert says in capsys.readouterr().err


MISFITS = {
    "sizes": ({"sizes": [256]}, "stage base64_2b trains on 64"),
    "encoder": ({"encoder": "t5_1_1_xl"}, "text.encoder='t5_1_1_xxl'"),
    "tokens": ({"max_length": 64}, "text.max_length=128"),
    "width": ({"width": 64}, "text.width=4096"),
    "dtype": ({"computed_in": "float32"}, "text.dtype='bfloat16'"),
    "digest": ({"identity": "89ab"}, "text.identity='0123'"),
    "damage": ({"count": 4999}, "store.json promises 4999 records, but its files 5000"),
    "format": ({"version": 9}, "store.json has format 9, and this program reads format 3"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_store_of_something_else_is_refused(case: str, cloud, monkeypatch, capsys) -> None:
    cloud.plan([])
    changes, says = MISFITS[case]
    put_store(cloud, **changes)
    assert call(monkeypatch, *BASE, "--", "--pairs", PAIRS, "--text.identity", "0123") == 1
    said = capsys.readouterr().err
    assert says in said
    assert PAIRS in said


def test_a_store_that_fits_is_read_before(cloud, monkeypatch, capsys) -> None:
    cloud.plan([])
    assert call(monkeypatch, *BASE, "--", "--pairs", PAIRS) == 1
    assert f"{PAIRS} has no store.json: encode to it first" in capsys.readouterr().err
    put_store(cloud)
    assert call(monkeypatch, *BASE, "--", "--pairs", PAIRS) == 0
    out = capsys.readouterr().out
    assert f"{PAIRS}: 5,000 pairs of sides 64, 256, as the config asks" in out


def test_a_store_that_the_run_makes_itself(cloud, monkeypatch, capsys) -> None:
    cloud.plan([])
    run = (*BASE, "--before", ENCODE, "--", "--pairs", PAIRS)
    assert call(monkeypatch, *run) == 0
    assert f"{PAIRS}: --before writes it" in capsys.readouterr().out
    assert call(monkeypatch, *run, "--text.max-length", "64") == 1
    assert "stores pairs of max_length 128, but text.max_length=64" in capsys.readouterr().err


def test_a_store_for_the_config_is_made_by_one_worker(cloud, monkeypatch, capsys) -> None:
    cloud.plan([])
    encode = f"imagen encode tars:gs://bucket/images --for tiny --out {PAIRS}"
    run = ("tiny", *TINY[1:], "--before", "mkdir /mnt/b", "--before-once", encode)
    assert call(monkeypatch, *run, "--", "--pairs", PAIRS) == 0
    out = capsys.readouterr().out
    assert f"{PAIRS}: --before-once writes it" in out
    record = json.loads(out[out.index("{") : out.index("\n}\n") + 2])
    assert record["job"]["commands"][1] == [*encode.split(), "--processes", "1"]
    assert record["job"]["once"] == [1]


@pytest.mark.parametrize("accelerator", ["v5litepod-8", "v5litepod-16"])
def test_what_is_drawn_is_made_by_each_machine(
    accelerator: str, cloud, monkeypatch, capsys
) -> None:
    cloud.plan([])
    run = ("tiny", "--accelerator", accelerator, *ZONE, "--before", *DRAW)
    assert call(monkeypatch, *run) == 0
    assert "shapes/tiny: each machine makes its own" in capsys.readouterr().out


def test_without_gcloud_a_dry_run_says_what_it_did_not_look_at(cloud, monkeypatch, capsys) -> None:
    cloud.plan([])
    monkeypatch.setattr(gcloud.shutil, "which", lambda _: None)
    assert call(monkeypatch, *BASE, "--", "--pairs", PAIRS) == 0
    assert f"{PAIRS}: NOT LOOKED AT (gcloud is not on PATH" in capsys.readouterr().out
    assert call(monkeypatch, *BASE, "--before", ENCODE, "--", "--pairs", PAIRS) == 0
    out = capsys.readouterr().out
    assert f"{PAIRS}: --before writes it; what is there now is not known (gcloud is not on" in out
    assert "NOT LOOKED AT" not in out


def test_what_own_commands_bring_is_named(cloud, monkeypatch, capsys) -> None:
    cloud.plan([])
    run = (*TINY, "--before", "gcsfuse b /mnt/b", "--before-once", "touch x", "--")
    for more in (("--pairs", "/mnt/b/pairs"), ("--data-dir", "/mnt/b")):
        assert call(monkeypatch, *run, *more) == 0
        says = f"{more[1]}: --before 'gcsfuse b /mnt/b', then --before-once 'touch x' has to bring"
        assert says in capsys.readouterr().out


def test_without_a_login_the_command_that_logs_in_is_named(cloud, monkeypatch, capsys) -> None:
    says = "(gcloud.storage.cat) You do not currently have an active account selected."
    cloud.plan([], errors={"cat": [f"{says}\nPlease run:\n\n  $ gcloud auth login\n"]})
    assert call(monkeypatch, *BASE, "--", "--pairs", PAIRS) == 0
    out = capsys.readouterr().out
    assert f"{PAIRS}: NOT LOOKED AT (gcloud storage cat {PAIRS}/store.json: ERROR: " in out
    assert "active account selected: sign in with `gcloud auth login`)" in out


@pytest.mark.parametrize(
    ("accelerator", "chips", "hosts"),
    [
        ("v5litepod-8", 8, 1),
        ("v5litepod-16", 16, 4),
        ("v6e-1", 1, 1),
        ("v5litepod-256", 256, 64),
        ("v4-8", 4, 1),
        ("v4-512", 256, 64),
        ("v5p-16", 8, 2),
        ("v3-8", 4, 1),
    ],
)
def test_chips_and_hosts(accelerator: str, chips: int, hosts: int) -> None:
    wanted = Slice(accelerator=accelerator, zone="us-west4-a")
    assert (wanted.chips, wanted.hosts) == (chips, hosts)
    both = Slice(accelerator=accelerator, zone="us-west4-a", slices=2)
    assert (both.chips, both.hosts) == (2 * chips, 2 * hosts)
