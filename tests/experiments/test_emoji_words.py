"""The experiment on emoji's captions: what is asked, who learns, what is written."""

import json
from pathlib import Path

import emoji_words
import numpy as np
import pytest

from imagen_jax.data.synthetic.emoji import emoji_names

REASONS = {"🐙": "", "🥑": "", "❤️": "style", "👩🏿‍🚀": "skin tone", "👋🏻": "near duplicate"}


def example(emoji: str, style: str, reason: str = "") -> dict:
    words = f"{emoji_names.captions(emoji)[0]}, {style}"
    return {
        "emoji": emoji,
        "style": style,
        "held_out": reason,
        "captions": [words, f"a {words}"],
    }


@pytest.fixture
def dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five emoji in two styles; of the last three one each is held out."""
    splits: dict[str, list[dict]] = {"train": [], "validation": [], "held_out": []}
    for emoji, reason in REASONS.items():
        splits["train"].append(example(emoji, "noto"))
        splits["held_out" if reason else "validation"].append(example(emoji, "twemoji", reason))
    splits["train"].append(example("🐙", "twemoji"))
    monkeypatch.setattr(
        emoji_words.styles_dataset, "open_styles", lambda split, folder: splits[split]
    )


@pytest.mark.usefixtures("dataset")
def test_captions_are_asked_in_the_group_that_they_are_held_out_in() -> None:
    asked = emoji_words.read_captions(Path("data"))
    by_emoji = dict(zip(asked.labels["subject"], asked.groups, strict=True))
    assert by_emoji["🐙"] == "validation"  # the last of its captions
    assert set(asked.groups) == {
        *("train", "validation"),
        *("held out by style", "held out by skin tone", "held out otherwise"),
    }
    tones = dict(zip(asked.captions, asked.labels["skin tone"], strict=True))
    assert tones["woman astronaut, dark skin tone, noto"] == "4"
    assert tones["octopus, noto"] == "none"


def test_a_linear_classifier_learns_what_is_linear_alone() -> None:
    draw = np.random.default_rng(0)
    features = draw.standard_normal((400, 3)).astype(np.float32)
    options = emoji_words.Options(epochs=60, batch_size=50, learning_rate=0.1)
    for labels, least, most in (
        ((features[:, 1] > 0.5).astype(int), 0.95, 1.0),
        ((features[:, 0] * features[:, 1] > 0).astype(int), 0.0, 0.7),
    ):
        found = emoji_words.fit_linear(features, labels, classes=2, options=options)
        right = np.argmax(features @ found["kernel"] + found["bias"], axis=1) == labels
        assert least <= right.mean() <= most


@pytest.mark.usefixtures("dataset")
def test_it_says_how_much_is_right_in_each_group(tmp_path: Path) -> None:
    options = emoji_words.Options(
        encoders=("t5_1_1_tiny",), epochs=200, batch_size=8, learning_rate=0.1, out=tmp_path
    )
    emoji_words.run(options)
    found = json.loads((tmp_path / "emoji_words.json").read_text())["results"]["t5_1_1_tiny"]
    assert found["width"] == 64
    assert found["subject"]["train"] == 100
    assert found["subject"]["held out by style"] == 100  # the same name in another style
    assert found["style"]["train"] == 100
    assert "| held out by style |" in (tmp_path / "emoji_words.md").read_text()
