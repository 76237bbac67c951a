"""Our own form: what was read from any layout comes back bit by bit, or a sentence says why not."""

import io
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import sentencepiece
from flax import traverse_util
from safetensors import numpy as tensors

from imagen_jax import cli
from imagen_jax.text import encoder_folders
from imagen_jax.text.checkpoints import lazy_tensors, load, native, safetensors_io
from imagen_jax.text.encoder import TextEncoder
from imagen_jax.text.tokenizer import Tokenizer

FIXTURES = Path(__file__).parent / "fixtures"
TINY = encoder_folders.EMBEDDED["t5_1_1_tiny"]
SOURCES = {
    "embedded": TINY,
    "scanned": FIXTURES / "scalable_t5_tiny",
    "orbax": FIXTURES / "t5_1_1_tiny_orbax",
    **{name: FIXTURES / "hugging_face" / name for name in ("v1_0", "v1_1", "umt5")},
}
SHARD = "weights-00001-of-00001.safetensors"
KERNEL = "encoder.layers_1.mlp.wo.kernel"


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    """Of fewer pieces than any fixture's embedding has rows."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a red circle and a blue square"] * 5), model_writer=model,
        vocab_size=24, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return Tokenizer(model.getvalue(), processor, processor.eos_id())


@pytest.fixture
def written(tmp_path: Path, small) -> Path:
    """A converted encoder to change."""
    return _write(tmp_path / "written", TINY, small)


def _write(folder: Path, source: Path, tokenizer: Tokenizer, dtype: str = "float32") -> Path:
    sizes, layout = load.find_layout(source)
    native.write(folder, sizes, layout, tokenizer=tokenizer, dtype=dtype, progress=False)
    return folder


def _flat(params) -> dict[str, np.ndarray]:
    return {n: np.asarray(x) for n, x in traverse_util.flatten_dict(params, sep=".").items()}


def _assert_same(ours, theirs) -> None:
    ours, theirs = _flat(ours), _flat(theirs)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype, name
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_written_is_read(name: str, tmp_path: Path, small) -> None:
    config, params = load.load_parameters(SOURCES[name])
    folder = _write(tmp_path / "e", SOURCES[name], small)
    found, ours = load.load_parameters(folder)
    assert found == config
    _assert_same(ours, params)
    assert (folder / native.TOKENIZER).read_bytes() == small.model
    described = json.loads((folder / native.DESCRIPTION).read_text())
    assert described["sizes"] == vars(config)
    assert described["files"].keys() | {native.DESCRIPTION} == _files(folder).keys()


@pytest.mark.parametrize("name", ["embedded", "scanned", "v1_0", "v1_1", "umt5"])
def test_identity_survives_in_float32(name: str, tmp_path: Path, small) -> None:
    source = shutil.copytree(SOURCES[name], tmp_path / "source")
    (source / "spiece.model").write_bytes(small.model)
    original = TextEncoder.load(str(source), max_length=8)
    folder = _write(tmp_path / "e", source, small)
    assert TextEncoder.load(str(folder), max_length=8).identity == original.identity


def test_bfloat16_keeps_what_an_encoder_of_bfloat16_keeps(tmp_path: Path, small) -> None:
    source = shutil.copytree(TINY, tmp_path / "source")
    (source / "spiece.model").write_bytes(small.model)
    half = _write(tmp_path / "half", source, small, "bfloat16")
    ours, theirs = (
        TextEncoder.load(str(folder), max_length=8, dtype="bfloat16") for folder in (half, source)
    )
    _assert_same(ours.params, theirs.params)
    assert ours.identity != theirs.identity
    kept = {str(x.dtype) for x in tensors.load_file(half / SHARD).values()}
    assert kept == {"bfloat16", "float32"}
    again = _write(tmp_path / "again", half, small)  # values that bfloat16 represents
    assert TextEncoder.load(str(again), max_length=8).identity == ours.identity


def test_several_files_that_the_library_opens(tmp_path: Path, small, monkeypatch) -> None:
    monkeypatch.setattr(native, "SHARD", 100_000)
    _, params = load.load_parameters(TINY)
    folder = _write(tmp_path / "e", TINY, small, "bfloat16")
    files = sorted(folder.glob("*.safetensors"))
    count = len(files)
    assert count > 2
    assert [f.name for f in files] == [
        f"weights-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)
    ]
    held = [tensors.load_file(file) for file in files]
    totals = [sum(x.nbytes for x in content.values()) for content in held]
    assert all(t <= 100_000 or len(x) == 1 for t, x in zip(totals, held, strict=True))
    for total, following in zip(totals, held[1:], strict=False):
        first = min(following, key=lambda name: (-following[name].itemsize, name))
        assert total + following[first].nbytes > 100_000  # no file is begun without need
    found = {name: x for content in held for name, x in content.items()}
    assert sum(map(len, held)) == len(found)
    expected = {
        n: x.astype(ml_dtypes.bfloat16) if x.ndim == 2 and "relpos" not in n else x
        for n, x in _flat(params).items()
    }
    _assert_same(traverse_util.unflatten_dict(found, sep="."), expected)
    _, ours = load.load_parameters(folder)
    _assert_same(ours, jax.tree.map(lambda x: np.asarray(x, np.float32), expected))


def test_a_tensor_larger_than_a_file_has_its_own(tmp_path: Path, small, monkeypatch) -> None:
    monkeypatch.setattr(native, "SHARD", 1)
    folder = _write(tmp_path / "e", SOURCES["v1_1"], small)
    held = [tensors.load_file(file) for file in sorted(folder.glob("*.safetensors"))]
    assert [len(content) for content in held] == [1] * len(_flat(load.load_parameters(folder)[1]))


def test_tensors_are_aligned(tmp_path: Path, small) -> None:
    for dtype in ("float32", "bfloat16"):
        content = (_write(tmp_path / dtype, TINY, small, dtype) / SHARD).read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        assert len(header.pop("__metadata__")) == 1
        assert length % 8 == 0
        widths = {"F32": 4, "BF16": 2}
        order = sorted(header.values(), key=lambda x: x["data_offsets"][0])
        found = [widths[x["dtype"]] for x in order]
        assert found == sorted(found, reverse=True)  # then every begin is a multiple of the width
        assert max(x["data_offsets"][1] for x in header.values()) == len(content) - 8 - length


def test_equal_weights_give_equal_files(tmp_path: Path, small, written, monkeypatch) -> None:
    expected = _files(written)
    assert _files(_write(tmp_path / "orbax", SOURCES["orbax"], small)) == expected
    assert _files(_write(tmp_path / "twice", written, small)) == expected
    sizes, layout = load.find_layout(TINY)
    layout = random.Random(0).sample(list(layout), len(layout))
    native.write(tmp_path / "o", sizes, layout, tokenizer=small, dtype="float32", progress=False)
    assert _files(tmp_path / "o") == expected


@pytest.mark.parametrize("name", ["scanned", "v1_1"])  # views of stacks, and transposed
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pieces_make_a_whole(name: str, dtype: str, tmp_path: Path, small, monkeypatch) -> None:
    expected = _files(_write(tmp_path / "whole", SOURCES[name], small, dtype))
    monkeypatch.setattr(safetensors_io, "PIECE", 100)
    monkeypatch.setattr(lazy_tensors, "READERS", 1)
    assert _files(_write(tmp_path / "pieces", SOURCES[name], small, dtype)) == expected


def _edit(folder: Path, change) -> None:
    file = folder / native.DESCRIPTION
    described = json.loads(file.read_text())
    change(described)
    file.write_text(json.dumps(described))


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def _other_file(folder: Path) -> None:
    """One of as many bytes, in which one tensor has another name."""
    content = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(content.replace(b"layers_1.mlp.wo", b"layers_1.mlp.wx", 1))


def _nested(folder: Path) -> None:
    (folder / "encoder.json").write_text('{"format": ' + "[" * 10**5)


def _linked(folder: Path) -> None:
    """What it names lies elsewhere, and is as it says."""
    (folder / "spiece.model").rename(folder.parent / "elsewhere")
    (folder / "spiece.model").symlink_to("../elsewhere")


def _renamed(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        _edit(folder, lambda x: x["files"].update({name: x["files"].pop("spiece.model")}))

    return change


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda f: (f / SHARD).unlink(), FileNotFoundError, rf"lacks {SHARD}, which encoder\.json"),
        (lambda f: (f / "spiece.model").unlink(), FileNotFoundError, r"lacks spiece\.model"),
        (lambda f: (f / "encoder.json").unlink(), FileNotFoundError, r"but lacks encoder\.json"),
        (lambda f: _cut(f / SHARD), ValueError, rf"{SHARD} has 626460 bytes instead of 626560"),
        (lambda f: _cut(f / "encoder.json"), ValueError, r"encoder\.json is not JSON"),
        (lambda f: _cut(f / "spiece.model"), ValueError, r"spiece\.model has \d+ bytes instead"),
        (lambda f: _flip(f / "spiece.model", 40), ValueError, r"spiece\.model has changed since"),
        (lambda f: _flip(f / SHARD, -1), ValueError, rf"embedding in .*{SHARD} has changed since"),
        (lambda f: _flip(f / SHARD, 3), ValueError, rf"{SHARD}: not a whole safetensors file"),
        (_other_file, ValueError, r"has not .*mlp\.wo\.kernel, .*mlp\.wx\.kernel as encoder\.json"),
        (
            lambda f: _edit(f, lambda x: x.update(version=2)),
            ValueError,
            r"encoder\.json is of version 2; version 1 can be read",
        ),
        (lambda f: _edit(f, lambda x: x.update(format="")), ValueError, "is no description of a"),
        (lambda f: _edit(f, lambda x: x.pop("files")), ValueError, r"missing key 'files' of"),
        (lambda f: _edit(f, lambda x: x["sizes"].pop("width")), ValueError, "missing key 'width'"),
        (
            lambda f: _edit(f, lambda x: x["sizes"].update(mlp_width=64)),
            ValueError,
            r"has not .*layers_0\.mlp\.wi_0\.kernel.* as encoder\.json says",
        ),
        (
            lambda f: _edit(f, lambda x: x["tensors"].pop(KERNEL)),
            ValueError,
            rf"has not {KERNEL} as encoder\.json says",
        ),
        (
            lambda f: _edit(f, lambda x: x["tensors"][KERNEL].update(file="other.safetensors")),
            ValueError,
            rf"has not {KERNEL} as encoder\.json says",
        ),
        (_nested, ValueError, r"encoder\.json is not JSON \(nested more than 64 deep\)"),
        (lambda f: (f / "encoder.json").write_text("[]"), ValueError, "encoder.json has no fields"),
        (lambda f: _edit(f, lambda x: x.update(files=[])), ValueError, "files: expected fields"),
        (lambda f: _edit(f, lambda x: x.update(tensors=3)), ValueError, "tensors: expected fields"),
        (
            lambda f: _edit(f, lambda x: x["sizes"].update(layers="2")),
            ValueError,
            "layers: expected",
        ),
        (
            lambda f: _edit(f, lambda x: x["files"]["spiece.model"].update(sha256=3)),
            ValueError,
            r"files\['spiece\.model'\]\.sha256: expected str",
        ),
        (_linked, ValueError, r"spiece\.model, which .*encoder\.json names, is a link out of"),
        *(
            (_renamed(name), ValueError, "a file's or a tensor's name is .* which is no name")
            for name in ("../spiece.model", "/etc/passwd", "a\x1b[2J", "-x", "", "._x")
        ),
    ],
)
def test_damage_is_named(written: Path, change, error, says: str) -> None:
    load.load_parameters(written)
    change(written)
    with pytest.raises(error, match=says) as told:
        load.load_parameters(written)
    assert (
        "copy the folder again" in str(told.value)
        or "again, or use" in str(told.value)
        or ("copy, download or export it again" in str(told.value))
        or "copy the file there" in str(told.value)
    )


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_interrupted_it_leaves_nothing(tmp_path: Path, small, monkeypatch, stop) -> None:
    fill, written = safetensors_io.fill_tensor, []

    def fail(slot, array) -> str:
        written.append(fill(slot, array))
        assert list(tmp_path.rglob("*.safetensors"))
        if len(written) >= 5:  # several threads come here
            raise stop("now")
        return written[-1]

    monkeypatch.setattr(safetensors_io, "fill_tensor", fail)
    with pytest.raises(stop, match="now"):
        _write(tmp_path / "e", TINY, small)
    assert len(written) >= 5
    assert not os.listdir(tmp_path)


def test_nothing_is_written_over(written: Path, small) -> None:
    before = _files(written)
    with pytest.raises(FileExistsError, match="written exists; give another folder"):
        _write(written, SOURCES["v1_1"], small)
    assert _files(written) == before


def test_what_does_not_fit_is_refused(tmp_path: Path, monkeypatch) -> None:
    tokenizer = Tokenizer.load(TINY / "spiece.model")
    with pytest.raises(ValueError, match="1100 pieces, but the embedding only 48 rows"):
        _write(tmp_path / "e", SOURCES["v1_1"], tokenizer)
    disk = shutil.disk_usage(tmp_path)._replace(free=600_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
    with pytest.raises(OSError, match=r"e takes 0\.0 GB, but only 0\.0 GB are free there"):
        _write(tmp_path / "e", TINY, tokenizer)
    _write(tmp_path / "half", TINY, tokenizer, "bfloat16")
    assert os.listdir(tmp_path) == ["half"]


def _run(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["imagen", "convert", "text", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_command_converts_an_embedded_encoder(tmp_path: Path, monkeypatch, capsys) -> None:
    folder = tmp_path / "new" / "e"
    assert _run(monkeypatch, "t5_1_1_tiny", "--out", folder) == 0
    out, err = capsys.readouterr()
    assert "156,096 parameters: vocab 1152, width 64, layers 2" in out
    assert f"{SHARD}: 626,560 bytes" in out
    assert f"the encoder is in {folder}, 0.9 MB in float32" in out
    assert "100%" in err
    expected = TextEncoder.load("t5_1_1_tiny", max_length=8).identity
    assert TextEncoder.load(str(folder), max_length=8).identity == expected


def test_the_command_takes_a_vocabulary(tmp_path: Path, small, monkeypatch, capsys) -> None:
    source, folder = shutil.copytree(SOURCES["umt5"], tmp_path / "in" / "umt5"), tmp_path / "e"
    assert _run(monkeypatch, source, "--out", folder) == 1
    said = capsys.readouterr().err
    assert "no SentencePiece *.model file" in said
    assert "--tokenizer FILE.model names another" in said
    assert not folder.exists()
    vocabulary = tmp_path / "other.model"
    vocabulary.write_bytes(small.model)
    assert _run(monkeypatch, source, "--out", folder, "--tokenizer", vocabulary) == 0
    assert TextEncoder.load(str(folder), max_length=8).tokenizer.model == small.model
