"""What `imagen data check` says of a source and what `imagen encode` keeps of it are the same."""

import contextlib
import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from small_store import make_store

from imagen_jax import config
from imagen_jax.cli import data
from imagen_jax.data import inspect
from imagen_jax.data.prepare import images, summary
from imagen_jax.data.sources import addresses, base
from imagen_jax.data.store import records, skipped, store
from imagen_jax.data.store.records import Record

FAULTS = Path(__file__).parent.parent / "fixtures" / "faults"
# Examples that are kept and left out, by what the source or the example says.
KEPT = {
    "tars:surrogate.tar": 1,
    "tars:t_cat.tar": 4,
    "tars:latin1names.tar": 2,
    "folder:surrogate_jsonl": 1,
    "folder:latin1names": 2,
    "folder:utf16_txt": 1,
    "folder:rows": 2,
    "folder:nested_meta": 2,
    "folder:trailing": 3,
    "folder:cmyk_bare": 2,
    "folder:hub/snapshots/rev": 0,
    "parquet:pq": 3,
}


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixtures, to write indices beside."""
    folder = tmp_path_factory.mktemp("faults")
    shutil.copytree(FAULTS, folder, dirs_exist_ok=True)
    with tarfile.open(folder / "latin1names.tar") as tar:
        tar.extractall(folder, filter="data")
    return folder


def stored(source: base.Source, folder: Path) -> tuple[list[str], list[skipped.Skipped]]:
    """Keys of the records that `encode` writes, and what it lists as skipped."""
    target = make_store(folder, count=len(source), framing=config.Framing())
    text = records.round_encoding(np.ones((1, 1), np.float32), target.text_dtype)
    for number, pictures, lacks in images.prepare_shards(source, target, store.begin_store(target)):
        made = [Record(**one._asdict(), texts=(text,) * len(one.captions)) for one in pictures]
        store.write_shard(target, number, made, lacks=lacks)
    store.write_empty(target, text)
    with contextlib.suppress(ValueError):  # of a store without any record
        store.finish_store(target)
    keys = [one.key for one in made]
    return keys, lacks


@pytest.mark.parametrize("address", KEPT)
def test_check_names_just_what_encode_leaves_out(
    faults: Path, tmp_path: Path, address: str
) -> None:
    form, _, place = address.partition(":")
    address = f"{form}:{faults / place}"
    source = addresses.open_source(addresses.parse_address(address), tmp_path)
    look = inspect.ExampleInspector(
        source, config.Filters(), lambda texts: [len(t.encode()) for t in texts]
    )
    found = inspect.inspect_examples(look, range(len(source)), processes=1, progress=False)
    keys, lacks = stored(source, tmp_path / "pairs")
    assert len(keys) == len(found.width) == KEPT[f"{form}:{place}"]
    said = {reason: names.total for reason, names in found.left_out.items()}
    listed = {reason: names.total for reason, names in source.skipped.items()}
    for one in lacks:
        listed[one.reason] = listed.get(one.reason, 0) + 1
        assert any(name.startswith(f"{one.key}: ") for name in found.left_out[one.reason])
    assert said == listed


def test_the_report_is_written_whatever_the_names_and_captions(
    faults: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "caf\udce9"
    shutil.copytree(faults / "latin1names", folder)
    (folder / "b.txt").write_text("words " * 150_000)
    out = tmp_path / "check"
    command = ["check", f"folder:{folder}", "--data-dir", str(tmp_path), "--out", str(out)]
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # strict, as a terminal is
    with contextlib.redirect_stdout(printed):
        data.run([*command, "--workers", "1"])
    assert "caf\\udce9" in (out / "report.md").read_text(encoding="utf-8")
    assert base.make_printable(str(folder)) in (out / "report.md").read_text(encoding="utf-8")


def test_encode_says_what_the_source_left_out(faults: Path, tmp_path: Path) -> None:
    address = addresses.parse_address(f"tars:{faults / 'surrogate.tar'}")
    said = summary.describe_skipped(addresses.open_source(address, tmp_path), address)
    assert said == (
        f"tars:{faults}/surrogate.tar itself left out 1 caption that is no Unicode text "
        "(surrogate.tar: 0); skipped.jsonl and `imagen data check` name more\n"
    )
    whole = addresses.parse_address(f"folder:{faults / 'rows'}")
    assert summary.describe_skipped(addresses.open_source(whole, tmp_path), whole) == ""
