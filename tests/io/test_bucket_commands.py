"""A bucket that fails: each command says that it asks again, then ends with one sentence."""

import re
import sys
import types
from pathlib import Path

import pytest
from cloud_storage import Bucket, Fault

from imagen_jax import cli
from imagen_jax.io import bucket_driver, further_tries
from imagen_jax.runtime import exit_codes

COMMANDS = [
    ("sample", "gs://bucket/run", "a red circle"),
    ("train", "tiny/base8", "--pairs", "gs://bucket/pairs", "--workdir", "gs://bucket/run"),
    ("encode", "tars:gs://bucket/tars", "--for", "tiny", "--out", "gs://bucket/pairs"),
    ("data", "check", "folder:gs://bucket/photos", "--out", "check"),
]
AGAIN = r"gs://bucket\S* did not answer \(503, the server's failure\): asking again, [2-6] of 6"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder; the driver does not wait, and says everything."""

    async def nap(seconds: float) -> None: ...

    monkeypatch.setattr(bucket_driver, "asyncio", types.SimpleNamespace(sleep=nap))
    monkeypatch.setattr(further_tries, "QUIET", 0.0)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize(
    ("code", "says"),
    [
        (403, r"\(403 Forbidden\): ask for the role"),
        (503, r"\(503, the server's failure, again and"),
    ],
)
def test_it_is_one_sentence(
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["imagen", *command])
    bucket.faults = [Fault("GET", times=1000, code=code)]
    with pytest.raises(SystemExit) as stop:
        cli.main()
    *lines, last = capfd.readouterr().err.splitlines()
    # Threads of earlier tests may still fetch shards.
    before = [one for one in lines if not one.startswith("devices: ") and "/records-" not in one]
    assert stop.value.code == exit_codes.REFUSED
    begin = rf"imagen {command[0]}: error: gs://bucket/\S+ was not (read|listed) "
    assert re.match(begin + says, last), last
    assert [line for line in before if not re.fullmatch(AGAIN, line)] == []
    assert bool(before) == (code == 503)
