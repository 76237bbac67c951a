"""The page of preferences, as people use it, and what their answers come to."""

import base64
import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
import random_weights
from PIL import Image

from imagen_jax.cli import evaluate, score
from imagen_jax.evaluate import preference_page, preferences

PROMPTS = ["a red car", 'a sign, "Hello" </script>', "a café", "four dogs", "a cat"]
CATEGORIES = ["Colors", "Text", "Text", "Counting", "Colors"]


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two sets of two images a prompt, and the prompts."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        for n, image in enumerate(random_weights.images(2 * len(PROMPTS), 24, seed)):
            Image.fromarray(image).save(tmp_path / name / f"{n:03}.png")
    rows = [{"prompt": p, "category": c} for p, c in zip(PROMPTS, CATEGORIES, strict=True)]
    Path("prompts.json").write_text(json.dumps(rows))
    return tmp_path


def _page(*arguments: str) -> None:
    evaluate.run(["--pairs", "a", "b", "--prompts", "prompts.json", "--out", "page", *arguments])


def _trials(file: Path) -> list[dict]:
    found = re.search(r'id="study">(.*?)</script>', file.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])["trials"]


def test_order_and_sides_are_drawn_by_the_seed() -> None:
    orders = [preference_page.arrange(7, seed=seed) for seed in range(30)]
    for order in orders:
        assert sorted(trial.number for trial in order) == list(range(7))
        assert Counter(trial.left for trial in order)["A"] in (3, 4)
    assert len({tuple(order) for order in orders}) == 30
    # No prompt has A on one side always.
    for number in range(7):
        assert {t.left for order in orders for t in order if t.number == number} == {"A", "B"}


def test_the_page_has_each_sets_images_and_names_neither(pairs: Path) -> None:
    _page("--seed", "3")
    text = Path("page/index.html").read_text()
    assert "pairs" not in text.replace("pairs.json", "")
    key = json.loads(Path("page/pairs.json").read_text())
    assert (key["A"], key["B"], key["images_per_prompt"]) == ("a", "b", 2)
    trials = _trials(Path("page/index.html"))
    assert [t["index"] for t in trials] != list(range(len(PROMPTS)))
    for trial in trials:
        folder = {"A": "a", "B": "b"}[trial["of_left"]]
        for n, uri in enumerate(trial["left"]):
            file = Path(folder) / f"{2 * trial['index'] + n:03}.png"
            assert base64.b64decode(uri.partition("base64,")[2]) == file.read_bytes()
    _page("--seed", "4", "--size", "16")
    assert _trials(Path("page/index.html")) != trials


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--metrics", "clip"), "--metrics clip does nothing with --pairs"),
        (("--steps", "4"), "--steps 4 does nothing with --pairs"),
        (("shapes",), "shapes beside --pairs: give one of them"),
        (("--prompts", "four.txt"), "a has 10 images for 4 prompts: give as many for each"),
        (("--pairs", "a", "few"), "a has 10 images, few has 1: give two sets of the same"),
        (("--pairs", "a", "large"), "images of 24 and 48 px, which people would tell apart"),
        (("--pairs", "sampled", "a"), "image 0.png is of 'x', and prompt 1 is 'a red car'"),
    ],
)
def test_sets_that_do_not_fit_are_refused(pairs: Path, arguments, says: str) -> None:
    Path("four.txt").write_text("a\nb\nc\nd\n")
    Path("few").mkdir()
    Path("sampled").mkdir()
    Path("large").mkdir()
    for number in range(10):
        Image.new("RGB", (48, 48)).save(f"large/{number}.png")
    Image.new("RGB", (24, 24)).save("few/0.png")
    Image.new("RGB", (24, 24)).save("sampled/0.png")
    entries = [{"file": "0.png", "prompt": "x"}] * 10
    Path("sampled/metadata.json").write_text(json.dumps({"complete": True, "images": entries}))
    with pytest.raises(ValueError, match=says):
        _page(*arguments)
    assert not Path("page/index.html").exists()


def _write(file: Path, votes: list[tuple[str, int, str, str]], study: str = "s") -> str:
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(preferences.COLUMNS)
        for rater, index, question, choice in votes:
            category = CATEGORIES[index % 5]
            writer.writerow([study, rater, index, category, "p", question, "A", choice])
    return str(file)


def test_shares_have_wilsons_interval(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    votes = [("r", n, "fidelity", "A" if n < 8 else "B" if n < 9 else "same") for n in range(10)]
    score.run([_write(tmp_path / "preferences.csv", votes), "--out", "found"])
    found = json.loads(Path("found/preferences.json").read_text())
    # Wilson's interval of 8 of 10, as in Brown, Cai and DasGupta (2001).
    assert found["percent"]["fidelity"]["A"]["share"] == 80
    assert found["percent"]["fidelity"]["A"]["low"] == pytest.approx(49.02, abs=0.01)
    assert found["percent"]["fidelity"]["A"]["high"] == pytest.approx(94.33, abs=0.01)
    assert "alignment" not in found["percent"]
    assert found["by_category"]["Counting"]["fidelity"]["A"]["share"] == 50
    assert "A 80.0 (49.0 to 94.3)" in capsys.readouterr().out


def test_several_people_are_bootstrapped_by_prompt(tmp_path: Path) -> None:
    def votes(rater: str) -> list[tuple[str, int, str, str]]:
        return [(rater, n, "alignment", "A" if n % 2 else "B") for n in range(20)]

    files = [Path(_write(tmp_path / f"{r}.csv", votes(r))) for r in "xyz"]
    found = preferences.score(preferences.read_votes(files))["alignment"]
    alone = preferences.score(preferences.read_votes(files[:1]))["alignment"]
    assert found["A"].share == alone["A"].share == 50
    # All agree: three times the answers say no more than one of each prompt.
    low, high = (50 - 1.96 * 50 / np.sqrt(20), 50 + 1.96 * 50 / np.sqrt(20))
    assert found["A"].low == pytest.approx(low, abs=2.6)
    assert found["A"].high == pytest.approx(high, abs=2.6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "has no columns study, rater"),
        ("HEAD\ns,r,0,c,p,beauty,A,A\n", "answer 1: question 'beauty' is none of fidelity"),
        ("HEAD\ns,r,0,c,p,fidelity,A,C\n", "answer 1: choice 'C' is none of A, same, B"),
        ("HEAD\ns,r,0,c,p,fidelity,A\n", "answer 1 has 7 fields, not 8"),
        ("HEAD\n" + "s,r,0,c,p,fidelity,A,A\n" * 2, "answer 2: r has answered fidelity of prompt"),
        ("HEAD\ns,r,0,c,p,fidelity,A,A\nt,r,1,c,p,fidelity,A,A\n", "answers on 2 pages"),
        ("HEAD\n", "no answer is there"),
    ],
)
def test_answers_that_are_none_are_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "preferences.csv"
    file.write_text(text.replace("HEAD", ",".join(preferences.COLUMNS)))
    with pytest.raises(ValueError, match=says):
        score.run([str(file), "--out", str(tmp_path / "out")])


def test_other_options_beside_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of options, give --out alone"):
        score.run(["votes.csv", "--metrics", "clip"])
    with pytest.raises(FileNotFoundError, match=r"no file votes\.csv: give preferences.csv"):
        score.run(["votes.csv"])


def _answer_by_keyboard(page: Any, trials: list[dict], given: list[str], name: str) -> None:
    """Answer all questions, with a slip that is taken back, and the page closed in between."""
    for number, key in enumerate(given):
        shown = page.text_content("#prompt")
        assert shown == ("" if number % 2 == 0 else trials[number // 2]["prompt"])
        images = page.locator("#left img").evaluate_all("(all) => all.map((i) => i.src)")
        assert images == trials[number // 2]["left"]
        if number == 3:
            page.keyboard.press("ArrowLeft")
            page.keyboard.press("Backspace")
            page.reload()
            page.keyboard.type(name)
            page.keyboard.press("Enter")
        page.keyboard.press(key)


@pytest.mark.slow
def test_the_page_is_used_by_keyboard(pairs: Path) -> None:
    _page()
    trials, name = _trials(Path("page/index.html")), 'R "1", x'
    keys = ["ArrowLeft", "ArrowDown", "ArrowRight"]
    given = [keys[n % 3] for n in range(2 * len(PROMPTS))]
    file = pairs / "preferences.csv"
    with browser.opened() as chromium:
        page = chromium.new_page()
        page.goto((pairs / "page/index.html").as_uri())
        page.keyboard.press("Enter")
        assert "Give a name" in page.text_content("#hint")
        page.keyboard.press("ArrowLeft")  # nothing is asked yet
        page.keyboard.type(name)
        page.keyboard.press("Enter")
        _answer_by_keyboard(page, trials, given, name)
        assert page.locator("#trial").is_hidden()
        with page.expect_download() as download:
            page.keyboard.press("Enter")  # the focus is on the download
        assert download.value.suggested_filename == file.name
        download.value.save_as(file)
    votes = preferences.read_votes([file])
    assert {vote.rater for vote in votes} == {name}
    assert len(votes) == len(given)
    for number, (vote, key) in enumerate(zip(votes, given, strict=True)):
        trial = trials[number // 2]
        sides = {"ArrowLeft": trial["of_left"], "ArrowDown": "same"}
        other = "B" if trial["of_left"] == "A" else "A"
        assert vote.choice == sides.get(key, other)
        assert vote.index == str(trial["index"])
        assert vote.question == ("fidelity", "alignment")[number % 2]
        assert vote.category == trial["category"]
    score.run([str(file), "--out", "found"])
    assert json.loads(Path("found/preferences.json").read_text())["answers"] == len(given)
