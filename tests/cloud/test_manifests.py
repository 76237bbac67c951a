"""What is given to Kubernetes, Docker and SkyPilot fits their published schemas."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import tyro
import yaml

from imagen_jax.cli import launch_worker, serve
from imagen_jax.cloud.tpu_slice import RUNTIMES
from imagen_jax.runtime import exit_codes
from imagen_jax.serve.api import OPEN_PATHS

LAUNCH = Path(__file__).parents[2] / "launch"
SCHEMA = json.loads((Path(__file__).parent / "jobset.schema.json").read_text())


def jobset() -> dict[str, Any]:
    return yaml.safe_load((LAUNCH / "jobset.yaml").read_text())


def validate(manifest: dict[str, Any]) -> None:
    jsonschema.validate(manifest, SCHEMA)
    for job in manifest["spec"]["replicatedJobs"]:
        whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}}
        whole["spec"] = job["template"]["spec"]
        kubernetes_validate.validate(whole, "1.31", strict=True)


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    (job,) = manifest["spec"]["replicatedJobs"]
    (found,) = job["template"]["spec"]["template"]["spec"]["containers"]
    return found


def test_the_jobset_fits() -> None:
    validate(jobset())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "failurePolicy", "maxRestart"), 3),
        (("spec", "failurePolicy", "rules", 0, "action"), "Fail"),
        (("spec", "replicatedJobs", 0, "replicas"), "two"),
        (("spec", "replicatedJobs", 0, "template", "spec", "parallelism"), "four"),
        (("spec", "replicatedJobs", 0, "template", "spec", "backofLimit"), 0),
    ],
)
def test_mistakes_in_it_would_be_found(path: tuple, value: object) -> None:
    manifest = jobset()
    inner: Any = manifest
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(manifest)


def test_what_is_refused_is_not_tried_again() -> None:
    manifest = jobset()
    (job,) = manifest["spec"]["replicatedJobs"]
    (rule,) = job["template"]["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [exit_codes.REFUSED, exit_codes.BAD_USAGE]
    assert rule["onExitCodes"]["containerName"] == container(manifest)["name"]
    spec = job["template"]["spec"]
    assert spec["completions"] == spec["parallelism"]


def _parsed(words: list[str]) -> list[str]:
    """Of `imagen launch worker`, run on this machine for the command after `--`."""
    assert words[:2] == ["launch", "worker"]
    own, rest = words[2 : words.index("--")], words[words.index("--") + 1 :]
    tyro.cli(launch_worker.Options, args=own)
    return rest


def test_all_call_the_same_entry_point() -> None:
    args = container(jobset())["args"]
    assert _parsed(args)[:2] == ["imagen", "train"]
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    line = " ".join(task["run"].replace("\\\n", " ").strip().splitlines()[-1].split())
    words = line.replace('"', "").replace("$SKYPILOT_N", "0$").split()
    numbers = {"0$ODE_RANK": "0", "0$UM_NODES": "1"}
    words = [numbers.get(word, word) for word in words]
    assert words[:2] == ["exec", "$HOME/imagen/bin/imagen"]
    assert _parsed(words[2:])[:2] == ["imagen", "train"]


def test_the_task_of_skypilot_has_known_fields() -> None:
    """Source: docs.skypilot.co, reference/yaml-spec."""
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert set(task) <= {"name", "workdir", "num_nodes", "resources", "envs", "secrets"} | {
        *("file_mounts", "setup", "run", "config", "service")
    }
    known = {"infra", "accelerators", "accelerator_args", "use_spot", "job_recovery", "autostop"}
    assert set(task["resources"]) <= known
    generation = task["resources"]["accelerators"].split("-")[1]
    assert task["resources"]["accelerator_args"] == {"runtime_version": RUNTIMES[generation]}
    checker = str(Path(sys.executable).parent / "shellcheck")
    for part in ("setup", "run"):
        done = subprocess.run(
            [checker, "--shell=bash", "-"],
            input=task[part],
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_the_image_takes_signals_and_leaves_jax_alone() -> None:
    """Variables of planning, baked in, would hide the slice from jax."""
    lines = (LAUNCH / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    orders = [line for line in lines if line and not line.startswith("#")]
    assert orders[-1] == 'ENTRYPOINT ["imagen"]'
    assert {order.split()[0] for order in orders} <= {
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "ENTRYPOINT",
    }
    assert any("--require-hashes launch/requirements.lock" in order for order in orders)
    version = re.findall(r"uv==(\S+)", "\n".join(lines))
    assert version == re.findall(r"uv_version=(\S+)", (LAUNCH / "startup.sh").read_text())


def serving() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((LAUNCH / "serve.yaml").read_text()))


def test_the_servers_manifest_fits() -> None:
    for manifest in serving():
        kubernetes_validate.validate(manifest, "1.31", strict=True)
    deployment, service = serving()
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, "1.31", strict=True)
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]


def test_the_servers_pod_runs_what_the_command_takes() -> None:
    deployment, _ = serving()
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    command, name, *rest = container["command"]
    assert (command, name) == ("imagen", "serve")
    options = tyro.cli(serve.Options, args=[*rest, *container["args"]])
    assert pod["terminationGracePeriodSeconds"] > options.drain
    assert options.port == container["ports"][0]["containerPort"]
    probed = {container[probe]["httpGet"]["path"] for probe in container if "Probe" in probe}
    assert probed == {"/health", "/ready"} <= OPEN_PATHS
