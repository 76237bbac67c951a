"""The page on DeepFloyd IF: its downloads are whole, and its commands run on the tiny folders."""

import fnmatch
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from command_line import run_imagen
from deepfloyd_references import FOLDER
from safetensors import numpy as tensors
from test_docs import FENCE, ROOT, _commands

import imagen_jax
from imagen_jax.pretrained.deepfloyd import convert

PAGE = ROOT / "docs" / "guides" / "deepfloyd-if.md"


def repository(folder: Path, kind: str) -> Path:
    """Write a pipeline as the hub has it: each file in float32, float16, 8 bits and as pickle."""
    shutil.copytree(FOLDER / kind, folder)
    for part, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        if not (place := folder / part).is_dir():
            continue
        whole = {}
        for file in place.glob("*.safetensors*"):
            whole |= tensors.load_file(file) if file.suffix == ".safetensors" else {}
            file.unlink()
        # float32 of float16's values, so that both are the same weights
        half = {name: array.astype(np.float16) for name, array in whole.items()}
        _shards(place, {n: x.astype(np.float32) for n, x in half.items()}, stem, "")
        _shards(place, half, stem, "fp16")
        (place / f"{stem}.bin").write_bytes(b"a pickle")
        eight = {name: array.astype(np.int8) for name, array in whole.items()}
        tensors.save_file(eight, place / f"{stem}.8bit.safetensors")
    return folder


def _shards(place: Path, whole: dict[str, np.ndarray], stem: str, variant: str) -> None:
    names, weight_map = sorted(whole), {}
    dot = f".{variant}" if variant else ""
    for number in (1, 2):
        file = f"{stem}{dot}-0000{number}-of-00002.safetensors"
        held = names[number - 1 :: 2]
        tensors.save_file({name: whole[name] for name in held}, place / file)
        weight_map |= dict.fromkeys(held, file)
    index = json.dumps({"weight_map": weight_map})
    (place / f"{stem}.safetensors.index{dot}.json").write_text(index)


def download(command: list[str], hub: Path) -> None:
    """What `hf download` would do in the current folder."""
    repo, options = command[2], command[3:]
    pairs = list(zip(options[::2], options[1::2], strict=True))
    (target,) = (Path(value) for name, value in pairs if name == "--local-dir")
    patterns = [value for name, value in pairs if name == "--include"]
    assert len(patterns) + 1 == len(pairs)
    source = hub / repo
    for file in filter(Path.is_file, source.rglob("*")):
        name = file.relative_to(source).as_posix()
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target / name)


def hub_commands() -> list[list[str]]:
    blocks = [block for kind, block in FENCE.findall(PAGE.read_text()) if kind == "bash"]
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return [words for line in lines if (words := shlex.split(line))[:2] == ["hf", "download"]]


@pytest.fixture
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's downloads, of tiny repositories."""
    hub = tmp_path / "hub" / "DeepFloyd"
    for name, kind in (("IF-I-XL-v1.0", "if_I"), ("IF-II-L-v1.0", "if_II")):
        repository(hub / name, kind)
    monkeypatch.chdir(tmp_path)
    for command in hub_commands():
        download(command, hub.parent)
    return tmp_path / "deepfloyd"


def test_the_downloads_of_the_page_are_whole_and_no_more(downloaded: Path) -> None:
    first, second = convert.open_folders([downloaded])
    assert first.has_text_encoder
    assert not second.has_text_encoder
    files = [f.name for f in downloaded.rglob("*") if f.suffix in (".safetensors", ".bin")]
    assert len(files) == 6
    assert all("fp16" in name for name in files)


def _few(words: list[str]) -> list[str]:
    """Options that make a command of the page short."""
    if words[0] == "train":
        return ["--train.steps", "2", "--train.batch-size", "8", "--optim.warmup-steps", "0"]
    if words[0] == "sample" and "--timesteps" not in words:
        return ["--timesteps", "999:0"]
    return []


@pytest.mark.slow
def test_the_commands_of_the_page_run(
    downloaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps stand for the hundred of the default, and for the thousands of training."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(8):
        PIL.Image.new("RGB", (64, 64), (30 * number, 90, 200)).save(images / f"{number}.png")
        (images / f"{number}.txt").write_text("a wall")
    commands = list(_commands(PAGE))
    assert {words[0] for words in commands} == {"convert", "sample", "encode", "train"}
    for words in commands:
        assert run_imagen(monkeypatch, *words, *_few(words)) == 0, shlex.join(words)
    asked = [words for words in commands if words[0] == "sample" and "--out" in words]
    names = [words[words.index("--out") + 1] for words in asked]
    for name, side in zip(names, (64, 16), strict=True):
        (file, *_) = sorted((tmp_path / name).glob("0*.png"))
        with PIL.Image.open(file) as image:
            assert image.size == (side, side)
    ((_, code),) = (f for f in FENCE.findall(PAGE.read_text()) if f[0] == "python")
    load, found = imagen_jax.load, {}

    def load_quick(path: str) -> imagen_jax.Imagen:
        return load(path).with_samplers([(None, {"timesteps": (999, 0)})])

    monkeypatch.setattr(imagen_jax, "load", load_quick)
    exec(code, found)
    assert np.asarray(found["images"]).shape == (1, 64, 64, 3)
