"""Very long, very deep and very many names of strangers: left out or refused in few words."""

import contextlib
import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import run_imagen
from PIL import Image
from safetensors import numpy as tensors

from imagen_jax import cli, export
from imagen_jax.cli import sampler_overrides
from imagen_jax.config.sentences import LONGEST
from imagen_jax.data.sources import addresses, base, folders
from imagen_jax.export import manifest
from imagen_jax.io import paths, safetensors
from imagen_jax.pretrained import locate
from imagen_jax.text.checkpoints import huggingface_files

MOST = 1500  # characters of a sentence that lists names
LONG = "x" * 200_000


def image() -> bytes:
    """A small image."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(file, "PNG")
    return file.getvalue()


def put(folder: Path) -> Path:
    """A folder with one image and its caption."""
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(image())
    (folder / "a.txt").write_text("red")
    return folder


def shown(source: base.Source) -> str:
    """What is printed of the files that a source leaves out."""
    return base.summarise_skips(source.skipped)


def test_a_tars_member_of_a_very_long_name_is_named_in_part(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("a.png", image()), ("a.txt", b"red"), (f"{LONG}.png", image())):
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    source = addresses.open_source(addresses.parse_address(f"tars:{tmp_path / 'a.tar'}"), tmp_path)
    assert len(source) == 1
    assert "xxx... 199,7" in shown(source)
    assert len(shown(source)) < MOST


def test_a_tables_very_long_names_are_named_in_part(tmp_path: Path) -> None:
    folder = put(tmp_path / "in")
    rows = [{"file_name": name, "text": "red"} for name in ("a.png", f"{'x' * 5000}.png")]
    rows += [{"file_name": "y" * 5000, "text": 3}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = folders.open_folder(str(folder))
    assert len(source) == 1
    assert len(shown(source)) < MOST
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "y" * 5000, "text": 3}))
    with pytest.raises(ValueError, match=r"column 'text' of y+\.\.\. 4,700 characters") as refused:
        folders.open_folder(str(folder))
    assert len(str(refused.value)) < MOST


def test_the_columns_of_a_table_are_named_in_part(tmp_path: Path) -> None:
    folder = put(tmp_path / "in")
    columns = {f"{n}{'x' * 300}": 1 for n in range(3000)}
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png"} | columns))
    with pytest.raises(ValueError, match=r"no column 'text'.* and 2,993 more: name") as refused:
        folders.open_folder(str(folder))
    assert len(str(refused.value)) < 3500


def test_a_column_that_a_table_has_twice_is_refused(tmp_path: Path) -> None:
    folder = put(tmp_path / "in")
    (folder / "metadata.csv").write_text("file_name,text,text\na.png,red,blue\n")
    with pytest.raises(ValueError, match="csv has 2 columns 'text': give each a name of its own"):
        folders.open_folder(str(folder))
    (folder / "metadata.csv").write_text("file_name,text,other,other\na.png,red,blue,x\n")
    assert folders.open_folder(str(folder))[0]["caption"] == "red"


def test_what_lies_in_very_deep_folders_is_left_out(tmp_path: Path) -> None:
    folder = put(tmp_path / "in")
    with deep_folders(folder):
        source = folders.open_folder(str(folder))
    assert len(source) == 1
    assert [*source.skipped] == ["path that is too long"]
    assert len(shown(source)) < MOST


@contextlib.contextmanager
def deep_folders(folder: Path, levels: int = 1500) -> Iterator[None]:
    """Folders in each other, so deep that no path leads there and Python can't delete them."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d" * 10, dir_fd=here)
        inside = os.open("d" * 10, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inside
    os.close(here)
    try:
        yield
    finally:
        subprocess.run(["rm", "-r", str(folder / ("d" * 10))], check=True)


def test_a_pattern_through_very_deep_folders_is_refused(tmp_path: Path) -> None:
    folder = put(tmp_path / "in")
    with deep_folders(folder), pytest.raises((ValueError, FileNotFoundError)) as refused:
        addresses.open_source(addresses.parse_address(f"tars:{folder}/**/*.tar"), tmp_path)
    assert len(str(refused.value)) < MOST


def test_a_bundles_very_long_and_very_many_names_are_named_in_part(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    facts = {"dtype": "float32", "versions": {"imagen_jax": "0.1.0"}, "dataset": "x", "stages": {}}
    text = {"kind": "none", "encoder": "", "tokenizer": "", "identity": "", "vocabulary": ""}
    text |= {"width": 8, "max_length": 8, "dtype": "float32", "clean": False}
    manifest.write_manifest(tmp_path, facts | {"text": text})
    export.verify_bundle(tmp_path)
    for number in range(20_000):
        os.link(tmp_path / "base" / "config.json", tmp_path / "base" / f"{number}{'x' * 200}")
    with pytest.raises(ValueError, match=r"is not listed; .* and 19,960 more; copy or") as refused:
        export.verify_bundle(tmp_path)
    assert len(str(refused.value)) < 40 * (LONGEST + 50)
    with pytest.raises(ValueError, match=r"199,920 characters .*, which is no file in its folder"):
        paths.path_inside(tmp_path, LONG, by=tmp_path / "manifest.json")


def test_very_deep_folders_in_a_bundle_are_not_listed(tmp_path: Path) -> None:
    with deep_folders(tmp_path):
        (found,) = manifest._seen(tmp_path)
    assert found.count("/") == manifest.DEEPEST


def test_a_file_of_very_many_tensors_is_refused_by_their_count(tmp_path: Path) -> None:
    nothing = np.zeros((0,), np.float32)
    tensors.save_file({f"t{n:06d}": nothing for n in range(300_000)}, tmp_path / "m.safetensors")
    began = time.process_time()
    for read in (safetensors.read_dtypes, huggingface_files.tensor_files):
        with pytest.raises(ValueError, match=r"holds .*'t000000'.* has 300,000 tensors, more than"):
            read(tmp_path / "m.safetensors")
    assert time.process_time() - began < 5


def test_a_header_without_end_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    with (tmp_path / "m.safetensors").open("wb") as file:
        file.write((1 << 26).to_bytes(8, "little"))
        file.truncate(1 << 27)
    with pytest.raises(ValueError, match="its header would have 67,108,864 bytes"):
        safetensors.read_dtypes(tmp_path / "m.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(OSError, match="is no file, but a pipe"):
        safetensors.read_dtypes(tmp_path / "pipe.safetensors")


def test_a_folder_of_very_many_runs_is_no_cascade(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"has 300 folders with a config.json, more than a casc"):
        locate.find_in_folder(tmp_path)


@pytest.mark.parametrize("text", ["9" * 5000, "٣:0", "+999:0", "9_9:0", "²:0", "999:0 "])
def test_time_steps_are_of_ascii_digits(text: str) -> None:
    with pytest.raises(ValueError, match=r"--timesteps .*: wanted 999:600:0, or one") as refused:
        sampler_overrides.read_overrides({"timesteps": text})
    assert len(str(refused.value)) < MOST


@pytest.mark.parametrize("text", ["٣", "1_0", "9" * 5000, "1e3", " 7"])
def test_whole_numbers_of_options_are_of_ascii_digits(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_imagen(monkeypatch, "sample", "nowhere", "a", "--seed", text) == 2
    said = capsys.readouterr()
    assert "is no whole number" in " ".join((said.out + said.err).replace("│", " ").split())


def test_what_the_command_line_says_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    cli._say(f"imagen data: error: {LONG}: no such file")
    assert len(capsys.readouterr().err) < 600
