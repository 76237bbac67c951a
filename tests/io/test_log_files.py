"""Logs are read by whole lines, and written whole or not at all, without ending anything."""

import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import efficient_unet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lib import runs

from imagen_jax.cli import console
from imagen_jax.cloud import gcloud, status
from imagen_jax.evaluate import evaluate
from imagen_jax.io import log_files

ENTRIES = [{"step": step, "loss": 0.5, "error": 0.25, "who": "ä\n"} for step in range(3)]
# What has a form, and not the fields or the numbers that readers need.
FIELDS = '{}\n{"step": 4}\n{"loss": 1}\n{"step": [4], "loss": 1, "error": 1}\n' + (
    '{"step": 4, "loss": "a", "error": null}\n{"step": 4, "loss": %s, "error": 1}\n' % ("9" * 5000)
)
WHOLE = b"".join(map(log_files.format_line, ENTRIES))


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files of 20 bytes at most: a full disk, to whoever writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@given(
    st.integers(0, len(WHOLE)), st.sampled_from([b"", b"\0" * 9, b"\xff\xfe", b'{"step": 4, "lo'])
)
def test_half_a_line_is_taken_away_and_no_more(
    tmp_path_factory: pytest.TempPathFactory, cut: int, garbage: bytes
) -> None:
    file = tmp_path_factory.mktemp("log") / "m.jsonl"
    file.write_bytes(WHOLE[:cut] + garbage)
    kept = [
        e
        for n, e in enumerate(ENTRIES)
        if cut >= len(b"".join(map(log_files.format_line, ENTRIES[: n + 1])))
    ]
    ends_whole = not garbage and cut + 1 in (
        len(log_files.format_line(ENTRIES[0])) * n for n in (1, 2, 3)
    )
    expected = ENTRIES[: len(kept) + ends_whole]  # the line's end alone was lost
    assert log_files.read_entries(file) == expected
    log = log_files.JsonLines(file)
    log.add({"step": 9})
    assert [json.loads(x) for x in file.read_text().splitlines()] == [*expected, {"step": 9}]


@pytest.mark.parametrize(
    "bad",
    [
        '{"step": 4, "lo',
        '{"step": 4, "lo{"step": 6, "loss": 1}\n',
        "\0\n[1]\n",
        FIELDS,
        "[" * 50_000,
    ],
)
def test_every_reader_takes_whole_lines_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    text = WHOLE.decode() + bad
    for name in ("metrics.jsonl", efficient_unet.ERRORS):
        (tmp_path / name).write_text(text)
    assert runs.losses(tmp_path) == ENTRIES
    assert efficient_unet._errors(tmp_path) == [[0, 0.25], [1, 0.25], [2, 0.25]]
    plotted = []
    monkeypatch.setattr(
        "imagen_jax.evaluate.report.plot_losses", lambda runs, _: plotted.append(runs)
    )
    (section,) = evaluate.loss_sections(tmp_path)
    section.draw(tmp_path / "losses.png")
    assert plotted == [{tmp_path.name: [(0, 0.5), (1, 0.5), (2, 0.5)]}]
    cloud = Mock(spec=gcloud.Gcloud)
    cloud.run = lambda command: text if "cat" in command else "gs://b/r/metrics.jsonl"
    assert next(status._training(cloud, "gs://b/r")).startswith("gs://b/r: step 2, loss 0.5")


def test_an_entry_is_written_whole_or_not_at_all(tmp_path: Path, small_files: None) -> None:
    log_files.append_line(tmp_path / "log", b"fifteen letters")
    with pytest.raises(OSError, match="too large"):
        log_files.append_line(tmp_path / "log", b"ten letter")
    assert (tmp_path / "log").read_bytes() == b"fifteen letters"


def test_a_log_that_fails_is_told_once_and_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").mkdir()
    log = log_files.JsonLines(tmp_path / "log")
    for step in range(3):
        log.add({"step": step})
    assert capsys.readouterr().err == (
        f"{tmp_path}/log: not written (Is a directory); the run continues without it\n"
    )
    (tmp_path / "log").rmdir()
    log.add({"step": 3})
    assert capsys.readouterr().err == f"{tmp_path}/log: written again; 3 entries are missing\n"
    assert log_files.read_entries(tmp_path / "log") == [{"step": 3}]


def test_a_closed_pipe_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with open(theirs, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        with console.tolerant():
            for _ in range(3):
                print("a line", flush=True)
        print("the last flush", flush=True)  # Python's own, at the end
    assert capsys.readouterr().err.count("standard output: not written (Broken pipe)") == 1
