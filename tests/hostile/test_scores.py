"""What strangers give to be scored, and to be scored with: refused by name, and in time."""

import json
import time
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_weights
from command_line import run_imagen
from PIL import Image
from safetensors import numpy as tensors

from imagen_jax.evaluate import preferences, prompt_file
from imagen_jax.io import image_grid, unicode_forms
from imagen_jax.metrics import clip_tokenizer, image_set, parts, score, statistics_file
from imagen_jax.metrics.clip_tokenizer import ClipTokenizer
from imagen_jax.metrics.frechet import Gaussian
from imagen_jax.metrics.image_set import ImageSet, Item
from imagen_jax.metrics.statistics_file import Statistics

FEATURES = {
    "inception.mean": np.zeros(3),
    "inception.covariance": np.eye(3),
    "inception.features": np.ones((6, 3), np.float32),
    "cmmd.features": np.ones((6, 20), np.float32),
}


def _statistics(file: Path, change: dict[str, Any], about: dict[str, Any]) -> Path:
    described = {"count": 6, "side": 40, "networks": {}, **about}
    text = {parts.ABOUT: json.dumps(described)}
    file.write_bytes(tensors.save(FEATURES | change, metadata=text))
    return file


def test_a_description_of_other_kinds_is_refused(tmp_path: Path) -> None:
    wrong: list[tuple[str, Any]] = [
        *(("networks", value) for value in ([], "x", 5, {"inception": [1]}, {"cmmd": "x"})),
        *(("count", value) for value in ("6", [6], 1.5, True)),
        *(("side", value) for value in ("\x1b[2J", [40], 40.0)),
        *(("left_out", value) for value in ({"a": 1}, 3)),
    ]
    for key, value in wrong:
        file = _statistics(tmp_path / "a.safetensors", {}, {key: value})
        with pytest.raises(ValueError, match=r"a\.safetensors: its (network|count|side|left_out)"):
            statistics_file.read(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inception.mean": np.zeros(3, np.int64)}, "'inception.mean' holds I64"),
        ({"cmmd.features": np.zeros((6, 20), bool)}, "'cmmd.features' holds BOOL"),
        ({"inception.features": np.full((6, 3), 1e30, np.float32)}, "has values beyond 1e\\+09"),
        ({"inception.covariance": np.full((3, 3), -1e300)}, "has values beyond 1e\\+09"),
    ],
)
def test_features_of_other_numbers_are_refused(tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        statistics_file.read(_statistics(tmp_path / "a.safetensors", change, {}))


@pytest.mark.parametrize("metric", ["fid", "cmmd", "precision-recall"])
def test_features_of_another_width_are_refused(metric: str) -> None:
    def made(width: int) -> Statistics:
        rows = np.ones((6, width), np.float32)
        gaussian = Gaussian(np.zeros(width), np.eye(width))
        return Statistics(about={}, gaussian=gaussian, inception=rows, cmmd=rows)

    with pytest.raises(ValueError, match=f"{metric}: features of 3 numbers and reference .* of 7"):
        score.compute([metric], made(3), made(7))


def _parts(folder: Path) -> parts.Parts:
    images = ImageSet("images", ["a", "b"], lambda _: Item(b"", None), False)
    return parts.Parts(images, folder / "unfinished" / "images", None, {"networks": {"cmmd": {}}})


def _keep(folder: Path, rows: dict[str, np.ndarray], **about: Any) -> parts.Parts:
    """One part that is kept."""
    made = _parts(folder)
    made.write(0, parts.Part({"cmmd": np.ones((2, 5), np.float32)}, 8, "0" * 64))
    described = {"identity": made.identity(), "side": 8, "sha256": "0" * 64} | about
    text = json.dumps({name: value for name, value in described.items() if value is not None})
    made.file(0).write_bytes(tensors.save(rows, metadata={parts.ABOUT: text}))
    return made


@pytest.mark.parametrize(
    "rows",
    [
        {"cmmd": np.ones((3, 5), np.float32)},
        {"cmmd": np.ones(2, np.float32)},
        {"cmmd": np.ones((2, 5))},
        {"cmmd": np.full((2, 5), np.nan, np.float32)},
        {"clip": np.ones(2, np.float32)},
        {"cmmd": np.ones((2, 5), np.float32), "x": np.ones((2, 5), np.float32)},
    ],
    ids=["count", "rank", "dtype", "NaN", "network", "more"],
)
def test_kept_features_of_other_images_are_refused(tmp_path: Path, rows: Any) -> None:
    with pytest.raises(ValueError, match=r"safetensors holds no features of 2 images: delete it"):
        list(_keep(tmp_path, rows).read_all())


@pytest.mark.parametrize(
    "about",
    [
        *({"side": value} for value in (-1, True, "8")),
        *({"sha256": value} for value in ("\ud800", "x", 5)),
        {"identity": None},
    ],
)
def test_a_kept_part_that_describes_none_is_refused(tmp_path: Path, about: Any) -> None:
    made = _keep(tmp_path, {"cmmd": np.ones((2, 5), np.float32)}, **about)
    with pytest.raises(ValueError, match=r"part-00000.* delete it, and its images are computed"):
        made.list_missing()


def test_metadata_names_files_beside_it(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    for name in ("a\0.png", "\ud800.png", "\x1b[2J.png", "", "x" * 300, "/etc/passwd", "../a.png"):
        document = {"complete": True, "images": [{"file": name, "prompt": "a"}]}
        (tmp_path / "metadata.json").write_text(json.dumps(document))
        with pytest.raises(ValueError, match=r"metadata\.json is none of `imagen sample`"):
            image_set.open_images(str(tmp_path), data_dir=tmp_path)
    document = {"complete": True, "images": [{"file": "a.png", "prompt": "\ud800"}]}
    (tmp_path / "metadata.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"metadata\.json: prompt 1, .* is no Unicode text"):
        image_set.open_images(str(tmp_path), data_dir=tmp_path)


def test_a_reference_in_nobodys_home_is_told(tmp_path: Path, monkeypatch, capsys) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    random_weights.write_clip(tmp_path / "clip")
    given = ("--metrics", "cmmd", "--clip", str(tmp_path / "clip"), "--reference", "~nobody-x/y")
    assert run_imagen(monkeypatch, "score", str(tmp_path), *given) == 1
    assert "~nobody-x is nobody's home here" in capsys.readouterr().err


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ClipTokenizer:
    folder = random_weights.write_clip(tmp_path_factory.mktemp("clip"))
    return ClipTokenizer.load(folder, context=16, vocabulary=10**6)


@pytest.mark.parametrize("text", ["red" * 30_000, "1 " * 50_000, "'s" * 50_000, "é" * 50_000])
def test_a_long_prompt_is_cut_off_in_time(tokenizer: ClipTokenizer, text: str) -> None:
    begin = time.process_time()
    tokens, cut = tokenizer.tokenize([text])
    assert time.process_time() - begin < 4
    assert (tokens.shape, cut) == ((1, 16), 1)


def test_words_are_joined_as_ranks_say() -> None:
    ranks = {("b", "c"): 0, ("a", "b"): 1, ("a", "bc"): 2, ("abc", "abc"): 3, ("c", "a"): 9}
    join = clip_tokenizer._join
    assert join(list("abcabcab"), ranks) == ["abcabc", "ab"]
    assert join(list("aaaa"), {("a", "a"): 0, ("aa", "a"): 1}) == ["aa", "aa"]
    assert join(list("aaa"), {("a", "a"): 0, ("aa", "a"): 1}) == ["aaa"]
    assert join(["x"], ranks) == ["x"]


@pytest.mark.parametrize("number", [10**12, -1, 2000])
def test_a_piece_that_the_model_lacks_is_refused(tmp_path: Path, number: int) -> None:
    random_weights.write_clip(tmp_path)
    pieces = json.loads((tmp_path / "vocab.json").read_text()) | {"red</w>": number}
    (tmp_path / "vocab.json").write_text(json.dumps(pieces))
    with pytest.raises(ValueError, match=rf"vocab\.json: 'red</w>' is piece {number} of a model"):
        ClipTokenizer.load(tmp_path, context=16, vocabulary=1000)


def _answers(file: Path, rows: list[tuple[str, ...]]) -> Path:
    lines = [preferences.COLUMNS, *rows]
    file.write_text("".join(",".join(line) + "\n" for line in lines))
    return file


def test_answers_have_no_control_characters_and_are_not_too_many(tmp_path: Path) -> None:
    def row(number: int, category: str, rater: str = "r") -> tuple[str, ...]:
        return ("s", rater, str(number), category, "p", "fidelity", "A", "same")

    file = _answers(tmp_path / "a.csv", [row(0, "\x1b[2J")])
    with pytest.raises(ValueError, match=r"a\.csv, answer 1: category is .* control characters"):
        preferences.read_votes([file])
    many = [row(number, f"c{number}") for number in range(20_000)]
    with pytest.raises(ValueError, match="20,000 categories, more than 200: score a part"):
        preferences.read_votes([_answers(file, many)])
    both = [row(number, "", rater) for number in range(10_000) for rater in "ab"]
    begin = time.process_time()
    assert preferences.score(preferences.read_votes([_answers(file, both)]))
    assert time.process_time() - begin < 4


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    for header in ("prompt,prompt", "Prompt,prompt ", "text,prompt,text"):
        file = tmp_path / "a.csv"
        file.write_text(f"{header}\n{'a,' * header.count(',')}b\n")
        with pytest.raises(ValueError, match=r"a\.csv, line 1 has the column '\w+' twice"):
            prompt_file.read_prompts(file)


def test_very_many_marks_take_no_time() -> None:
    text = "a" + "\u0315\u0300" * 100_000
    begin = time.process_time()
    assert clip_tokenizer.clean(text) == unicodedata.normalize("NFC", text[:31])
    assert image_grid.file_name(0, text).startswith("0000")
    assert time.process_time() - begin < 4
    few = "e\u0301\u0323 \u1100\u1161 ﬁ"
    for form in ("NFC", "NFKC"):
        assert unicode_forms.normalize(form, few) == unicodedata.normalize(form, few)  # type: ignore[arg-type]


def test_a_circle_of_links_among_images_is_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("c.png")
    (tmp_path / "c.png").symlink_to("b.png")
    found = image_set.open_images(str(tmp_path), data_dir=tmp_path)
    assert len(found) == 1
    assert found.left_out.startswith("2 link to no file")
