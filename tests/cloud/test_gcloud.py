"""Commands are what Google documents, and names of users pass as they are or not at all."""

import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from imagen_jax.cloud import gcloud, validate
from imagen_jax.cloud.gcloud import Gcloud
from imagen_jax.cloud.tpu_slice import RUNTIMES, Provisioning, Slice

HERE = Path(__file__).parent
DOCUMENTED = json.loads((HERE / "documented.json").read_text())
METADATA = {"imagen-run": "mine", "imagen-attempt": "1"}
PLAIN = {"accelerator": "v5litepod-8", "zone": "us-west4-a"}


def commands() -> list[list[str]]:
    """Every command, with every combination of what a slice may be."""
    found = []
    for provisioning, slices, inside in itertools.product(
        get_args(Provisioning), (1, 2), (False, True)
    ):
        wanted = Slice(
            **PLAIN,
            provisioning=provisioning,
            slices=slices,
            internal_ips=inside,
            project="my-project-1",
            service_account="trainer@my-project-1.iam.gserviceaccount.com",
            network="net",
            subnetwork="sub",
        )
        startup = Path("startup.sh")
        found += [
            gcloud.create(wanted, "mine-1", startup=startup, metadata=METADATA, valid=60),
            gcloud.describe(wanted, "mine-1"),
            gcloud.every(wanted),
            gcloud.delete(wanted, "mine-1"),
            gcloud.node(wanted, "mine-1"),
            gcloud.ssh(wanted, "mine-1", node="0", worker="all", command="ls"),
            gcloud.put(None, "gs://b/o", new=True),
            gcloud.cat("gs://b/o", last=5),
            gcloud.ls("gs://b/"),
        ]
    return found


def command_of(arguments: list[str]) -> str:
    words = [word for word in arguments if not word.startswith("--")]
    spelled = (" ".join(words[:n]) for n in range(len(words), 0, -1))
    return next(name for name in spelled if name in gcloud.SURFACE)


def test_every_command_is_in_the_table_and_the_table_in_the_documentation() -> None:
    used: dict[str, set[str]] = {}
    for arguments in commands():
        flags = {a.partition("=")[0] for a in arguments if a.startswith("--")}
        used.setdefault(command_of(arguments), set()).update(flags - gcloud.EVERYWHERE)
    script = (HERE.parents[1] / "launch" / "startup.sh").read_text()
    for line in re.findall("again gcloud (.*)", script):
        name = next(name for name in gcloud.SURFACE if line.startswith(name))
        used.setdefault(name, set()).update(set(re.findall("--[a-z-]+", line)) - gcloud.EVERYWHERE)
    assert used.keys() == gcloud.SURFACE.keys()
    assert all(used[name] == gcloud.SURFACE[name] for name in used)  # nothing in it is unused
    for name, flags in gcloud.SURFACE.items():
        assert flags <= set(DOCUMENTED["commands"][name]), name
    assert set(DOCUMENTED["everywhere"]) >= gcloud.EVERYWHERE


def test_the_documentation_is_that_of_the_sdk_that_is_here() -> None:
    program = shutil.which("gcloud")
    table = Path(program or "").resolve().parents[1] / "data" / "cli" / "gcloud_completions.py"
    if program is None or not table.is_file():
        pytest.skip("no Google Cloud SDK here")
    spec = importlib.util.spec_from_file_location("gcloud_completions", table)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, flags in gcloud.SURFACE.items():
        node = module.STATIC_COMPLETION_CLI_TREE
        for word in name.split():
            node = node["commands"][word]
        assert flags <= set(node.get("flags", {})), name


@pytest.mark.cloud
@pytest.mark.skipif(shutil.which("gcloud") is None, reason="no Google Cloud SDK here")
def test_gcloud_itself_understands_them(tmp_path: Path) -> None:
    """Without an account it reads a command to its end, and then asks for a login."""
    alone = {
        "CLOUDSDK_CONFIG": str(tmp_path),
        "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
    }
    (tmp_path / "startup.sh").touch()
    tried: dict[str, list[str]] = {}
    for arguments in commands():
        command, flags = command_of(arguments), [a.partition("=")[0] for a in arguments]
        if command.endswith(" ssh") or command.startswith("storage"):
            continue  # these would begin to work without a login
        tried[f"{command} {flags}"] = arguments
    for arguments in (*tried.values(), [*next(iter(tried.values())), "--bogus"]):
        program = ["gcloud", *arguments]
        done = subprocess.run(
            program, env={**os.environ, **alone}, cwd=tmp_path, capture_output=True, check=False
        )
        says = b"unrecognized arguments: --bogus" if "--bogus" in program else b"active account"
        assert says in done.stderr, done.stderr.decode()


def test_the_readme_lists_every_command_with_its_page() -> None:
    readme = (HERE.parents[1] / "launch" / "README.md").read_text()
    for name in gcloud.SURFACE:
        assert f"`gcloud {name}`" in readme
        assert gcloud.REFERENCE + name.replace(" ", "/") in readme
    for flag in set().union(*gcloud.SURFACE.values()) | gcloud.EVERYWHERE:
        assert f"`{flag}`" in readme, flag


@pytest.mark.parametrize("flag", ["--best-effort", "--max-run-duration=4h", "--zones=a"])
def test_the_stand_in_refuses_what_is_not_documented(cloud, flag: str) -> None:
    cloud.plan([])
    arguments = gcloud.create(
        Slice(**PLAIN), "mine-1", startup=Path(__file__), metadata=METADATA, valid=60
    )
    with pytest.raises(gcloud.GcloudError, match="unrecognized arguments"):
        Gcloud().run([*arguments, flag])
    assert cloud.left() == []


@pytest.mark.parametrize("accelerator", sorted(RUNTIMES))
def test_each_generation_has_its_image(accelerator: str) -> None:
    wanted = Slice(accelerator=f"{accelerator}-8", zone="us-west4-a")
    arguments = gcloud.create(wanted, "a-1", startup=Path("s"), metadata=METADATA, valid=9)
    assert f"--runtime-version={RUNTIMES[accelerator]}" in arguments
    assert wanted.generation == {"v5litepod": "v5e"}.get(accelerator, accelerator)


@pytest.mark.parametrize("kind", get_args(validate.Kind))
@pytest.mark.parametrize(
    "name", ["", "$(id)", "a;b", "a b", "a,b=c", "--zone=b", "a'b", "a\nb", "é", "A" * 300]
)
def test_what_a_shell_or_gcloud_could_misread_is_no_name(kind: validate.Kind, name: str) -> None:
    with pytest.raises(ValueError, match=f"is no {kind}: give one such as"):
        validate.check_names(kind, name)


@pytest.mark.parametrize("kind", get_args(validate.Kind))
def test_the_examples_are_names(kind: validate.Kind) -> None:
    for example in (
        validate.RULES[kind][1].removeprefix("such as ").replace(" or ", ", ").split(", ")
    ):
        assert validate.check_names(kind, example.replace("...", "a" * 64))


@pytest.mark.parametrize(
    "place", ["gs://b/c", "gs://bucket", "gs://bucket/../x", "/tmp/x", "s3://b/c"]
)
def test_a_workdir_is_a_folder_of_a_bucket(place: str) -> None:
    with pytest.raises(ValueError, match="is no workdir"):
        validate.check_names("workdir", place)


def test_durations() -> None:
    assert [validate.parse_seconds(d) for d in ("90s", "15m", "24h", "3d")] == [
        90,
        900,
        86400,
        259200,
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"accelerator": "tpu7x-128"}, "through GKE alone"),
        ({"accelerator": "v5e-8"}, "is no accelerator"),
        ({"zone": "us-west4"}, "is no zone"),
        ({"max_run": "8d"}, "7d at most"),
        ({"slices": 0}, "from 1 to 65536"),
        ({"service_account": "me"}, "is no service account"),
        ({"subnetwork": "a/b"}, "is no network"),
    ],
)
def test_a_slice_that_google_would_refuse_is_refused_here(given: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Slice(**{**PLAIN, **given})


def test_without_gcloud_it_is_said_what_to_install(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(gcloud.GcloudError, match="gcloud is not on PATH: install it"):
        Gcloud().run(["storage", "ls", "gs://b/"])


def test_each_further_try_is_said(cloud, capsys) -> None:
    cloud.plan([], errors={"cat": ["UNAVAILABLE: try later"] * 2})
    cloud.bucket.put("a", b"content")
    slept: list[float] = []
    assert Gcloud(sleep=slept.append).run(gcloud.cat("gs://b/a")) == "content"
    said = "gcloud storage cat gs://b/a: ERROR: (gcloud) UNAVAILABLE: try later: asking again"
    assert capsys.readouterr().err.splitlines() == [f"{said}, {n} of 5" for n in (2, 3)]
    assert slept == [2.0, 4.0]


def test_a_dry_run_prints_what_a_shell_would_run(tmp_path: Path, capsys, monkeypatch) -> None:
    """The printed line, given to bash, calls gcloud with the very same arguments and input."""
    arguments = gcloud.ssh(Slice(**PLAIN), "a-1", node="0", worker="0", command="echo 'a b' $HOME")
    assert Gcloud(dry=True).run(arguments, stdin="one\n$two\n") == ""
    line = capsys.readouterr().out
    program = tmp_path / "gcloud"
    program.write_text(
        f'#!/bin/bash\nprintf "%s\\0" "$@" >{tmp_path}/given; cat >{tmp_path}/read\n'
    )
    program.chmod(0o755)
    script = tmp_path / "script"
    script.write_text(line)
    assert os.system(f"PATH={tmp_path}:$PATH bash {script}") == 0
    assert (tmp_path / "given").read_text().split("\0")[:-1] == arguments
    assert (tmp_path / "read").read_text() == "one\n$two\n"
