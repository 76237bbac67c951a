"""`imagen score`: one number from any form of the images, resumed or not; bad input refused."""

import io
import json
import os
import re
import shlex
import signal
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloud_storage
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import random_weights
import torch_pickle
from PIL import Image
from safetensors.numpy import load_file, save_file

from imagen_jax.cli import convert, score
from imagen_jax.data.sources import addresses
from imagen_jax.metrics import clip_weights, parts, statistics_file
from imagen_jax.metrics.networks import Devices, load_clip, load_cmmd
from imagen_jax.runtime import exit_codes

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "score.md"
COUNT, SIDE = 12, 40


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a CLIP model, two sets of images and prompts."""
    root = tmp_path_factory.mktemp("score")
    random_weights.write_clip(root / "clip")
    for seed, name in enumerate(("samples", "real")):
        write_images(root / name, random_weights.images(COUNT, SIDE, seed))
    (root / "prompts.txt").write_text("".join(f"a red circle {n}\n" for n in range(COUNT)))
    return root


@pytest.fixture(autouse=True)
def _in_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def write_images(folder: Path, images: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03}.png")


def _score(*arguments: str, out: str = "out") -> dict:
    """The document of a score with CLIP's metrics."""
    usual = ["--metrics", "cmmd,clip", "--clip", "clip", "--batch-size", "8", "--out", out]
    score.run([arguments[0], *usual, *arguments[1:]])
    return json.loads((Path(out) / "score.json").read_text())


PROMPTS = ("--prompts", "prompts.txt")


def test_numbers_are_those_of_the_networks_and_formulas(place: Path, tmp_path: Path) -> None:
    found = _score("samples", "--reference", "real", *PROMPTS, out=str(tmp_path / "a"))
    model = load_clip(place / "clip")
    images = list(random_weights.images(COUNT, SIDE, 0))
    lines = (place / "prompts.txt").read_text().splitlines()
    cosines = Devices([model]).run(images, lines, 16)["clip"]
    assert found["metrics"]["clip"] == pytest.approx(100 * cosines.mean(), abs=1e-4)
    embed = Devices([load_cmmd(place / "clip")])
    one, other = (
        embed.run(list(random_weights.images(COUNT, SIDE, seed)), [""] * COUNT, 16)["cmmd"]
        for seed in range(2)
    )
    apart = {
        pair: np.exp(-np.square(x[:, None] - y[None]).sum(-1, dtype=np.float64) / 200).mean()
        for pair, (x, y) in {"xx": (one, one), "yy": (other, other), "xy": (one, other)}.items()
    }
    wanted = 1000 * (apart["xx"] + apart["yy"] - 2 * apart["xy"])
    assert found["metrics"]["cmmd"] == pytest.approx(wanted, rel=1e-3)
    assert found["images"]["count"] == found["reference"]["count"] == COUNT
    assert found["images"]["side"] == SIDE
    weights = clip_weights.load(place / "clip").sha256
    assert {n["sha256"] for n in found["images"]["networks"].values()} == {weights}
    assert list(found["reference"]["networks"]) == ["cmmd"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "score.json",
        "statistics.safetensors",
    ]


def test_a_reference_is_images_or_their_statistics(tmp_path: Path) -> None:
    kind = ("--metrics", "cmmd")
    direct = _score("samples", *kind, "--reference", "real", out=str(tmp_path / "a"))
    alone = _score("real", *kind, out=str(tmp_path / "real"))
    assert alone["metrics"] == {}
    for reference in (tmp_path / "real", tmp_path / "real" / "statistics.safetensors"):
        again = _score("samples", *kind, "--reference", str(reference), out=str(tmp_path / "b"))
        assert again["metrics"] == direct["metrics"]
        assert again["reference"]["sha256"] == direct["reference"]["sha256"]


class _KilledError(Exception):
    pass


def test_a_score_that_was_killed_resumes_to_the_same_number(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(parts, "IMAGES", 5)
    arguments = ("samples", "--reference", "real", *PROMPTS)
    whole = _score(*arguments, out=str(tmp_path / "a"))
    written, write = [], parts.Parts.write

    def killed(self: parts.Parts, number: int, part: parts.Part) -> None:
        write(self, number, part)
        written.append((self.folder.name, number))
        if written == [("images", 0), ("images", 1)]:
            raise _KilledError

    monkeypatch.setattr(parts.Parts, "write", killed)
    with pytest.raises(_KilledError):
        _score(*arguments, out=str(tmp_path / "b"))
    with pytest.raises(ValueError, match=r"part-00000-of-00003\.safetensors is of another score"):
        _score(*arguments, "--size", "36", out=str(tmp_path / "b"))
    assert _score(*arguments, out=str(tmp_path / "b")) == whole
    assert written == [("images", n) for n in range(3)] + [("reference", n) for n in range(3)]


def test_batches_are_no_larger_than_a_part(tmp_path, monkeypatch) -> None:
    """A batch that is not full is filled up, and what fills it is computed in vain."""
    monkeypatch.setattr(parts, "IMAGES", 5)
    sizes, run = [], Devices.run

    def noted(self: Devices, images: Any, captions: Any, batch_size: int) -> Any:
        sizes.append(batch_size)
        return run(self, images, captions, batch_size)

    monkeypatch.setattr(Devices, "run", noted)
    _score("samples", "--batch-size", "24", *PROMPTS, out=str(tmp_path))
    assert sizes == [5, 5, 5]


@pytest.fixture
def _terminated() -> Iterator[None]:
    """A command that stops ignores further signals: its process is at its end, this one is not."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_terminated")
def test_a_stop_says_what_is_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(parts, "IMAGES", 5)
    write = parts.Parts.write

    def stopped(self: parts.Parts, number: int, part: parts.Part) -> None:
        write(self, number, part)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(parts.Parts, "write", stopped)
    with pytest.raises(exit_codes.Preempted, match="features of whole parts of 256 images are"):
        _score("samples", "--reference", "real", *PROMPTS, out=str(tmp_path))
    assert [p.name for p in (tmp_path / "unfinished" / "images").iterdir()] == [
        "part-00000-of-00003.safetensors"
    ]


def _png(image: np.ndarray) -> bytes:
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    return png.getvalue()


def _tar(file: Path, *, captions: bool = True) -> str:
    with tarfile.open(file, "w") as opened:
        for number, image in enumerate(random_weights.images(COUNT, SIDE, 0)):
            members = {"png": _png(image), "txt": b"a red circle %d" % number}
            if not captions:
                members = {"png": members["png"], "cls": b"3"}
            for ending, data in members.items():
                member = tarfile.TarInfo(f"{number:03}.{ending}")
                member.size = len(data)
                opened.addfile(member, io.BytesIO(data))
    return str(file)


def _samples(folder: Path) -> str:
    write_images(folder, random_weights.images(COUNT, SIDE, 0))
    entries = [{"file": f"{n:03}.png", "prompt": f"a red circle {n}"} for n in range(COUNT)]
    (folder / "metadata.json").write_text(json.dumps({"complete": True, "images": entries}))
    Image.new("RGB", (90, 30)).save(folder / "grid.png")  # no image of theirs
    return str(folder)


def test_captions_come_with_images_of_any_form(tmp_path: Path) -> None:
    wanted = _score("samples", "--metrics", "clip", *PROMPTS, out=str(tmp_path / "a"))["metrics"]
    for images in (_tar(tmp_path / "a.tar"), _samples(tmp_path / "sampled")):
        kind = ("--metrics", "clip", "--data-dir", str(tmp_path / "data"))
        assert _score(images, *kind, out=str(tmp_path / "b"))["metrics"] == wanted


@pytest.mark.filterwarnings("ignore:images. left out were 12 neither image nor caption")
def test_images_without_captions_are_scored_from_any_form(tmp_path: Path, monkeypatch) -> None:
    kind = ("--metrics", "cmmd", "--reference", "real")
    wanted = _score("samples", *kind, out=str(tmp_path / "a"))["metrics"]
    images = [_png(image) for image in random_weights.images(COUNT, SIDE, 0)]
    table = pa.table({"image": [{"bytes": b, "path": "x.png"} for b in images], "label": [0] * 12})
    pq.write_table(table, tmp_path / "images.parquet")
    with cloud_storage.serve_here(monkeypatch) as bucket:
        for number, data in enumerate(images):
            bucket.put(f"set/{number:03}.png", data)
        addresses = {
            _tar(tmp_path / "a.tar", captions=False): "12 neither image nor caption",
            f"parquet:{tmp_path}/images.parquet?text=": "",
            "folder:gs://bucket/set": "",
        }
        for number, (address, left_out) in enumerate(addresses.items()):
            found = _score(address, *kind, out=str(tmp_path / str(number)))
            assert found["metrics"] == wanted
            assert found["images"]["left_out"].startswith(left_out)
            assert bool(found["images"]["left_out"]) == bool(left_out)
            with pytest.raises(ValueError, match="the CLIP score needs a prompt for each image"):
                _score(address, "--metrics", "clip", out=str(tmp_path / "clip"))


def test_captions_are_needed_for_encoding(tmp_path: Path) -> None:
    address = addresses.parse_address(f"parquet:{tmp_path}/a.parquet?text=")
    with pytest.raises(ValueError, match="captions are needed; name their column"):
        addresses.open_source(address, tmp_path)


def test_size_resizes_and_crops(tmp_path: Path) -> None:
    wide = random_weights.images(2, 96)[:, :64]
    write_images(tmp_path / "wide", np.concatenate([wide, wide]))
    Image.fromarray(random_weights.images(1, 50)[0]).save(tmp_path / "wide" / "other.png")
    kind = ("--metrics", "cmmd", "--size", "32")
    found = _score(str(tmp_path / "wide"), *kind, out=str(tmp_path / "out"))
    assert found["images"]["side"] == 32
    assert found["images"]["preprocessing"]["crop"] == "centre"
    middle = wide[:, :, 16:80].reshape(2, 32, 2, 32, 2, 3).mean((2, 4))
    write_images(tmp_path / "middle", np.floor(middle + 0.5).astype(np.uint8))
    save = load_file(tmp_path / "out" / "statistics.safetensors")["cmmd.features"]
    _score(str(tmp_path / "middle"), "--metrics", "cmmd", out=str(tmp_path / "out2"))
    other = load_file(tmp_path / "out2" / "statistics.safetensors")["cmmd.features"]
    np.testing.assert_allclose(save[:2], other, atol=1e-6)


def _spoil(folder: Path, kind: str) -> None:
    """Replace the third image."""
    file = folder / "002.png"
    image = Image.open(file)
    if kind == "alpha":
        image.putalpha(128)
    if kind == "larger":
        image = image.resize((48, 48))
    if kind == "wide":
        image = image.resize((48, 40))
    image.save(file)
    if kind == "cut":
        file.write_bytes(file.read_bytes()[:900])
    if kind == "text":
        file.write_text("<html>404</html>")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("alpha", "image 002.png: it has an alpha channel: save it as RGB"),
        ("larger", "image 002.png has 48 px, those before it 40: give --size N"),
        ("wide", "image 002.png is 48x40: give --size N"),
        ("cut", r"image 002.png: \d+ bytes are no complete image"),
        ("text", "image 002.png: 16 bytes are no complete image"),
    ],
)
def test_an_image_that_cannot_be_scored_ends_it(tmp_path: Path, kind: str, said: str) -> None:
    write_images(tmp_path / "samples", random_weights.images(4, SIDE))
    _spoil(tmp_path / "samples", kind)
    with pytest.raises(ValueError, match=said):
        _score(str(tmp_path / "samples"), "--metrics", "cmmd", out=str(tmp_path / "out"))
    assert not (tmp_path / "out" / "score.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--metrics", "fidd"), "no metric 'fidd'; there are fid, cmmd, precision-recall, clip"),
        (("--metrics", "fid"), "--clip clip is of clip and cmmd, but --metrics has fid"),
        (("--metrics", "cmmd", *PROMPTS), "--prompts prompts.txt is of clip, but"),
        (("--metrics", "clip", "--reference", "real", *PROMPTS), "--reference real is of cmmd and"),
        (("--metrics", "cmmd,fid"), "fid needs the weights of its network: give --inception FILE"),
        ((), "needs a prompt for each image, and samples has none: give --prompts FILE"),
        (("--prompts", "few.txt"), "3 prompts for 12 images in samples: give one line for each"),
        (("--metrics", "cmmd", "--reference", "none.npz"), "no file none.npz of statistics"),
        (("--metrics", "cmmd", "--reference", "none"), "no data source 'none'"),
        (("--metrics", "cmmd", "--clip", "real"), "real has no config.json: give the folder"),
        (("--metrics", "cmmd", "--size", "64"), "is too small for a square of 64"),
    ],
)
def test_what_does_not_fit_is_refused(place, tmp_path, arguments, said) -> None:
    (place / "few.txt").write_text("a\nb\nc\n")
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        _score("samples", *arguments, out=str(tmp_path / "out"))


def test_nan_features_are_refused(place: Path, tmp_path: Path) -> None:
    folder = random_weights.write_clip(tmp_path / "clip")
    tensors = load_file(folder / "model.safetensors")
    tensors["visual_projection.weight"] *= 0  # an embedding without length
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"the features of image 000.png by cmmd are NaN"):
        _score("samples", "--metrics", "cmmd", "--clip", str(folder), out=str(tmp_path / "out"))


def test_a_reference_of_other_weights_or_sizes_is_refused(place, tmp_path) -> None:
    other = random_weights.write_clip(tmp_path / "clip", seed=1)
    kind = ("--metrics", "cmmd")
    _score("real", *kind, "--clip", str(other), out=str(tmp_path / "other"))
    with pytest.raises(ValueError, match="made with other weights of cmmd"):
        _score("samples", *kind, "--reference", str(tmp_path / "other"), out=str(tmp_path / "a"))
    _score("real", *kind, "--size", "36", out=str(tmp_path / "small"))
    with pytest.raises(ValueError, match="images of 40 px and reference images of 36: give --size"):
        _score("samples", *kind, "--reference", str(tmp_path / "small"), out=str(tmp_path / "b"))


def test_statistics_of_others_are_read_without_unpickling(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.eye(3))
    found = statistics_file.read(tmp_path / "a.npz")
    assert found.gaussian is not None
    np.testing.assert_array_equal(found.gaussian.covariance, np.eye(3))
    np.savez(tmp_path / "b.npz", mu=np.zeros(3), sigma=np.array([{}], object))
    with pytest.raises(ValueError, match=r"b\.npz has no arrays mu and sigma"):
        statistics_file.read(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", mu=np.zeros(3), sigma=np.eye(4))
    with pytest.raises(ValueError, match=r"a mean of \(3,\) and a covariance of \(4, 4\)"):
        statistics_file.read(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", mu=np.full(3, np.nan), sigma=np.eye(3))
    with pytest.raises(ValueError, match=r"'inception\.mean' has values that are not finite"):
        statistics_file.read(tmp_path / "d.npz")


def test_batches_do_not_change_features(place: Path) -> None:
    devices = Devices([load_clip(place / "clip"), load_cmmd(place / "clip")])
    images, captions = list(random_weights.images(3, SIDE)), ["a", "red", ""]
    whole = devices.run(images, captions, 3)
    for number in range(3):
        alone = devices.run([images[number]], [captions[number]], 24)
        for name, rows in whole.items():
            np.testing.assert_allclose(alone[name][0], rows[number], atol=2e-6)


def test_inception_is_converted_from_a_file_of_torch(tmp_path: Path, capsys) -> None:
    tensors = random_weights.inception_tensors()
    torch_pickle.save(tmp_path / "inception.pth", tensors)
    out = tmp_path / "inception.safetensors"
    convert.run(["inception", str(tmp_path / "inception.pth"), "--out", str(out)])
    assert "not the published weights (SHA-256 " in capsys.readouterr().out
    for name, array in load_file(out).items():
        np.testing.assert_array_equal(array, tensors[name])
    with pytest.raises(ValueError, match="is safetensors already"):
        convert.run(["inception", str(out), "--out", str(tmp_path / "b.safetensors")])


@pytest.mark.slow
def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = Path("pt_inception-2015-12-05-6726825d.pth")
    torch_pickle.save(weights, random_weights.inception_tensors())
    for name in ("clip-vit-base-patch32", "clip-vit-large-patch14-336"):
        random_weights.write_clip(Path(name))
    write_images(Path("coco"), random_weights.images(COUNT, 300, 1)[:, :280])
    write_images(Path("samples"), random_weights.images(COUNT, 256, 0))
    Path("prompts.txt").write_text("a red circle\n" * COUNT)
    entries = [{"file": f"{n:03}.png", "prompt": "a red circle"} for n in range(COUNT)]
    document = {"complete": True, "images": entries}
    Path("samples", "metadata.json").write_text(json.dumps(document))
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    commands = [shlex.split(line) for line in lines]
    assert [words[1] for words in commands] == ["convert", "score", "score", "score"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _, command, *rest in commands:
            {"convert": convert, "score": score}[command].run(rest)
    said = " ".join(str(warning.message) for warning in caught)
    assert "an FID of 12, less than 2,048, is biased" in said
    assert "not the published ones" in said
    found = json.loads(Path("score/score.json").read_text())
    assert found["metrics"].keys() == {"clip", "fid", "cmmd", "precision", "recall"}
    assert found["metrics"]["fid"] > 0
    again = json.loads(Path("score-clip/score.json").read_text())
    assert again["metrics"]["clip"] == pytest.approx(found["metrics"]["clip"], abs=1e-4)
