"""Sources by their paths alone, and lists of them that a shell made of a pattern."""

import io
import tarfile
from pathlib import Path

import jpegs
import pytest

from imagen_jax import config
from imagen_jax.data.prepare import jobs
from imagen_jax.data.sources import addresses, bare_paths


def _fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("names", "form"),
    [
        (("a.JPG", "a.txt"), "folder:"),
        (("00000.tar", "00000_stats.json"), "tars:"),
        (("train-0.parquet",), "parquet:"),
        (("a.png", "metadata.parquet"), "folder:"),
        (("b.tar", "a.webp"), "folder:"),
        ((), "folder:"),
    ],
)
def test_a_folder_is_known_by_its_files(names: tuple[str, ...], form: str, tmp_path: Path) -> None:
    folder = _fill(tmp_path / "some?thing", *names)
    assert addresses.parse_address(str(folder)).dataset == f"{form}{folder}"


@pytest.mark.parametrize(
    ("text", "dataset", "column"),
    [
        ("/d/a.tar?text=alt", "tars:/d/a.tar", "alt"),
        ("/d/{0..9}.tar", "tars:/d/{0..9}.tar", ""),
        ("gs://b/*.tar", "tars:gs://b/*.tar", ""),
        ("x.parquet", "parquet:x.parquet", "text"),
        ("/d/metadata.jsonl?text=alt", "folder:/d", "alt"),
        ("metadata.csv", "folder:.", ""),
        ("emoji?split=train", "emoji/full", "caption"),
    ],
)
def test_a_file_is_known_by_its_name(text: str, dataset: str, column: str) -> None:
    found = addresses.parse_address(text)
    assert (found.dataset, found.text) == (dataset, column)


def test_a_path_that_is_not_there_is_no_source() -> None:
    with pytest.raises(ValueError, match=r"^no data source 'nowhere/pics': no file or folder here"):
        addresses.parse_address("nowhere/pics")


@pytest.mark.parametrize(
    ("texts", "address"),
    [
        (["tars:d/08.tar", "tars:d/09.tar", "tars:d/10.tar"], "tars:d/{08..10}.tar"),
        (["d/a-1.tar", "d/a-3.tar"], "tars:d/{a-1.tar,a-3.tar}"),
        (["9.tar", "10.tar"], "tars:{10.tar,9.tar}"),
        (["/a/x/0.parquet", "/a/y/0.parquet"], "parquet:/a/{x/0.parquet,y/0.parquet}"),
        (["folder:/a"], "folder:/a"),
    ],
)
def test_what_a_shell_expanded_is_one_address_again(texts: list[str], address: str) -> None:
    assert bare_paths.join_addresses(texts) == address


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["folder:/a", "folder:/b"], "2 sources, folder:/a to folder:/b: .*for mixture:FILE"),
        (["/d/0.tar", "parquet:/d"], "several are taken if all of them are tars"),
        (["/d/0.tar", "/d/1,2.tar"], "1,2.tar has a character that means something"),
    ],
)
def test_other_lists_are_refused(texts: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        bare_paths.join_addresses(texts)


def test_the_examples_of_a_list_are_those_of_all(tmp_path: Path) -> None:
    for number in (3, 4, 6):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for ending, data in (("jpg", jpegs.photo((9, 9), seed=0)), ("txt", b"it")):
                info = tarfile.TarInfo(f"{number}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    given = bare_paths.join_addresses([str(path) for path in sorted(tmp_path.glob("*.tar"))])
    source = addresses.open_source(addresses.parse_address(given), tmp_path)
    assert [source.key(n) for n in range(len(source))] == ["3.tar/3", "4.tar/4", "6.tar/6"]


def test_a_config_names_a_source_as_the_command_line_does(tmp_path: Path) -> None:
    folder = _fill(tmp_path / "pics")
    (folder / "a.jpg").write_bytes(jpegs.photo((20, 9), seed=0))
    (folder / "a.txt").write_text("it")
    for dataset in (f"folder:{folder}", str(folder)):
        (experiment,) = config.load("tiny/base8")
        changed = config.Experiment(stage=experiment.stage, data=config.Data(dataset=dataset))
        (job,) = jobs.config_jobs([changed], tmp_path)
        assert job.address == addresses.parse_address(dataset)
        assert jobs.prepare_dataset(job, progress=False).store.count == 1


def test_a_split_is_said_once() -> None:
    found = addresses.parse_dataset("tfds:coco?text=alt", "validation")
    assert (found.split, found.text) == ("validation", "alt")
    with pytest.raises(ValueError, match=r"names split 'test', but data.split='train'"):
        addresses.parse_dataset("tfds:coco?split=test", "train")
