"""A few images of one subject: the dataset, the choices, and the whole command."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run_imagen
from PIL import Image

import imagen_jax
from imagen_jax import config, finetune
from imagen_jax.data.sources import addresses
from imagen_jax.finetune import subject


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in ("b.png", "a.jpg", "c.png"):
        pixels = draw.integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "c.txt").write_text("a sks thing,\n seen from the side\n")
    (folder / "notes.md").touch()
    (folder / ".hidden.png").touch()
    return folder


def test_half_of_a_batch_is_of_the_class(images: Path, tmp_path: Path) -> None:
    made = finetune.SubjectDataset(tmp_path / "data", "a sks thing", ("a thing", "two things"))
    made.write_subject(subject.find_images(images), side=16)
    assert made.missing_class_images(5, side=20) == [0, 1, 2, 3, 4]
    for number in (0, 1, 3, 4):
        made.write_class_image(number, (images / "b.png").read_bytes())
    assert made.missing_class_images(5, side=20) == [2]
    assert made.missing_class_images(5, side=21) == [0, 1, 2, 3, 4]  # for a larger stage
    made.write_class_image(2, (images / "b.png").read_bytes())
    made.finish(5)
    source = addresses.open_source(addresses.parse_address(made.address), tmp_path)
    captions = [tuple(source[i]["captions"]) for i in range(len(source))]
    assert len(source) == 10
    assert captions[::2] == [
        *[("a sks thing",), ("a sks thing",), ("a sks thing, seen from the side",)],
        *[("a sks thing",), ("a sks thing",)],
    ]
    assert captions[1::2] == [("a thing",), ("two things",)] * 2 + [("a thing",)]


def test_without_a_class_the_subject_is_alone(images: Path, tmp_path: Path) -> None:
    made = finetune.SubjectDataset(tmp_path / "data", "a sks thing")
    made.write_subject(subject.find_images(images), side=16)
    made.finish(0)
    source = addresses.open_source(addresses.parse_address(made.address), tmp_path)
    assert len(source) == 3


def test_another_class_has_images_of_its_own(tmp_path: Path) -> None:
    folders = {
        finetune.SubjectDataset(tmp_path, "a sks thing", classes).class_folder
        for classes in (("a thing",), ("things",), ("a thing", "things"))
    }
    assert len(folders) == 3


@pytest.mark.parametrize(
    ("prompt", "classes", "said"),
    [
        ("  ", (), "the prompt is empty: name the subject by a new word"),
        ("a sks  Thing", ("a SKS thing ",), "is the subject's, 'a sks  Thing': leave the new word"),
        ("a \udcff", (), "is no Unicode text"),
    ],
)
def test_prompts_that_teach_nothing_are_refused(
    tmp_path: Path, prompt: str, classes: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ValueError, match="prompt") as refusal:
        finetune.SubjectDataset(tmp_path, prompt, classes)
    assert said in str(refusal.value)


def test_images_that_do_not_serve_are_refused(images: Path, tmp_path: Path) -> None:
    made = finetune.SubjectDataset(tmp_path / "data", "a sks thing")
    with pytest.raises(ValueError, match=r"has 24 x 20 pixels, fewer than the 32 of the stage"):
        made.write_subject(subject.find_images(images), side=32)
    (images / "d.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"d\.png is no image that can be read"):
        made.write_subject(subject.find_images(images), side=16)
    assert not (tmp_path / "data").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match="has no images"):
        subject.find_images(empty)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        subject.find_images(tmp_path / "nowhere")


def test_missing_numbers_are_sampled_in_runs() -> None:
    assert list(subject.chunks([0, 1, 2, 3, 4, 7, 9, 10], 3)) == [(0, 3), (3, 2), (7, 1), (9, 2)]
    assert list(subject.chunks([], 3)) == []


def test_choices_grow_with_the_images_and_are_told() -> None:
    few, many = (finetune.choose(n, rank=8, batch_size=128) for n in (3, 30))
    assert (few.steps, many.steps) == (400, 1500)
    assert (few.class_images, many.class_images) == (400, 1200)
    assert finetune.choose(3, rank=8, batch_size=128, class_prompts=480).class_images == 480
    assert few.ema_decay == 1 - 10 / 400
    assert finetune.choose(3, rank=8, batch_size=16, steps=40).ema_decay == 0.75
    assert finetune.choose(3, rank=0, batch_size=16).learning_rate < few.learning_rate
    assert "adapters of rank 8, 400 steps of 32 images" in few.describe()


def test_a_run_is_the_stages_own_but_short() -> None:
    given = config.load("shapes/base16")[0]
    choices = finetune.choose(12, rank=4, batch_size=16)
    data = config.Data(dataset="folder:x")
    made = finetune.adapt(given, choices, data=data, base="shapes")
    assert (made.stage, made.text, made.data) == (given.stage, given.text, data)
    assert (made.lora.rank, made.lora.base) == (4, "shapes")
    assert (made.train.steps, made.train.batch_size) == (600, 16)
    whole = finetune.adapt(given, dataclasses.replace(choices, rank=0), data=data, base="shapes")
    assert whole.lora == config.Lora()


@pytest.mark.slow
def test_the_command_teaches_the_embedded_cascade(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(2):
        Image.new("RGB", (64, 64), (200, 40 * number, 90)).save(folder / f"{number}.png")
    command = (
        *("finetune", str(folder), "--cascade", "shapes", "--prompt", "a sks wall"),
        *("--class", "a large red circle", "--stages", "base16", "--steps", "3"),
        *("--class-images", "2", "--lora-rank", "2", "--out", str(tmp_path / "out")),
    )
    assert run_imagen(monkeypatch, *command) == 0
    first = capsys.readouterr().out
    assert "2 images of the subject: adapters of rank 2, 3 steps" in first
    assert "sampling 2 images of the class" in first
    assert run_imagen(monkeypatch, *command) == 0
    again = capsys.readouterr().out
    assert "sampling" not in again
    assert "trained to step 3 in" in again
    run = tmp_path / "out" / "base16"
    stored = json.loads((run / "config.json").read_text())
    assert stored["lora"]["base"] == "shapes"
    adapted = imagen_jax.with_lora(imagen_jax.load("shapes"), run)
    assert adapted("a sks wall", last_stage="base16")[0].size == (16, 16)
