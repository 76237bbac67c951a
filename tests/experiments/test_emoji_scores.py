"""The experiment on emoji in several styles: its judge, the groups it draws, what it writes."""

import dataclasses
import json
from pathlib import Path

import emoji_curve
import emoji_font_file
import emoji_packages
import emoji_scores
import jax.numpy as jnp
import numpy as np
import pytest
from lib import (
    emoji_bench,
    emoji_errors,
    emoji_images,
    emoji_judge,
    emoji_pages,
    recipe_judges,
    runs,
    variants,
    x0_prediction,
)
from lib.emoji_bench import Splits
from lib.emoji_images import BY_STYLE, BY_TONE, SEEN, Combination, RealEmoji
from lib.emoji_measures import Bench, Drawn
from lib.emoji_sampling import EmojiOptions

from imagen_jax.data.images import transforms
from imagen_jax.data.synthetic.emoji import styles_dataset
from imagen_jax.diffusion import prediction
from imagen_jax.image import to_float
from imagen_jax.imagen import Imagen

STYLES = ("noto", "openmoji", "twemoji")
TONES = ((), (0,), (1,), (2,), (3,), (4,))
SKIN = ((250, 220, 190), (230, 190, 150), (190, 140, 110), (150, 100, 70), (90, 60, 50))
HELD_TONE, HELD_STYLE = ("hand", (2,)), ("box", "openmoji")  # left out of training


def draw_emoji(one: Combination, draw: np.random.Generator) -> np.ndarray:
    """A subject's own shape, filled with a tone; styles have outlines, shades and grounds."""
    image = np.full((128, 128, 3), 255)
    x, y = draw.integers(16, 28, 2)
    fill = SKIN[one.tones[0]] if one.tones else (60, 90, 200)
    ink = {"noto": fill, "openmoji": (0, 0, 0), "twemoji": (200, 30, 120)}[one.style]
    boxes = {
        "box": [(0, 0, 80, 80)],
        "hand": [(40, 0, 40, 80), (0, 0, 12, 40), (20, 0, 12, 40), (40, 0, 12, 40)],
        "bar": [(30, 0, 20, 80)],
        "plus": [(30, 0, 20, 80), (0, 30, 80, 20)],
    }[one.subject]
    for grow, colour in ((5, ink), (0, fill)):
        for top, left, height, width in boxes:
            rows = slice(y + top - grow, y + top + height + grow)
            image[rows, x + left - grow : x + left + width + grow] = colour
    return image.astype(np.uint8)


def real_emoji(combinations: list[tuple[Combination, str]], *, each: int, seed: int) -> RealEmoji:
    """Examples of what a split has, and why."""
    draw = np.random.default_rng(seed)
    meant = [one for one, _ in combinations for _ in range(each)]
    images = np.stack([draw_emoji(one, draw) for one in meant])
    words = [f"{m.subject} {m.tones}, {m.style}" for m in meant]
    return RealEmoji(
        emoji_images.at_side(images),
        tuple((text, f"a {text}", f"one {text}") for text in words),
        tuple(meant),
        tuple(reason for _, reason in combinations for _ in range(each)),
        tuple(range(len(meant))),
        lambda row: transforms.encode(images[row]),
    )


def all_splits() -> Splits:
    subjects = {"hand": TONES, "plus": TONES, "box": TONES[:1], "bar": TONES[:1]}
    every = [
        Combination(subject, tones, style)
        for subject, kinds in subjects.items()
        for tones in kinds
        for style in STYLES
    ]
    by_tone = [one for one in every if one[:2] == HELD_TONE]
    by_style = [one for one in every if (one.subject, one.style) == HELD_STYLE]
    train = [(one, "") for one in every if one not in by_tone + by_style]
    another = Combination("box", (), "noto")
    held = [
        *((one, "skin tone") for one in by_tone),
        *((one, "style") for one in by_style),
        (another, "near duplicate"),
    ]
    return Splits(
        train=real_emoji(train, each=6, seed=0),
        validation=real_emoji(train, each=1, seed=1),
        held_out=real_emoji(held, each=6, seed=2),
    )


@pytest.fixture(scope="module")
def splits() -> Splits:
    return all_splits()


@pytest.fixture
def options(base32, splits, tmp_path: Path, monkeypatch) -> EmojiOptions:
    monkeypatch.setattr(emoji_scores, "load", {"a cascade": base32}.__getitem__)
    monkeypatch.setattr(emoji_bench, "read_split", lambda split, folder: getattr(splits, split))
    monkeypatch.setattr(emoji_judge, "STYLE_STEPS", 200)
    return EmojiOptions(
        cascade="a cascade",
        last_stage="base32",
        images=5,
        part=3,
        batch_size=4,
        out=tmp_path / "out",
        workdir=tmp_path / "work",
    )


def make_bench(splits: Splits, options: EmojiOptions) -> Bench:
    return emoji_bench.make_bench(splits, options.workdir, seed=options.seed)


def test_a_split_has_images_captions_and_what_they_mean(tmp_path: Path) -> None:
    font = emoji_font_file.write(tmp_path / "tiny.ttf", emoji_font_file.bitmaps())
    files = emoji_packages.pictures([text for text in emoji_font_file.EMOJI if text != "🇸🇯"])
    folder = emoji_packages.write_folder(tmp_path / "3d", files)
    styles = (f"noto={font}", f"fluent-3d={folder}")
    styles_dataset.build_styles(tmp_path / "data", styles=styles)
    read = {s: emoji_images.read_split(s, tmp_path / "data") for s in ("train", "held_out")}
    octopus = [row for row, one in enumerate(read["train"].meant) if one.subject == "🐙"]
    assert [read["train"].meant[row].tones for row in octopus] == [()] * len(octopus) != []
    one = read["train"].select([octopus[0]])
    assert "octopus" in one.captions[0][0]
    assert one.images.shape == (1, 32, 32, 3)
    assert one.at(128).shape == (1, 128, 128, 3)
    np.testing.assert_array_equal(emoji_images.at_side(one.at(128)), one.images)
    for group, reason in emoji_images.REASONS.items():
        assert set(read["held_out"].of_group(group).reasons) <= {reason}


def test_the_judge_knows_real_images_that_it_has_not_seen(options, splits, monkeypatch) -> None:
    bench = make_bench(splits, options)
    found = emoji_scores.judge_results(bench, splits)["real"]
    assert found["validation"]["combination"] > 90
    assert found[BY_TONE]["tone"] > 90
    assert found[BY_TONE]["subject"] > 90
    assert found[BY_STYLE]["style"] > 90
    assert found[BY_STYLE]["subject"] > 90
    assert found[BY_STYLE]["tone"] is None
    # Images of other captions are wrong.
    held = splits.held_out.of_group(BY_TONE)
    wrong = bench.shares(
        held.images, [one._replace(subject="plus", tones=(4,)) for one in held.meant]
    )
    assert wrong["subject"] < 10
    assert wrong["tone"] < 10
    # Its weights are stored: nothing is trained again.
    monkeypatch.setattr(emoji_judge, "_train_style", None)
    again = make_bench(splits, options)
    np.testing.assert_array_equal(
        bench.judge.subject(held.images), again.judge.subject(held.images)
    )
    with pytest.raises(TypeError):
        make_bench(splits, dataclasses.replace(options, seed=9))


def test_mirrored_images_are_others(options, splits) -> None:
    """An arrow to the left is not one to the right: no feature is the same for both."""
    held = splits.train.select([0]).images
    judge = emoji_judge.load_judge(splits.train, options.workdir, seed=1)
    scores = judge.similarities(np.concatenate([held, held[:, ::-1], held[:, :, ::-1]]))
    assert not np.allclose(scores[0], scores[1], atol=0.05)
    assert not np.allclose(scores[0], scores[2], atol=0.05)


def test_a_group_has_each_subject_in_each_style_before_any_comes_again(options, splits) -> None:
    bench = make_bench(splits, options)
    kinds = {(one.subject, one.style) for one in splits.train.meant}
    asked = {"images": len(kinds), "seed": 1}
    chosen, others = emoji_bench.draw_group(SEEN, splits.train, bench, **asked)
    assert {(one.subject, one.style) for one in chosen.meant} == kinds
    assert len(others.meant) == len(kinds)
    assert not set(chosen.rows) & set(others.rows)
    held, _ = emoji_bench.draw_group(BY_STYLE, splits.held_out, bench, **asked)
    assert {(one.subject, one.style) for one in held.meant} == {HELD_STYLE}
    with pytest.raises(ValueError, match="the dataset has 0 images held out by style: too few"):
        emoji_bench.draw_group(BY_STYLE, splits.train, bench, **asked)


def test_captions_are_any_or_the_main_one(splits) -> None:
    said = emoji_bench.choose_captions(splits.train, "any", seed=1)
    assert len({text.split()[0] for text in said} & {"a", "one"}) == 2
    main = emoji_bench.choose_captions(splits.train, "main", seed=1)
    assert main == [own[0] for own in splits.train.captions]


def test_every_group_is_sampled_and_judged(options, splits, monkeypatch) -> None:
    emoji_scores.run(options)
    document = json.loads((options.out / "emoji_scores.json").read_text())
    groups = document["results"]["groups"]
    assert list(groups) == [SEEN, BY_TONE, BY_STYLE]
    assert [groups[group]["images"] for group in groups] == [5, 5, 4]
    for group in groups.values():
        # Random weights draw nothing, and the real images are what they are.
        assert group["real"]["combination"] >= 80
        assert group["frechet"] > group["frechet_real"] if "frechet" in group else True
        assert group["neighbours"]["sampled"] > 2 * group["neighbours"]["real"]
    assert groups[SEEN]["sampled"]["combination"] <= 40  # of many combinations, other than by style
    assert groups[SEEN]["neighbours"]["own_nearer"] is None
    for file in ("emoji_scores.png", "emoji_scores_images.png", "emoji_scores_neighbours.png"):
        assert (options.out / file).stat().st_size > 0
    page = (options.out / "emoji_scores.md").read_text()
    assert "| seen: combination, percent of the ceiling | 90.0 |" in page
    assert "| held out by style | sampled, 4 |" in page

    monkeypatch.setattr(Imagen, "sample", None)  # given again, it samples nothing again
    emoji_scores.run(options)
    assert json.loads((options.out / "emoji_scores.json").read_text()) == document


def test_targets_are_compared_with_the_ceiling_or_alone() -> None:
    shares = {"combination": 45.0, "subject": 69.0, "style": 90.0, "tone": None}
    sampled = {**shares, "subject_and_tone": 85.0}
    real = {"combination": 50.0, "subject": 92.0, "style": 100.0, "tone": None}
    real["subject_and_tone"] = 100.0
    group = {"sampled": sampled, "real": real, "sharpness": 0.9}
    groups = {SEEN: group, BY_TONE: group, BY_STYLE: {**group, "sharpness": 0.7}}
    rows = emoji_pages.check_targets(groups)
    assert [row["measured"] for row in rows] == ["90.0", "69.0", "90.0", "-", "85.0", "0.70"]
    assert [row["reached"] for row in rows] == ["yes", "no", "yes", "no", "yes", "no"]
    assert rows[1]["percent of the ceiling"] == "75.0"


def test_a_stage_that_cannot_be_judged_is_refused(options, tiny, monkeypatch) -> None:
    monkeypatch.setattr(emoji_scores, "load", lambda place: tiny)
    with pytest.raises(ValueError, match="last_stage=base8: 8 px, no multiple of 32"):
        emoji_scores.run(dataclasses.replace(options, last_stage="base8"))


@pytest.mark.filterwarnings("ignore:no caption of shapes/tiny")
def test_checkpoints_of_a_run_are_judged_one_by_one(
    options, base32, data_dir: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    """Each is the run as it was at that step, judged on the same captions and noise."""
    folder = tmp_path / "base32"
    experiment = base32.experiments[0]
    settings = dataclasses.replace(experiment.train, steps=3, save_every=1, keep_every=1)
    runs.train(dataclasses.replace(experiment, train=settings), folder, data_dir=data_dir)
    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    asked = emoji_curve.Options(**given | {"cascade": str(folder), "images": 3, "steps": (1, 3)})
    emoji_curve.run(asked)
    points = json.loads((asked.out / "emoji_curve.json").read_text())["results"]
    assert list(points) == ["1", "3"]
    assert [point["images"] for point in points.values()] == [8, 24]
    assert 0 < points["1"]["hours"] < points["3"]["hours"]
    assert points["1"]["groups"][SEEN] != points["3"]["groups"][SEEN]
    assert points["1"]["groups"][SEEN]["real"] == points["3"]["groups"][SEEN]["real"]
    errors = [point["groups"][SEEN]["pure_noise"] for point in points.values()]
    assert errors[0]["variance"] == errors[1]["variance"] > 0
    assert errors[0]["error"] != errors[1]["error"]
    place = tmp_path / "at"
    assert emoji_curve.load_checkpoint(folder, 2, place / "base32").steps == (2,)
    assert (asked.out / "emoji_curve.png").stat().st_size > 0

    monkeypatch.setattr(Imagen, "sample", None)  # what is judged is not judged again
    emoji_curve.run(asked)
    assert "| 3 | 0 k | 0.0 |" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"steps \[9\]: .*base32 has checkpoints of the steps \[1"):
        emoji_curve.run(dataclasses.replace(asked, steps=(9,)))


def test_the_error_in_pure_noise_of_the_mean_image_is_the_variance(
    base32, splits, monkeypatch
) -> None:
    real = splits.train
    captions = emoji_bench.choose_captions(real, "main", seed=1)
    drawn = Drawn(real.images, captions, real, real)
    mean = to_float(real.at(32)).mean(axis=0)
    predicts = base32.stages[0].stage.diffusion.predicts

    def predict_mean(network, low_res, *, diffusion):
        return lambda z, logsnr: prediction.from_x0(
            jnp.broadcast_to(mean, z.shape), z, logsnr, predicts=predicts
        )

    monkeypatch.setattr(x0_prediction.preconditioning, "precondition", predict_mean)
    found = emoji_errors.pure_noise_error(base32, drawn, seed=1)
    assert found["error"] == pytest.approx(found["variance"], rel=1e-3)
    assert found["variance"] > 0.01


def test_variants_of_a_stage_of_emoji_are_judged(options, splits, base32, tmp_path: Path) -> None:
    experiment = base32.experiments[0]
    data = dataclasses.replace(experiment.data, dataset="emoji/styles")
    judge = recipe_judges.make_judge(
        dataclasses.replace(experiment, data=data),
        images=6,
        seed=1,
        batch_size=3,
        folders=recipe_judges.Folders(tmp_path, options.workdir),
    )
    assert [judge.judges(row) for row in variants.choose(("shift=0.0", "wording"))] == [1, 0, 0]
    (row,) = variants.choose(("shift=0.0",))
    scores = judge.score(base32, row)
    real = judge.bench.shares(judge.chosen.images, judge.chosen.meant)
    assert real["subject_5"] > 90
    assert scores["frechet"] > judge.reference.floor
    assert judge.cells({**real, "frechet": 1.0})["subject, top 5"] == f"{real['subject_5']:.0f}"
    assert judge.marks(scores)["style"] == scores["style"]
    # A network of random weights knows nothing of the noise, whose mean square is 1.
    assert judge.noise_error(base32, row) == pytest.approx(1.0, abs=0.15)


def test_variants_below_the_side_that_is_judged_are_refused(options, base16) -> None:
    experiment = base16.experiments[0]
    data = dataclasses.replace(experiment.data, dataset="emoji/styles")
    with pytest.raises(ValueError, match=r"stage\.size=16: emoji are judged at multiples of 32"):
        recipe_judges.make_judge(
            dataclasses.replace(experiment, data=data),
            images=6,
            seed=1,
            batch_size=3,
            folders=recipe_judges.Folders(options.workdir, options.workdir),
        )
