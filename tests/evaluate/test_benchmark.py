"""`imagen eval CASCADE --prompts FILE`: sampled, scored, resumed, written as others read it."""

import dataclasses
import json
import re
import shlex
import shutil
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
import random_weights
from PIL import Image
from safetensors.numpy import save_file
from small_cascade import SMALL_BASE, SMALL_SR, make_stage

from imagen_jax import config, imagen
from imagen_jax.cli import evaluate, score
from imagen_jax.evaluate import benchmark, preferences, retrieval, sample_folder
from imagen_jax.evaluate.protocols import PROTOCOLS
from imagen_jax.metrics import clip_weights, image_set, measure, parts
from imagen_jax.metrics.networks import Devices, load_clip
from imagen_jax.text.encoder import TextEncoder

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "evaluate.md"
PROMPTS = {
    "a red circle": "One",
    "a blue circle above a green star": "Two",
    "a small red ring": "One",
    "a white cross on a black background": "One",
    "a yellow heart below a red circle": "Two",
    "a large orange square": "One",
}
pytestmark = pytest.mark.usefixtures("one_device")  # on eight: tests/sample/test_cascade.py
USUAL = ("--metrics", "clip,cmmd,shapes", "--clip", "clip", "--reference", "real")


@pytest.fixture(scope="module")
def tiny() -> imagen.Imagen:
    """Two stages with random weights, 8 -> 16 px."""
    names = (SMALL_BASE, SMALL_SR)
    return imagen.Imagen(
        stages=tuple(make_stage(name, guidance_weight=3.0, steps=2) for name in names),
        encoder=TextEncoder.from_config(config.load(names[0])[0].text),
        experiments=tuple(config.load(name)[0] for name in names),
        steps=(1, 1),
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a CLIP model, real images, and prompts with categories."""
    root = tmp_path_factory.mktemp("benchmark")
    text = random_weights.CLIP["text_config"] | {"max_position_embeddings": 64}
    random_weights.write_clip(root / "clip", random_weights.CLIP | {"text_config": text})
    (root / "real").mkdir()
    for n, image in enumerate(random_weights.images(9, 16, 1)):
        Image.fromarray(image).save(root / "real" / f"{n}.png")
        (root / "real" / f"{n}.txt").write_text([*PROMPTS, "x", "y", "z"][n])
    table = "".join(f"{prompt}\t{category}\n" for prompt, category in PROMPTS.items())
    (root / "prompts.tsv").write_text("Prompt\tCategory\n" + table)
    records = [{"tag": c, "include": [], "prompt": p} for p, c in PROMPTS.items()]
    (root / "geneval.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records[:3]))
    (root / "dpg").mkdir()
    for n, prompt in enumerate(list(PROMPTS)[:2]):
        (root / "dpg" / f"partiprompts{n}.txt").write_text(prompt + "\n")
    return root


@pytest.fixture
def run(tiny, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`imagen eval` on that cascade; returns the document."""
    monkeypatch.setattr("imagen_jax.load", lambda *_, **__: tiny)
    monkeypatch.setattr("imagen_jax.parallel.compilation_cache.use_cache", lambda: None)
    monkeypatch.chdir(place)

    def run(*arguments: str, prompts: str = "prompts.tsv", out: str = "out") -> dict:
        batch = ("--batch-size", "1", "--out", str(tmp_path / out))
        evaluate.run(["tiny", "--prompts", prompts, *batch, *arguments])
        return json.loads((tmp_path / out / "report.json").read_text())

    return run


class _KilledError(Exception):
    pass


def _kill_at(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, number: int) -> list:
    """Raise after the method's call of that number; returns the calls so far."""
    calls: list = []
    real = getattr(owner, method)

    def called(*arguments: object) -> object:
        found = real(*arguments)
        calls.append(arguments[1])
        if len(calls) == number:
            raise _KilledError
        return found

    monkeypatch.setattr(owner, method, called)
    return calls


def test_a_killed_evaluation_resumes_to_the_same_numbers(run, tiny, tmp_path, monkeypatch) -> None:
    whole = run(*USUAL, out="whole")
    assert set(whole["settings"][0]["metrics"]) >= {"clip", "cmmd", "shapes", "shapes_colour"}
    sampled = _kill_at(monkeypatch, sample_folder.SampleFolder, "write", 1)
    monkeypatch.setattr(parts, "IMAGES", 4)
    with pytest.raises(_KilledError):
        run(*USUAL)
    scored = _kill_at(monkeypatch, parts.Parts, "write", 2)
    with pytest.raises(_KilledError):
        run(*USUAL)
    again = run(*USUAL)
    assert sampled == [0, 4]  # each part once
    assert len(scored) == 5  # three parts of the reference, two of the images
    for setting in (whole["settings"][0], again["settings"][0]):
        for digest in ("sha256",):
            setting["images"].pop(digest)
        setting["images"].pop("address")
    whole["reference"].pop("sha256")
    again["reference"].pop("sha256")  # of other parts
    assert again == whole
    for file in sorted((tmp_path / "whole" / "samples").glob("*.png")):
        assert file.read_bytes() == (tmp_path / "out" / "samples" / file.name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *("index.html", "report.json", "samples")
    ]
    with pytest.raises(ValueError, match="has images of another cascade, of other prompts or opt"):
        run(*USUAL, "--seed", "2")


def test_numbers_are_those_of_the_images_and_their_categories(run, tiny, tmp_path, place) -> None:
    found = run(*USUAL, "--images-per-prompt", "2", "--grid", "3")
    texts = [prompt for prompt in PROMPTS for _ in range(2)]
    images = tiny.sample(texts, seed=1, batch_size=1)["sr16"]
    files = sorted((tmp_path / "out" / "samples").glob("*.png"))
    np.testing.assert_array_equal(np.stack([np.asarray(Image.open(f)) for f in files]), images)
    cosines = 100 * Devices([load_clip(place / "clip")]).run(list(images), texts, 16)["clip"]
    (setting,) = found["settings"]
    assert setting["metrics"]["clip"] == pytest.approx(cosines.mean(), abs=1e-4)
    is_two = np.array([PROMPTS[text] == "Two" for text in texts])
    by_category = setting["by_category"]
    assert list(by_category) == ["One", "Two"]
    assert by_category["Two"]["clip"] == pytest.approx(cosines[is_two].mean(), abs=1e-4)
    assert by_category["One"]["clip"] == pytest.approx(cosines[~is_two].mean(), abs=1e-4)
    assert "shapes_relation" not in by_category["One"]  # no caption states one
    # What was computed, and from what.
    assert setting["images"]["count"] == 12
    weights = clip_weights.load(place / "clip").sha256
    assert {n["sha256"] for n in setting["images"]["networks"].values()} == {weights}
    assert setting["images"]["preprocessing"]["resize"] == "none"
    assert setting["samplers"]["base8"]["guidance_weight"] == 3.0
    assert found["cascade"]["sha256"] == benchmark.weights_sha256(tiny)
    assert found["reference"]["count"] == 9
    assert found["prompts"]["categories"] == {"One": 4, "Two": 2}
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert not re.search(r'(src|href)="(?!data:)', page)  # it needs no other file


def test_other_weights_have_another_digest(tiny) -> None:
    first, second = tiny.stages
    leaves, kind = jax.tree.flatten(first.params)
    changed = jax.tree.unflatten(kind, [*leaves[:-1], leaves[-1] + 1e-3])
    other = dataclasses.replace(tiny, stages=(dataclasses.replace(first, params=changed), second))
    assert benchmark.weights_sha256(other) != benchmark.weights_sha256(tiny)


@pytest.mark.slow
def test_guidance_weights_are_compared_in_curves(run, tmp_path: Path) -> None:
    found = run("--metrics", "clip", "--clip", "clip", "--sweep", "1", "3", "--images", "3")
    one, three = found["settings"]
    assert (one["guidance_weight"], three["guidance_weight"]) == (1, 3)
    assert one["samplers"]["base8"]["guidance_weight"] == 1
    assert one["samplers"]["sr16"]["guidance_weight"] == 3
    assert one["metrics"] != three["metrics"]
    assert (tmp_path / "out" / one["folder"]).is_dir()
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 3  # curves, and a grid of each


def test_geneval_and_dpg_read_their_layouts(run, tmp_path: Path, place: Path) -> None:
    run("--protocol", "geneval", prompts="geneval.jsonl")
    root = tmp_path / "out" / "geneval"
    samples = sorted((tmp_path / "out" / "samples").glob("*.png"))
    assert sorted(p.name for p in root.iterdir()) == ["00000", "00001", "00002"]
    lines = (place / "geneval.jsonl").read_text().splitlines()
    for number, line in enumerate(lines):
        folder = root / f"{number:05}"
        assert json.loads((folder / "metadata.jsonl").read_text()) == json.loads(line)
        images = sorted((folder / "samples").iterdir())
        assert [image.name for image in images] == [f"{n:04}.png" for n in range(4)]
        for n, image in enumerate(images):
            assert image.read_bytes() == samples[4 * number + n].read_bytes()
    run("--protocol", "dpg-bench", prompts="dpg", out="dpg")
    samples = sorted((tmp_path / "dpg" / "samples").glob("*.png"))
    for number in range(2):
        grid = np.asarray(Image.open(tmp_path / "dpg" / "dpg" / f"partiprompts{number}.png"))
        assert grid.shape == (32, 32, 3)
        for n, (top, left) in enumerate([(0, 0), (0, 16), (16, 0), (16, 16)]):
            cell = grid[top : top + 16, left : left + 16]
            np.testing.assert_array_equal(cell, np.asarray(Image.open(samples[4 * number + n])))


def test_retrieval_counts_nearer_real_images(run) -> None:
    real = np.array([[0.0], [1.0], [2.0], [3.0], [5.0], [9.0]])
    captions = ["a", "b", "c", "b", "e", "f"]
    images = np.array([[0.2], [2.6], [2.4], [9.0], [0.0]])
    ranks = retrieval.ranks_of_captions(images, ["a", "b", "b", "a", "f"], real, captions)
    assert ranks.tolist() == [0, 0, 1, 5, 5]
    assert {k: v.tolist() for k, v in retrieval.hits(ranks).items()} == {
        "retrieval": [True, True, False, False, False],
        "retrieval_5": [True, True, True, False, False],
    }
    with pytest.raises(ValueError, match="prompt 1, 'g', is no caption of the reference"):
        retrieval.ranks_of_captions(images[:1], ["g"], real, captions)
    found = run("--metrics", "retrieval", "--reference", "real")["settings"][0]["metrics"]
    assert set(found) == {"retrieval", "retrieval_5"}
    assert 0 <= found["retrieval"] <= found["retrieval_5"] <= 100


def test_real_images_retrieve_themselves(place: Path) -> None:
    """Each real image is the nearest to itself, through the whole of the scorer."""
    images = image_set.open_images(str(place / "real"), data_dir=place)
    measurement = measure.Measurement(
        networks=[],
        size=None,
        batch_size=4,
        keep_inception=False,
        unfinished=place / "parts",
        progress=lambda *_: None,
    )
    scorer = benchmark.Scorer(
        metrics=("retrieval",),
        prompts=[images.read(n).caption or "" for n in range(len(images))],
        categories=[],
        measurement=measurement,
        reference=images,
    )
    assert scorer.score("real", place / "real", None).numbers["retrieval"] == 100


@pytest.mark.parametrize(
    ("arguments", "prompts", "says"),
    [
        ((), "prompts.tsv", "nothing to score: give --metrics, a --protocol that has some"),
        (("--metrics", "fidd"), "prompts.tsv", "no metric 'fidd'; there are fid, cmmd"),
        (("--metrics", "clip"), "prompts.tsv", "clip needs the weights of its network: give --cl"),
        (("--metrics", "retrieval"), "prompts.tsv", "retrieval compares with real images: give"),
        (("--metrics", "shapes", "--clip", "clip"), "prompts.tsv", "--clip clip is of clip and"),
        (("--metrics", "shapes", "--size", "8"), "prompts.tsv", "judges images of 16 px and more"),
        (("--metrics", "shapes"), "words.txt", "prompt 1 is none of shapes: "),
        (("--metrics", "shapes", "--images", "7"), "prompts.tsv", "--images 7 is more than the 6"),
        (("--layout", "geneval"), "prompts.tsv", "needs GenEval's evaluation_metadata.jsonl"),
        (("--layout", "dpg"), "prompts.tsv", "needs DPG-Bench's folder of prompts"),
        (("--protocol", "dpg-bench", "--images-per-prompt", "3"), "dpg", "have 1 or 4 images"),
        (("--sweep-images", "3"), "prompts.tsv", "--sweep-images 3 does nothing with --prompts"),
        (("--metrics", "shapes", "--steps", "base=3"), "prompts.tsv", "no stage 'base'"),
    ],
)
def test_what_does_not_fit_is_refused(run, place, tmp_path, arguments, prompts, says) -> None:
    (place / "words.txt").write_text("a photo of a corgi\n")
    with pytest.raises(ValueError, match=says):
        run(*arguments, prompts=prompts)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["shapes", "--metrics", "clip"], "--metrics clip does nothing without --prompts"),
        (["shapes", "--clip", "x"], "--clip x does nothing without --prompts"),
        ([], "no cascade: give a folder of one, or its name"),
    ],
)
def test_options_of_prompts_alone(arguments: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        evaluate.run(arguments)


@pytest.mark.slow
def test_the_commands_of_the_page_run(tiny, place, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("imagen_jax.load", lambda *_, **__: tiny)
    monkeypatch.setattr("imagen_jax.with_lora", lambda cascade, *_, **__: cascade)
    monkeypatch.setattr("imagen_jax.parallel.compilation_cache.use_cache", lambda: None)
    coco = dataclasses.replace(PROTOCOLS["coco-30k"], count=6, size=16)
    monkeypatch.setitem(PROTOCOLS, "coco-30k", coco)  # as small as the cascade
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "clip", "clip-vit-base-patch32")
    shutil.copytree(place / "real", "coco-256")
    save_file(random_weights.inception_tensors(), "inception.safetensors")
    _write_prompts(place)
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    commands = [shlex.split(line) for line in lines]
    assert [words[1] for words in commands].count("eval") == 9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few images, and of random weights
        for program, command, *rest in commands:
            if (program, command) == ("imagen", "eval"):
                evaluate.run(rest)
            elif (program, command) == ("imagen", "score"):
                _write_votes(Path("pairs/pairs.json"), Path("preferences.csv"))
                score.run(rest)
    assert set(_metrics("coco")) == {"fid", "clip"}
    parti = json.loads(Path("parti/report.json").read_text())
    assert parti["prompts"]["categories"] == {"x": 6}
    assert len(json.loads(Path("guidance/report.json").read_text())["settings"]) == 4
    assert "shapes" in _metrics("oracle")
    assert Path("geneval/geneval/00000/samples/0003.png").is_file()
    assert Path("dpg/dpg/partiprompts1.png").is_file()
    found = json.loads(Path("preferences/preferences.json").read_text())
    assert found["percent"]["fidelity"]["A"]["share"] == 100


def _write_prompts(place: Path) -> None:
    """The files that the page names."""
    words = list(PROMPTS)
    annotations = [
        {"image_id": i, "id": i, "caption": prompt} for i, prompt in enumerate(words * 2)
    ]
    Path("captions_val2014.json").write_text(json.dumps({"annotations": annotations}))
    table = "".join(f"{prompt}\tArts\tx\t-\n" for prompt in words)
    Path("PartiPrompts.tsv").write_text(f"Prompt\tCategory\tChallenge\tNote\n{table}")
    rows = "".join(f"{prompt},Colors\n" for prompt in words[:2])
    Path("drawbench.csv").write_text(f"Prompts,Category\n{rows}")
    Path("captions.txt").write_text("\n".join(words) + "\n")
    shutil.copy(place / "geneval.jsonl", "evaluation_metadata.jsonl")
    shutil.copytree(place / "dpg", "dpg_bench/prompts")


def _metrics(folder: str) -> dict[str, float]:
    return json.loads(Path(folder, "report.json").read_text())["settings"][0]["metrics"]


def _write_votes(key: Path, file: Path) -> None:
    study = json.loads(key.read_text())["study"]
    rows = [f"{study},r,{n},Colors,p,fidelity,A,A\n" for n in range(2)]
    file.write_text(",".join(preferences.COLUMNS) + "\n" + "".join(rows))
