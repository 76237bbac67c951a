"""The experiment on few steps: paired differences, and what it samples and writes."""

import dataclasses
import json
from pathlib import Path

import few_steps
import numpy as np
import pytest
from lib import paired_verdicts
from lib.scoring import paired

from imagen_jax.evaluate import eval_set
from imagen_jax.imagen import Imagen


def test_a_difference_is_paired_and_has_its_standard_error() -> None:
    reference = np.array([True, True, False, False, True, True, True, True])
    found = np.array([True, False, True, False, True, True, True, False])
    compared = paired(found, reference)
    assert (compared.captions, compared.share, compared.difference) == (8, 62.5, -12.5)
    # Differences 0, -1, 1, 0, 0, 0, 0, -1 of 100 points: variance (3 - 1 / 8) / 7.
    assert compared.error == pytest.approx(100 * np.sqrt((3 - 1 / 8) / 7 / 8))
    assert paired(reference, reference).error == 0.0
    assert paired(found[:1], reference[:1]).error == 100.0


@pytest.fixture
def options(base16, tmp_path: Path, monkeypatch) -> few_steps.Options:
    monkeypatch.setattr(few_steps, "load", lambda path: {"a cascade": base16}[path])
    short = {"first": {"kind": "ancestral", "steps": 3}, "second": {"kind": "ddim", "steps": 2}}
    monkeypatch.setattr(few_steps, "SETTINGS", short)
    return few_steps.Options(
        cascade="a cascade",
        settings=("first", "second"),
        last_stage="base16",
        images=6,
        part=4,
        batch_size=4,
        out=tmp_path / "out",
        workdir=tmp_path / "work",
    )


def test_every_caption_is_judged_under_each_setting(options, monkeypatch) -> None:
    sampled: list[tuple[str, int]] = []
    original = Imagen.sample

    def sample(self, captions, **given):
        sampled.append((self.stages[0].stage.sampler.kind, len(captions)))
        return original(self, captions, **given)

    monkeypatch.setattr(Imagen, "sample", sample)
    few_steps.run(options)
    kinds = ["ancestral", "ddim"]
    assert sampled == [(kind, count) for count in (4, 4, 2, 2) for kind in kinds]
    results = json.loads((options.out / "few_steps.json").read_text())["results"]
    assert list(results) == ["first", "second"]
    groups = results["second"]
    assert groups[paired_verdicts.ALL]["captions"] == 12
    for kind, split in paired_verdicts.SPLITS.items():
        drawn = eval_set.draw_eval_set("shapes/tiny", split, count=6, seed=1, size=64).kinds()
        for objects, rows in drawn.items():
            assert groups[f"{kind}, {paired_verdicts.OBJECTS[objects]}"]["captions"] == len(rows)
    assert all(row["difference"] == 0.0 for row in results["first"].values())
    page = (options.out / "few_steps.md").read_text()
    assert "| second | all captions | 12 |" in page
    assert (options.out / "few_steps.png").stat().st_size > 0

    # Given again, it samples nothing again.
    monkeypatch.setattr(Imagen, "sample", None)
    few_steps.run(options)
    assert json.loads((options.out / "few_steps.json").read_text())["results"] == results


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("ddim, 7 steps",),
            r"there is no \['ddim, 7 steps'\]; there are \['ancestral, 256 steps'",
        ),
        ((few_steps.REFERENCE,), "one alone compares nothing"),
    ],
)
def test_settings_that_compare_nothing_are_refused(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        few_steps.Options(settings=settings)


def test_every_setting_is_one_of_the_sampler(base16) -> None:
    for changes in few_steps.SETTINGS.values():
        changed = base16.with_sampler(changes).stages[0].stage.sampler
        assert dataclasses.asdict(changed).items() >= changes.items()
