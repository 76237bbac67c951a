"""Every file of JSON that others may write: bounded, typed, and refused or passed over by name."""

import json
import time
from pathlib import Path

import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from imagen_jax.cloud import worker
from imagen_jax.cloud.observe import WorkerReport
from imagen_jax.data.sources import base, folders, tables, tar_index, tfds_classes
from imagen_jax.data.sources.base import SkipLog
from imagen_jax.data.store import block_cache
from imagen_jax.data.synthetic.shapes import scenes
from imagen_jax.io import json_reader, log_files
from imagen_jax.runtime import lease_file, lease_holder
from imagen_jax.runtime.lease_file import ReadLease
from imagen_jax.runtime.lease_holder import Holder

HOLDER = {
    "host": "a",
    "process": 3,
    "begun": "1",
    "machine": "b",
    "command": "imagen train",
    "since": "now",
    "owner": "c",
    "at": 5.0,
}
NO_JSON = [
    "",
    "[]",
    "3",
    "null",
    "[" * 10**5,
    '{"a":' * 10**5,
    "{" * 70,
    '"x"',
    "\udcff",
    "1" * 9999,
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)


def _parse(text: str) -> Holder | None:
    return lease_holder.parse_holder(ReadLease(text, "1", 0.0))


def test_a_holder_is_read() -> None:
    found = _parse(json.dumps(HOLDER))
    assert isinstance(found, Holder)
    assert (found.host, found.process) == ("a", 3)
    assert lease_file.read_time(json.dumps(HOLDER)) == 5.0
    assert _parse(lease_file.FREE) is None


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"process": "3"},
            {"process": True},
            {"process": 3.0},
            {"process": -1},
            {"process": None},
        ),
        *({"host": 3}, {"host": "a\x1b[2J"}, {"command": "a\nb"}, {"since": "\u202ex"}),
        *({"more": 1}, {"owner": []}, {"machine": {}}, {"begun": 1}),
    ],
)
def test_a_lease_of_other_kinds_is_a_damaged_one(change: dict) -> None:
    """It is free after silence, as one that is half written is."""
    assert _parse(json.dumps(HOLDER | change)) == lease_holder.UNKNOWN


@pytest.mark.parametrize("text", NO_JSON, ids=lambda text: ascii(text[:5]))
def test_what_is_no_lease_is_a_damaged_one(text: str) -> None:
    assert _parse(text) == lease_holder.UNKNOWN
    assert lease_file.read_time(text) == 0.0


@pytest.mark.parametrize("at", ["5", None, True, [], -1, 1e300, 10**400, float("nan")])
def test_a_time_that_is_none_is_long_ago(at: object) -> None:
    assert lease_file.read_time(json.dumps(HOLDER | {"at": at})) == 0.0


def test_no_more_of_a_lease_is_read_than_ours_has(tmp_path: Path) -> None:
    (tmp_path / "lease.json").write_text(json.dumps(HOLDER) + " " * 10**6)
    found = lease_file.open_lease_file(tmp_path, "lease.json").read()
    assert found is not None
    assert len(found.text) == lease_file.MAX_BYTES
    assert isinstance(_parse(found.text), Holder)


@pytest.mark.parametrize("text", [*NO_JSON, "{}", '{"bytes": "3"}', '{"bytes": true}'])
def test_a_damaged_note_of_a_cache_counts_what_is_on_disk(tmp_path: Path, text: str) -> None:
    (tmp_path / block_cache.ABOUT).write_bytes(text.encode(errors="surrogateescape"))
    assert block_cache._reserved(tmp_path) == block_cache._on_disk(tmp_path)
    (tmp_path / block_cache.ABOUT).write_text('{"bytes": 5, "files": []}')
    assert block_cache._reserved(tmp_path) == 5


@pytest.mark.parametrize("text", [*NO_JSON, "{}", '{"code": "1"}', '{"code": 256}', '{"code": -1}'])
def test_a_mark_of_no_worker_is_refused(tmp_path: Path, text: str) -> None:
    mark = tmp_path / "once-0.json"
    mark.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"once-0\.json is of no worker of this launch"):
        worker._read(mark, worker.Mark)
    mark.write_text('{"code": 3}\n')
    assert worker._read(mark, worker.Mark).code == 3


@pytest.mark.parametrize("step", [3, [], "x" * 10**6])
def test_a_report_of_no_worker_is_refused(tmp_path: Path, step: object) -> None:
    file = tmp_path / "worker-0.json"
    file.write_text(json.dumps({"worker": 0, "of": 1, "phase": "a", "beat": 1, "step": step}))
    with pytest.raises(ValueError, match=r"worker-0\.json is of no worker"):
        worker._read(file, WorkerReport)


def _rows(table: Path) -> tuple[list[str], SkipLog]:
    skips = SkipLog()
    return [name for name, _ in tables.read_table(str(table), "text", skips)], skips


@pytest.mark.parametrize("text", [text for text in NO_JSON if text])
def test_a_line_that_is_no_row_costs_itself_alone(tmp_path: Path, text: str) -> None:
    table = tmp_path / "metadata.jsonl"
    good = '{"file_name": "a.jpg", "text": "a"}\n'
    table.write_bytes((good + text + "\n" + good).encode(errors="surrogateescape"))
    names, skips = _rows(table)
    assert names == ["a.jpg", "a.jpg"]
    assert ("unreadable row" in skips.collect()) == (text != "null")


@pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.csv"])
def test_a_line_without_end_is_never_in_memory(
    tmp_path: Path, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "LONGEST", 64)
    good = {"jsonl": '{"file_name": "a.jpg", "text": "a"}\n', "csv": "a.jpg,a\n"}
    row = good[table.rpartition(".")[2]]
    head = "file_name,text\n" if table.endswith("csv") else ""
    (tmp_path / table).write_text(head + row + "x" * 1000 + "\n" + row + "y" * 200)
    names, skips = _rows(tmp_path / table)
    assert names == ["a.jpg", "a.jpg"]
    first = 3 if head else 2
    said = [f"{table} line {n}, which is too long" for n in (first, first + 2)]
    assert list(skips.collect()["unreadable row"]) == said


def test_a_deep_caption_is_named_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = "[" * 70 + '"x"' + "]" * 70
    row = f'{{"file_name": "b.jpg", "text": {deep}}}\n'
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": "a"}\n' + row)
    names, skips = _rows(tmp_path / "metadata.jsonl")
    assert names == ["a.jpg"]
    assert "nested in more than 64" in str(skips.collect()["caption that is no text"])
    monkeypatch.setenv("IMAGEN_MAX_NESTING", "80")
    assert _rows(tmp_path / "metadata.jsonl")[0] == ["a.jpg", "b.jpg"]


@given(VALUES)
def test_a_member_of_any_json_is_read_or_refused(value: object) -> None:
    try:
        about = tar_index.parse_member(json.dumps(value).encode())
        base.make_texts(about.get("caption"))
    except (ValueError, TypeError):
        pass


@pytest.mark.parametrize("text", [text for text in NO_JSON if text != "null"])
def test_lines_of_a_log_that_are_none_are_left_out(tmp_path: Path, text: str) -> None:
    log = tmp_path / "metrics.jsonl"
    good = '{"step": 1, "loss": 0.5}\n'
    log.write_bytes((good + text + "\n" + good).encode(errors="surrogateescape"))
    assert len(log_files.read_entries(log, "step", "loss")) == 2
    log.write_text('{"step": 1, "loss": 1' + "0" * 400 + "}\n" + good)
    assert len(log_files.read_entries(log, "step", "loss")) == 1


def test_a_log_of_any_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "MOST", 100)
    (tmp_path / "metrics.jsonl").write_text("x" * 101)
    with pytest.raises(ValueError, match=r"metrics\.jsonl has more than 100 bytes"):
        log_files.read_entries(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("text", [*NO_JSON, "{}", '{"shapes": 3}', '{"background": []}'])
def test_a_scene_of_no_dataset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="scene"):
        scenes.from_json(text)


def test_a_class_cannot_hide_in_deep_json() -> None:
    inner = '{"python_class_name": "os.system"}'
    named = tfds_classes._find_names({"x": json.dumps(json.loads(inner))}, epath.Path("f"))
    assert list(named) == ["os.system"]
    deep = "[" * 200 + inner + "]" * 200
    with pytest.raises(ValueError, match="f has JSON in a string that is nested too deeply"):
        list(tfds_classes._find_names({"x": deep}, epath.Path("f")))


@pytest.mark.parametrize("depth", [3, 500])
def test_depth_may_be_chosen(depth: int) -> None:
    text = "[" * depth + "]" * depth
    json_reader.parse_json(text, where="it", remedy="-", depth=depth)
    with pytest.raises(ValueError, match=f"nested more than {depth - 1} deep"):
        json_reader.parse_json(text, where="it", remedy="-", depth=depth - 1)


def test_a_folder_of_hostile_tables_is_read_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    rows = ['{"file_name": "a.jpg", "text": "a"}', *['{"a":' * 10**5] * 20, *["[" * 10**6] * 20]
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    start = time.process_time()
    assert list(folders.open_folder(str(tmp_path)).names) == ["a.jpg"]
    assert time.process_time() - start < 5
