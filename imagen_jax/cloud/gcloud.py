"""Every `gcloud` command that is used, as a list of arguments: none passes through a shell.

What is not ours in them comes behind the `=` of its flag, or is a name or an address that can't be
taken for a flag; gcloud's filters, which are regular expressions, are not used.
`SURFACE` is what we use of what Google documents; the tests hold it against the SDK's own table of
commands, and their stand-in for gcloud refuses what is not in it.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagen_jax.cloud.tpu_slice import Slice
from imagen_jax.cloud.validate import check_names
from imagen_jax.config import shorten

REFERENCE = "https://cloud.google.com/sdk/gcloud/reference/"
_QUEUED = "compute tpus queued-resources"
_CREATE = frozenset(
    {
        *("--zone", "--accelerator-type", "--runtime-version", "--service-account", "--labels"),
        *("--node-id", "--node-count", "--node-prefix", "--metadata", "--metadata-from-file"),
        *("--spot", "--reserved", "--valid-until-duration", "--async"),
        *("--network", "--subnetwork", "--internal-ips"),
    }
)
SURFACE: Mapping[str, frozenset[str]] = {  # command: its flags; the page is REFERENCE + command
    f"{_QUEUED} create": _CREATE,
    # Flex-start is in the alpha group alone (cloud.google.com/tpu/docs/request-using-flex-start).
    f"alpha {_QUEUED} create": (_CREATE - {"--spot", "--reserved"})
    | {"--provisioning-model", "--max-run-duration"},
    f"{_QUEUED} describe": frozenset({"--zone"}),
    f"{_QUEUED} list": frozenset({"--zone"}),
    f"{_QUEUED} delete": frozenset({"--zone", "--force", "--async"}),  # --async: startup.sh
    f"{_QUEUED} ssh": frozenset(
        {"--zone", "--node", "--worker", "--command", "--tunnel-through-iap"}
    ),
    "compute tpus tpu-vm describe": frozenset({"--zone"}),
    "auth configure-docker": frozenset(),  # by the start-up script, as is the next one
    "storage cp": frozenset({"--if-generation-match"}),
    "storage cat": frozenset({"--range"}),
    "storage ls": frozenset(),
}
EVERYWHERE = frozenset({"--project", "--format", "--quiet"})  # gcloud-wide flags

PATIENCE = 300  # seconds until a command counts as lost
DELAYS = (2.0, 4.0, 8.0, 16.0)  # seconds before each further try
_MISSING = re.compile(r"NOT_FOUND|was not found|matched no objects|not found: 404", re.I)
_SIGNED_OUT = re.compile(r"gcloud auth login|active account|Anonymous caller|HTTPError 401", re.I)
_THERE = re.compile(r"ALREADY_EXISTS|already exists", re.I)
# Nothing that separates or ends pairs of `--metadata`, and no quotation.
_METADATA = re.compile(r"[A-Za-z0-9._:/@=+-]*")
_PASSING = re.compile(
    r"UNAVAILABLE|DEADLINE_EXCEEDED|INTERNAL\b|ABORTED|HTTPError (429|5\d\d)"
    r"|timed out|Connection (reset|refused|aborted)|temporarily|Network is unreachable",
    re.I,
)


class GcloudError(OSError):
    """gcloud refused, or did not answer."""


class MissingResourceError(GcloudError):
    """The resource asked for is not there."""


def create(
    wanted: Slice, name: str, *, startup: Path, metadata: Mapping[str, str], valid: int
) -> list[str]:
    """A queued resource whose nodes run `startup` at every boot; not granted after `valid` s.

    Errors: ValueError for a value in `metadata` that would add a key, and for no name.
    """
    flex = wanted.provisioning == "flex-start"
    several = [f"--node-count={wanted.slices}", f"--node-prefix={name}"]
    optional = {
        "--service-account": wanted.service_account,
        "--network": wanted.network,
        "--subnetwork": wanted.subnetwork,
    }
    return [
        *(["alpha"] if flex else []),
        *_QUEUED.split(),
        "create",
        _resource(name),
        *_where(wanted),
        *([f"--node-id={name}"] if wanted.slices == 1 else several),
        f"--accelerator-type={wanted.accelerator}",
        f"--runtime-version={wanted.runtime}",
        f"--labels=run={metadata['imagen-run']}",
        _metadata(metadata),
        f"--metadata-from-file=startup-script={startup}",
        *(["--spot"] if wanted.provisioning == "spot" else []),
        *(["--reserved"] if wanted.provisioning == "reserved" else []),
        *(["--provisioning-model=flex-start"] if flex else []),
        *([f"--max-run-duration={wanted.max_run}"] if flex else []),
        *(f"{flag}={value}" for flag, value in optional.items() if value is not None),
        *(["--internal-ips"] if wanted.internal_ips else []),
        f"--valid-until-duration={valid}s",
        "--async",
        "--quiet",
    ]


def describe(wanted: Slice, name: str) -> list[str]:
    """The state of a queued resource, as JSON."""
    return [*_QUEUED.split(), "describe", _resource(name), *_where(wanted), "--format=json"]


def every(wanted: Slice) -> list[str]:
    """All queued resources of the zone, as JSON."""
    return [*_QUEUED.split(), "list", *_where(wanted), "--format=json"]


def delete(wanted: Slice, name: str) -> list[str]:
    """A queued resource with its nodes; waits until they are gone."""
    return [*_QUEUED.split(), "delete", _resource(name), *_where(wanted), "--force", "--quiet"]


def node(wanted: Slice, name: str) -> list[str]:
    """The command for a slice as JSON: its state and its workers (`networkEndpoints`)."""
    return [
        "compute",
        "tpus",
        "tpu-vm",
        "describe",
        _resource(name),
        *_where(wanted),
        "--format=json",
    ]


def ssh(wanted: Slice, name: str, *, node: str, worker: str, command: str | None) -> list[str]:
    """A shell on a worker, or `command` on each; through IAP if no address is public."""
    return [
        *_QUEUED.split(),
        "ssh",
        _resource(name),
        *_where(wanted),
        f"--node={node}",
        f"--worker={worker}",
        *(["--tunnel-through-iap"] if wanted.internal_ips else []),
        *([f"--command={command}"] if command is not None else []),
    ]


def put(source: Path | None, place: str, *, new: bool = False) -> list[str]:
    """A file, or standard input, to the bucket; with `new` refused where there is one already."""
    only = ["--if-generation-match=0"] if new else []
    return ["storage", "cp", str(source) if source else "-", place, *only, "--quiet"]


def cat(place: str, *, first: int | None = None, last: int | None = None) -> list[str]:
    """Objects of the bucket, or the first or the last bytes of each."""
    spans = [f"0-{first - 1}"] if first else [f"-{last}"] if last else []
    return ["storage", "cat", place, *(f"--range={span}" for span in spans)]


def ls(place: str) -> list[str]:
    """Names in the bucket."""
    return ["storage", "ls", place]


def _resource(name: str) -> str:
    """The name itself, which can't be taken for a flag. Errors: as `check_names`."""
    return check_names("resource", name)


def _metadata(metadata: Mapping[str, str]) -> str:
    for key, value in metadata.items():
        if _METADATA.fullmatch(value) is None:
            raise ValueError(
                f"metadata {key} can't be {shorten(value)}: it would add keys, or need quoting"
            )
    return "--metadata=" + ",".join(f"{key}={value}" for key, value in metadata.items())


def _where(wanted: Slice) -> list[str]:
    project = [f"--project={wanted.project}"] if wanted.project else []
    return [f"--zone={wanted.zone}", *project]


@dataclass(frozen=True)
class Gcloud:
    """Runs commands, and again what failed in passing; or, with `dry`, prints them."""

    dry: bool = False
    sleep: Callable[[float], None] = time.sleep

    def run(self, arguments: list[str], *, stdin: str | None = None) -> str:
        """Run a command and return its output; "" where the command is only printed.

        Errors: MissingResourceError; GcloudError, with gcloud's own sentence, after
        several tries if it may pass.
        """
        if self.dry:
            self._print(arguments, stdin)
            return ""
        error = ""
        for number, delay in enumerate((*DELAYS, None), start=2):
            code, out, error = self._once(arguments, stdin)
            if code == 0:
                return out
            if _MISSING.search(error):
                raise MissingResourceError(_sentence(arguments, error))
            if "create" in arguments and _THERE.search(error):
                return out  # an earlier try came through although its answer was lost
            if delay is None or not _PASSING.search(error):
                break
            tries = f"asking again, {number} of {len(DELAYS) + 1}"
            print(f"{_sentence(arguments, error)}: {tries}", file=sys.stderr, flush=True)
            self.sleep(delay)
        raise GcloudError(_sentence(arguments, error))

    def ask(self, arguments: list[str]) -> Any:
        """Run a command that prints JSON, and return it; [] where there is none.

        It is an answer of Google's own service, and no file that others can write.
        Errors: as `run`.
        """
        return json.loads(self.run(arguments) or "[]")

    def attach(self, arguments: list[str]) -> int:
        """Run a command with this terminal; its exit code."""
        if self.dry:
            self._print(arguments, None)
            return 0
        return subprocess.run([_program(), *arguments], check=False).returncode

    def _once(self, arguments: list[str], stdin: str | None) -> tuple[int, str, str]:
        try:
            done = subprocess.run(
                [_program(), *arguments],
                input=stdin or "",
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return 124, "", f"timed out after {PATIENCE} s"
        return done.returncode, done.stdout, done.stderr

    def _print(self, arguments: list[str], stdin: str | None) -> None:
        line = shlex.join(["gcloud", *arguments])
        print(line if stdin is None else f"{line} <<'END'\n{stdin.rstrip()}\nEND", file=sys.stdout)


def _program() -> str:
    """Errors: GcloudError where gcloud is not installed."""
    found = shutil.which("gcloud")
    if found is None:
        raise GcloudError(
            "gcloud is not on PATH: install it (https://cloud.google.com/sdk/docs/install), then "
            "`gcloud auth login`"
        )
    return found


def _sentence(arguments: list[str], error: str) -> str:
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    message = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "")
    what = " ".join(word for word in arguments[:6] if not word.startswith("-"))
    if _SIGNED_OUT.search(error):
        message = f"{message.rstrip('.')}: sign in with `gcloud auth login`"
    return f"gcloud {what}: {message or 'no reason given'}"
