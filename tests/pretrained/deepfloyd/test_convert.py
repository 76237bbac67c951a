"""`imagen convert deepfloyd`: a bundle of the same weights, whole or not at all."""

import json
import os
import re
import shutil
import signal
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from command_line import run_imagen
from deepfloyd_references import FOLDER, FP16, attend_to_text_alone
from flax import traverse_util
from safetensors import numpy as tensors

import imagen_jax
from imagen_jax import export
from imagen_jax.io import tensor_writer
from imagen_jax.io.safetensors import read_dtypes, read_named
from imagen_jax.pretrained.deepfloyd import convert, load
from imagen_jax.runtime import exit_codes
from imagen_jax.text.encoder import TextEncoder

PROMPT = "a photo of a red cube on a blue table"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages and their text encoder."""
    out = tmp_path_factory.mktemp("converted") / "bundle"
    pipelines = convert.open_folders([FOLDER])
    convert.write_bundle(out, pipelines, kind="embedded", text=load.find_text(pipelines))
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of stage I without its text encoder."""
    ignored = shutil.ignore_patterns("text_encoder", "tokenizer")
    return Path(shutil.copytree(FOLDER / "if_I", tmp_path / "if_I", ignore=ignored))


def leaves(cascade: imagen_jax.Imagen, number: int) -> dict[str, Any]:
    return traverse_util.flatten_dict(cascade.stages[number].device_params(), sep="/")


def test_the_bundle_has_the_folders_weights_stages_and_text(bundle: Path) -> None:
    converted, original = imagen_jax.load(bundle), imagen_jax.load(FOLDER)
    assert [s.stage for s in converted.stages] == [s.stage for s in original.stages]
    for number in range(2):
        found, wanted = leaves(converted, number), leaves(original, number)
        assert found.keys() == wanted.keys()
        for name, array in wanted.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert isinstance(converted.encoder, TextEncoder)
    assert isinstance(original.encoder, TextEncoder)
    assert converted.encoder.identity == original.encoder.identity
    for found, wanted in zip(
        converted.encoder.encode([PROMPT]), original.encoder.encode([PROMPT]), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
def test_the_bundle_samples_the_bytes_that_the_folders_do(bundle: Path) -> None:
    images = [
        imagen_jax.load(place)
        .with_samplers([(None, {"timesteps": (999, 500, 0)})])
        .sample([PROMPT], seed=5)
        for place in (bundle, FOLDER)
    ]
    for name, image in images[1].items():
        np.testing.assert_array_equal(images[0][name], image, err_msg=name)
        assert image.std() > 0


@pytest.mark.slow
def test_a_network_without_keys_of_the_image_samples_the_same_bytes(
    folder: Path, tmp_path: Path
) -> None:
    attend_to_text_alone(folder)
    text = str(FOLDER / "if_I" / "text_encoder")
    out, pipelines = tmp_path / "out", convert.open_folders([folder])
    convert.write_bundle(
        out, pipelines, kind="reference", text=load.find_text(pipelines, given=text)
    )
    images = [
        cascade.with_samplers([(None, {"timesteps": (999, 500, 0)})]).sample([PROMPT], seed=5)[
            "deepfloyd_1"
        ]
        for cascade in (imagen_jax.load(out), imagen_jax.load(folder, text_encoder=text))
    ]
    np.testing.assert_array_equal(*images)
    assert images[0].std() > 0


def test_stored_dtypes_stay(folder: Path, tmp_path: Path) -> None:
    whole = tensors.load_file(folder / FP16)
    chosen = (np.float32, np.float16, ml_dtypes.bfloat16)
    for number, name in enumerate(sorted(whole)):
        whole[name] = whole[name].astype(chosen[number % 3])
    tensors.save_file(whole, folder / FP16)
    pipelines = convert.open_folders([folder])
    out = tmp_path / "out"
    document = convert.write_bundle(out, pipelines, kind="embedded", text=None)
    assert document["dtype"] == "bfloat16, float16, float32"
    file = out / "deepfloyd_1" / "weights.safetensors"
    kinds, values = read_dtypes(file), read_named(file)
    for stored, (parameter,) in pipelines[0].layout:
        assert kinds[parameter.name].dtype == whole[stored.name].dtype
        np.testing.assert_array_equal(
            values[parameter.name], parameter.view(whole[stored.name]).astype(np.float32)
        )
    again = imagen_jax.load(out)
    assert leaves(again, 0).keys() == values.keys()
    with pytest.raises(ValueError, match="text encoder"):
        again.sample("a cube")


def test_the_digests_are_of_the_files(bundle: Path) -> None:
    listed = json.loads((bundle / "manifest.json").read_text())["files"]
    assert len(listed) == 7
    for name, facts in listed.items():
        assert facts == {
            "bytes": (bundle / name).stat().st_size,
            "sha256": export.manifest.sha256(bundle / name),
        }
    damaged = bundle.with_name("damaged")
    shutil.copytree(bundle, damaged)
    file = damaged / "deepfloyd_1" / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"deepfloyd_1/weights\.safetensors has changed"):
        imagen_jax.load(damaged)


def test_the_licence_is_shown_once_and_stands_in_card_and_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    stages = (str(FOLDER / "if_II"), str(FOLDER / "if_I"))  # in any order
    assert run_imagen(monkeypatch, "convert", "deepfloyd", *stages, "--out", str(out)) == 0
    said = capsys.readouterr()
    assert said.out.count("DeepFloyd IF License Agreement") == 1
    assert "safety checker and watermark are not run" in said.out
    assert "deepfloyd_1: 233,150 parameters, 0.5 MB" in said.out
    assert "deepfloyd_2: 100%" in said.err  # with gigabytes, rate and time left
    options = ("--dtype", "float32", "--no-programs", "--text", "none")
    assert run_imagen(monkeypatch, "export", str(out), "--out", str(again), *options) == 0
    for place in (out, again):
        licence = export.LICENCES["deepfloyd"]
        assert licence in (place / "README.md").read_text()
        assert json.loads((place / "manifest.json").read_text())["licence"] == licence


def _changed(change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path], Any]:
    def apply(folder: Path) -> None:
        whole = tensors.load_file(folder / FP16)
        change(whole)
        tensors.save_file(whole, folder / FP16)

    return apply


def _bias(value: object) -> Callable[[Path], Any]:
    return _changed(lambda w: w.update({"conv_in.bias": np.full(8, value)}))


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pickles": (
        lambda f: (f / FP16).rename(f / "unet/diffusion_pytorch_model.bin"),
        "diffusion_pytorch_model.bin",
    ),
    "8-bit": (_bias(np.int8(1)), "conv_in.bias .* is I8"),
    "wide": (_bias(np.float64(1)), "conv_in.bias holds F64"),
    "not finite": (_bias(np.float16("nan")), "stem/bias has values that are not finite"),
    "missing": (_changed(lambda w: w.pop("conv_in.bias")), r"missing conv_in.bias \(8,\)"),
    "unknown": (_changed(lambda w: w.update(odd=np.zeros(3, np.float16))), r"extra odd \(3,\)"),
    "no pipeline": (lambda f: (f / "model_index.json").unlink(), "is no folder of DeepFloyd IF"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_refused_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    damage, said = REFUSED[fault]
    damage(folder)
    out = folder.parent / "new" / "out"
    arguments = ("convert", "deepfloyd", str(folder), "--out", str(out))
    assert run_imagen(monkeypatch, *arguments) == exit_codes.REFUSED
    assert_says(capsys, said)
    assert not out.parent.exists() or os.listdir(out.parent) == []


def assert_says(capsys: pytest.CaptureFixture[str], said: str) -> None:
    assert re.search(said, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--text-encoder", "t5_1_1_mini"), "text.width=32, but 't5_1_1_mini' is 256 wide"),
        (("--text", "none", "--text-encoder", "t5_1_1_tiny"), "leave out --text-encoder"),
        (("--text-dtype", "bfloat16"), "there is no text encoder"),
    ],
)
def test_text_encoders_that_do_not_fit_are_refused(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    said: str,
) -> None:
    arguments = ("convert", "deepfloyd", str(folder), "--out", str(folder.parent / "out"), *options)
    assert run_imagen(monkeypatch, *arguments) == exit_codes.REFUSED
    assert_says(capsys, said)
    assert os.listdir(folder.parent) == ["if_I"]


def test_no_stage_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("convert", "deepfloyd", "--out", str(tmp_path / "out"))
    assert run_imagen(monkeypatch, *arguments) == exit_codes.REFUSED
    assert_says(capsys, r"give STAGE_I \[STAGE_II\]")


def test_a_reference_is_found_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(FOLDER)
    arguments = ("convert", "deepfloyd", "if_I", "--out", str(tmp_path / "out"))
    assert run_imagen(monkeypatch, *arguments, "--text", "reference") == 0
    assert "reference" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert isinstance(imagen_jax.load("out").encoder, TextEncoder)


def test_a_folder_that_exists_and_a_full_disk_are_refused_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder.parent / "out"
    arguments = ("convert", "deepfloyd", str(folder), "--out", str(out))
    out.mkdir()
    assert run_imagen(monkeypatch, *arguments) == exit_codes.REFUSED
    assert_says(capsys, "out exists; give another folder")
    out.rmdir()
    free = shutil.disk_usage(folder)._replace(free=400_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    assert run_imagen(monkeypatch, *arguments) == exit_codes.REFUSED
    assert_says(capsys, "out takes 0.0 GB, but only 0.0 GB are free there")
    assert os.listdir(folder.parent) == ["if_I"]


def test_a_signal_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, seen = tensor_writer.write_tensors, []

    def killed(file: Path, *args: Any, report: Callable[[int], object], **kwargs: Any) -> str:
        def tell(count: int) -> None:
            report(count)
            seen.append(file.stat().st_size)
            if len(seen) == 100:
                os.kill(os.getpid(), signal.SIGTERM)

        return write(file, *args, report=tell, **kwargs)

    monkeypatch.setattr(tensor_writer, "write_tensors", killed)
    arguments = ("convert", "deepfloyd", str(folder), "--out", str(folder.parent / "out"))
    handlers = [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)]
    try:
        assert run_imagen(monkeypatch, *arguments) == exit_codes.PREEMPTED
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), handlers, strict=True):
            signal.signal(number, handler)
    assert_says(capsys, "nothing is in .*out; give the same command again")
    assert len(seen) == 100
    assert os.listdir(folder.parent) == ["if_I"]


def test_no_more_than_two_tensors_are_in_memory(tmp_path: Path) -> None:
    side = 1024
    kind = tensor_writer.Kind((side, side), np.dtype(np.float32))
    kinds = dict.fromkeys("abcdefghijklmnop", kind)

    def read(name: str) -> np.ndarray:
        return np.full((side, side), ord(name), np.float32).T

    tracemalloc.start()
    try:
        tensor_writer.write_tensors(tmp_path / "a", kinds, map(read, kinds), metadata={})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4.5 * kind.bytes < 16 * kind.bytes
