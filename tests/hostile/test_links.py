"""Links that others put into a folder of outputs: nothing is written through them."""

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagen_jax.cli import data as data_command
from imagen_jax.cli.output import Output
from imagen_jax.data.dataset_report import DatasetReport
from imagen_jax.evaluate import layouts
from imagen_jax.evaluate.prompt_file import PromptSet
from imagen_jax.evaluate.report import Report, Row, Section
from imagen_jax.evaluate.sample_folder import SampleFolder
from imagen_jax.finetune import SubjectDataset
from imagen_jax.io import atomic, checkpoints, folder_files, log_files, run_dir, workdir
from imagen_jax.metrics import parts
from imagen_jax.metrics.image_set import ImageSet, Item
from imagen_jax.runtime import lease, preemption, watchdog
from imagen_jax.sample.progress import SamplingCallbacks
from imagen_jax.train.writers import TensorBoardWriter

BEFORE = b"somebody's"
PIXELS = np.zeros((1, 4, 4, 3), np.uint8)
CLASS = SubjectDataset(Path(), "a sks thing", ("a thing",)).class_folder.name


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that links lead to, alone in its folder."""
    file = tmp_path / "outside" / "file"
    file.parent.mkdir()
    file.write_bytes(BEFORE)
    return file


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that others may write to, too, given to a command by a link."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "out").symlink_to("shared")
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def _nothing_is_written_outside(outside: Path):
    yield
    assert outside.read_bytes() == BEFORE
    assert list(outside.parent.iterdir()) == [outside]


def _output(folder: Path) -> Output:
    return Output(folder, ["a"], first_index=0, metadata={})


def _sample(folder: Path) -> None:
    output = _output(folder)
    output.preview("a_0000_0001.png", [PIXELS[0]], ["a"])
    output.write(0, PIXELS)
    output.finish()


def _evaluate(folder: Path) -> None:
    def draw(file: Path) -> None:
        Image.fromarray(PIXELS[0]).save(file)

    section = Section(title="x", rows=(Row(name="y", scores={"z": (1.0, 1)}),))
    page = Section(title="grid", image="grid.png", draw=draw)
    Report(title="title", sections=(section, page)).write(folder)


def _check(folder: Path) -> None:
    numbers = {name: np.ones(1, int) for name in ("width", "height", "tokens", "captions", "bytes")}
    sheet = Image.fromarray(PIXELS[0])
    report = DatasetReport(
        name="x", examples=1, looked_at=1, left_out={}, again={}, contact_sheet=sheet, **numbers
    )
    report.write(folder)


def _keep_batches(folder: Path) -> None:
    callbacks = SamplingCallbacks(cache_dir=folder / "unfinished")
    callbacks.finish_batch("base", 0, PIXELS)
    callbacks.finish_images(0, {"base": PIXELS})


def _train(folder: Path) -> None:
    workdir.write(folder / run_dir.CONFIG, "{}")


def _encode(folder: Path) -> None:
    folder_files.write(folder / "store.json", "{}")


def _score(folder: Path) -> None:
    images = ImageSet("images", ["a"], lambda _: Item(b"", None), False)
    part = parts.Part({"cmmd": np.ones((1, 2), np.float32)}, 4, "0" * 64)
    parts.Parts(images, folder / "images", None, {}).write(0, part)


def _eval_prompts(folder: Path) -> None:
    SampleFolder(folder / "samples", ["a"], {}).open()


def _lay_out(folder: Path) -> None:
    file = folder / "a.png"
    Image.fromarray(PIXELS[0]).save(file)
    layouts.write("geneval", folder, PromptSet(("a",), "", records=("{}",)), [file], 1)


def _dataset(folder: Path) -> SubjectDataset:
    return SubjectDataset(folder, "a sks thing", ("a thing",))


def _write_subject(folder: Path) -> None:
    file = folder / "a.png"
    Image.fromarray(PIXELS[0]).save(file)
    _dataset(folder).write_subject([file], side=4)


def _write_class(folder: Path) -> None:
    _dataset(folder).write_class_image(0, b"")


def _finish(folder: Path) -> None:
    _dataset(folder).finish(1)


def _crash(folder: Path) -> None:
    workdir.write_new(folder, "crash-{}.log", "x")


WRITERS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "sample": (_sample, ("0000_a.png", "grid.png", "metadata.json", "previews/a_0000_0001.png")),
    "eval": (_evaluate, ("grid.png", "scores.json", "report.md", "index.html")),
    "data check": (_check, ("report.md", "check.json", "contact_sheet.png")),
    "batches": (_keep_batches, ("unfinished/base_0000000.npy", "unfinished/0000000.npz")),
    "config": (_train, ("config.json",)),
    "store": (_encode, ("store.json",)),
    "crash": (_crash, ("crash-1.log",)),
}
FILES = [
    pytest.param(write, name, id=f"{kind}-{Path(name).name}")
    for kind, (write, names) in WRITERS.items()
    for name in names
]


@pytest.mark.parametrize("dangling", [False, True], ids=["file", "nothing"])
@pytest.mark.parametrize(("write", "name"), FILES)
def test_a_link_under_a_final_name_is_replaced_or_left(
    write: Callable[[Path], None], name: str, dangling: bool, out: Path, outside: Path
) -> None:
    place = out / name
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(outside.with_name("new") if dangling else outside)
    if name == "metadata.json" and not dangling:
        with pytest.raises(ValueError, match="is none of `imagen sample`"):
            write(out)
        return
    write(out)
    assert name == "crash-1.log" or not place.is_symlink()


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (_sample, "previews"),
        (_keep_batches, "unfinished"),
        (_score, "images"),
        (_eval_prompts, "samples"),
        (_lay_out, "00000"),
        (_write_subject, "subject"),
        (_write_class, CLASS),
        (_finish, CLASS),
    ],
    ids=["previews", "batches", "score", "eval", "geneval", "subject", "class", "captions"],
)
def test_a_link_under_the_name_of_a_subfolder_is_refused(
    write: Callable[[Path], None], name: str, out: Path, outside: Path
) -> None:
    (out / name).symlink_to(outside.parent)
    with pytest.raises(ValueError, match=f"{name} is a link, to .*outside.* remove it, or"):
        write(out)


@pytest.mark.parametrize("name", ["samples", "geneval", "unfinished"])
def test_a_link_in_place_of_a_folder_is_refused_beforehand(
    name: str, out: Path, outside: Path
) -> None:
    (out / name).symlink_to(outside.parent)
    with pytest.raises(ValueError, match=f"{name} is a link, to"):
        atomic.check_names(out, folders=("samples", "geneval", "unfinished"))


def test_images_of_earlier_are_not_moved_through_a_link(out: Path, outside: Path) -> None:
    _sample(out)
    (out / "earlier").symlink_to(outside.parent)
    with pytest.raises(ValueError, match="earlier is a link, to"):
        Output(out, ["b"], first_index=0, metadata={}).write(0, PIXELS)
    assert (out / "0000_a.png").is_file()


def test_checkpoints_are_neither_written_nor_set_aside_through_a_link(
    out: Path, outside: Path
) -> None:
    (out / "checkpoints").symlink_to(outside.parent)
    with pytest.raises(ValueError, match="checkpoints is a link, to"):
        checkpoints.Checkpoints(out)
    (out / "3").mkdir()
    (out / "damaged").symlink_to(outside.parent)
    with pytest.raises(ValueError, match="damaged is a link, to"):
        workdir.move(out / "3", out / "damaged" / "3")


def test_batches_are_not_kept_through_a_link(out: Path, outside: Path) -> None:
    (out / "unfinished").symlink_to(outside.parent)
    with (
        pytest.raises(ValueError, match="unfinished is a link, to"),
        preemption.watch_between_batches(out / "unfinished"),
    ):
        pass


def test_metadata_of_a_stranger_move_no_files_of_others(out: Path) -> None:
    (out / "thesis.tex").write_text("x")
    for listed in ('"thesis.tex"', '"../x.png"', "3", "null"):
        (out / "metadata.json").write_text(f'{{"images": [{{"file": {listed}}}]}}')
        with pytest.raises(ValueError, match="is none of `imagen sample`"):
            _output(out)
    for text in ("[" * 10**5, "[]", "{}", '{"images": 3}', '{"images": [3]}'):
        (out / "metadata.json").write_text(text)
        with pytest.raises(ValueError, match="is none of `imagen sample`"):
            _output(out)


def test_a_log_is_not_appended_through_a_link(out: Path, outside: Path) -> None:
    log = out / "metrics.jsonl"
    log.symlink_to(outside)
    with pytest.raises(OSError, match="it is a link, which may lead anywhere: remove it") as told:
        log_files.append_line(log, b"{}\n")
    assert told.value.errno == errno.ELOOP
    with pytest.raises(OSError, match="it is a link"):
        log_files.repair(log)


def test_a_log_behind_a_link_costs_itself_alone(
    out: Path, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "metrics.jsonl").symlink_to(outside)
    log_files.JsonLines(out / "metrics.jsonl").add({"step": 1})
    assert "metrics.jsonl: not written (it is a link" in capsys.readouterr().err
    writer = TensorBoardWriter(out, start=0)
    writer._file.symlink_to(outside)
    with pytest.raises(OSError, match="it is a link"):
        writer.scalars(1, {"loss": 1.0})
    (out / watchdog.STACKS).symlink_to(outside)
    with pytest.raises(OSError, match="it is a link"):
        watchdog.Watchdog(out / watchdog.STACKS)._write("x")


def test_a_new_folder_takes_no_links_place(out: Path, outside: Path) -> None:
    for target in (outside.parent, outside.with_name("new")):
        (out / "bundle").symlink_to(target)
        with (
            pytest.raises(FileExistsError, match="bundle exists; give another folder"),
            atomic.new_folder(out / "bundle"),
        ):
            pass
        (out / "bundle").unlink()


def test_a_shard_takes_no_links_place(out: Path, outside: Path) -> None:
    for target in (outside, outside.with_name("new")):
        (out / "shard").symlink_to(target)
        with pytest.raises(FileExistsError, match="shard is a link, and was not written"):
            folder_files.create(out / "shard", BEFORE)
        (out / "shard").unlink()


def test_a_temporary_name_cannot_be_foreseen(
    out: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda count: "0" * 2 * count)
    (out / f"x.{'0' * 16}.tmp").symlink_to(outside)
    with pytest.raises(FileExistsError):
        atomic.write_atomic(out / "x", "y")


def test_a_lease_is_not_written_through_a_link(out: Path, outside: Path) -> None:
    for target in (outside, outside.with_name("new")):
        (out / "lease.json").symlink_to(target)
        place = lease.open_lease_file(out, "lease.json")
        assert not place.create("x")
        seen = place.read()
        assert (seen is None) == (target != outside)
        if seen is not None:
            assert place.replace("x", seen)
            assert not (out / "lease.json").is_symlink()
        (out / "lease.json").unlink()


def test_a_sign_of_life_does_not_follow_a_link(out: Path, outside: Path) -> None:
    os.utime(outside, (1, 1))
    (out / "lease.json").symlink_to(outside)
    lease.open_lease_file(out, "lease.json").touch("")
    assert outside.stat().st_mtime == 1


def test_a_contact_sheet_replaces_a_link(
    out: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imagen_jax.data.sources import addresses

    encoded = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(encoded, "PNG")
    shown = [{"image": encoded.getvalue(), "caption": "a"}]
    monkeypatch.setattr(addresses, "open_embedded", lambda *_: shown)
    sheet = out / "sheet.png"
    sheet.symlink_to(outside)
    data_command.run(["show", "shapes", "--out", str(sheet)])
    assert not sheet.is_symlink()
    with Image.open(sheet) as opened:
        assert opened.format == "PNG"
    with pytest.raises(ValueError, match=r"no image format has the ending '\.xyz'"):
        data_command.run(["show", "shapes", "--out", str(out / "sheet.xyz")])
