"""Prompts of benchmarks in the forms that their authors give them."""

import json
from pathlib import Path

import pytest

from imagen_jax.evaluate.prompt_file import PromptColumns, PromptSet, read_prompts
from imagen_jax.evaluate.protocols import PROTOCOLS

DRAWBENCH = 'Prompts,Category\nA red car.,Colors\n"A sign, ""Diffusion"".",Text\n'
PARTI = (
    'Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\t-\n"go" it says\tArts\tQuantity\t-\n'
)
USUAL = PromptColumns()
GENEVAL = '{"tag": "counting", "include": [], "prompt": "two dogs"}\n'


def _read(folder: Path, name: str, text: str, columns: PromptColumns = USUAL) -> PromptSet:
    file = folder / name
    file.write_text(text)
    return read_prompts(file, columns)


def test_tables_of_drawbench_and_partiprompts(tmp_path: Path) -> None:
    found = _read(tmp_path, "drawbench.csv", DRAWBENCH, PROTOCOLS["drawbench"].columns)
    assert found.prompts == ("A red car.", 'A sign, "Diffusion".')
    assert found.categories == ("Colors", "Text")
    found = _read(tmp_path, "parti.tsv", PARTI, PROTOCOLS["partiprompts"].columns)
    assert found.prompts == ("bond", '"go" it says')
    assert found.categories == ("Abstract", "Arts")
    found = _read(tmp_path, "parti.tsv", PARTI, PromptColumns(category="challenge"))
    assert found.categories == ("Basic", "Quantity")


def test_lines_objects_and_folders(tmp_path: Path) -> None:
    assert _read(tmp_path, "a.txt", "a\n\nb\n").prompts == ("a", "", "b")
    assert _read(tmp_path, "a.json", '["a", "b"]').prompts == ("a", "b")
    found = _read(tmp_path, "a.json", '[{"caption": "a", "category": "x"}]')
    assert (found.prompts, found.categories) == (("a",), ("x",))
    found = _read(tmp_path, "a.jsonl", GENEVAL + "\n" + GENEVAL, PROTOCOLS["geneval"].columns)
    assert found.categories == ("counting",) * 2
    assert found.records == (GENEVAL.strip(),) * 2
    for name in ("10", "9", "partiprompts7"):
        (tmp_path / f"{name}.txt").write_text(f"text\nof {name} ")
    (tmp_path / "a.txt").unlink()
    found = read_prompts(tmp_path)
    assert found.names == ("9", "10", "partiprompts7")
    assert found.prompts[1] == "text of 10"


def _coco(folder: Path) -> PromptSet:
    annotations = [
        {"image_id": image, "id": 10 * image + n, "caption": f"image {image}\n caption {n} "}
        for n in range(5)
        for image in (7, 3, 9, 1)
    ]
    return _read(folder, "captions.json", json.dumps({"images": [], "annotations": annotations}))


def test_of_coco_one_caption_an_image_is_drawn_by_the_seed(tmp_path: Path) -> None:
    whole = _coco(tmp_path)
    assert len(whole) == 20
    drawn = whole.draw(None, seed=0)
    assert drawn.images == (1, 3, 7, 9)
    for image, prompt in zip(drawn.images, drawn.prompts, strict=True):
        assert prompt.startswith(f"image {image} caption")
    few = [whole.draw(3, seed=seed) for seed in range(20)]
    assert all(len(set(f.images)) == 3 and f.images == tuple(sorted(f.images)) for f in few)
    assert len({f.images for f in few}) == 4  # each image is left out by some seed
    assert len({p for f in few for p in f.prompts}) > 12
    assert whole.draw(3, seed=4) == whole.draw(3, seed=4)
    assert len({f.digest() for f in few}) > 10
    with pytest.raises(ValueError, match="--images 5 is more than the 4 images with captions"):
        whole.draw(5, seed=0)


def test_drawn_prompts_keep_their_order_and_categories(tmp_path: Path) -> None:
    text = "prompt,tag\n" + "".join(f"p{n:02},t{n % 3}\n" for n in range(30))
    drawn = _read(tmp_path, "a.csv", text).draw(10, seed=1)
    assert list(drawn.prompts) == sorted(set(drawn.prompts))
    assert drawn.prompts != tuple(f"p{n:02}" for n in range(10))
    assert drawn.categories == tuple(f"t{int(p[1:]) % 3}" for p in drawn.prompts)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "words,tag\na,b\n", r"line 2 has no column prompt or prompts .* but words, tag"),
        ("a.csv", "prompt,tag\na,b\nc\n", "line 3 has 1 fields, the header 2"),
        ("a.csv", "prompt,tag\na,b\nc,\n", "line 3 has no category, others differ"),
        ("a.csv", "prompt\n \n", "line 2 has no prompt: write one"),
        ("a.csv", 'prompt\n"a\n', r"a\.csv, line 2: .*: correct the quotes"),
        ("a.csv", "prompt\n", "a.csv has no prompt: give a .txt"),
        ("a.jsonl", '{"prompt": 3}\n', "line 1: prompt is 3, and no text"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt"\n', "line 2 is not JSON"),
        ("a.json", '["a", {"prompt": "b"}]', "entry 1 is no object, as others are"),
        ("a.json", '{"prompts": ["a"]}', "is no list of prompts, and has no MS-COCO annotations"),
        ("a.json", '{"annotations": [{"caption": "a"}]}', "annotation 1 has no caption, id and"),
        ("a.xlsx", "a", "no prompts are read from .xlsx files: give a .txt"),
    ],
)
def test_what_has_no_prompts_is_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        _read(tmp_path, name, text)


def test_missing_files_and_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file of prompts at"):
        read_prompts(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="has no column style, but prompt"):
        _read(tmp_path, "b.csv", "prompt\na\n", PromptColumns(category="style"))
    with pytest.raises(ValueError, match=r"--prompt-column words: .* has no columns"):
        _read(tmp_path, "c.txt", "a\n", PromptColumns(prompt="words"))
    (tmp_path / "e").mkdir()
    with pytest.raises(ValueError, match=r"e has no \.txt file"):
        read_prompts(tmp_path / "e")
