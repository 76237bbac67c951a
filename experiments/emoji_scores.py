"""Does a cascade that draws emoji in several styles compose what training showed apart?

Images of seen captions, and of held-out skin tones and styles of known subjects, are judged by
small classifiers of real images and by an oracle of skin tones; what they say of the real images
of the same captions is the ceiling. Closest training images tell copying from composing.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from lib import command, emoji_bench, emoji_pages, emoji_sampling
from lib.emoji_bench import Splits
from lib.emoji_images import BY_STYLE, BY_TONE, SEEN
from lib.emoji_measures import Bench, measure
from lib.emoji_sampling import EmojiOptions
from lib.results import collect_settings, shell_command, write_page, write_results

from imagen_jax.pretrained.load import load

NAME = "emoji_scores"


@dataclasses.dataclass(frozen=True)
class Options(EmojiOptions):
    """Cascade, and how many of its images are judged; `workdir` has the judge's weights, too."""


def run(options: Options) -> None:
    """Sample, judge, compare; writes emoji_scores.png, .md, .json, _images.png, _neighbours.png.

    Errors: ValueError for a stage that the cascade does not have or whose side is no multiple of
    32, and for a dataset that is not there.
    """
    imagen = load(options.cascade)
    emoji_sampling.require_side(imagen, options.last_stage)
    splits = emoji_bench.read_splits(options.data_dir)
    bench = emoji_bench.make_bench(splits, options.folder, seed=options.seed)
    kept = collect_settings(options, imagen.experiments[0], leave_out=("batch_size", "part"))
    results: dict[str, Any] = {"judge": judge_results(bench, splits), "groups": {}}
    write_results(options.out, NAME, kept, results)
    drawn = {}
    for group, sampled in emoji_sampling.sample_groups(imagen, splits, bench, options):
        drawn[group] = sampled
        results["groups"][group] = measure(sampled, bench, seen=group == SEEN)
        write_results(options.out, NAME, kept, results)
    emoji_pages.save_images(options.out / f"{NAME}_images.png", drawn)
    emoji_pages.save_neighbours(options.out / f"{NAME}_neighbours.png", drawn, bench)
    page = emoji_pages.make_page(results, vars(options), name=NAME)
    write_page(options.out, NAME, page, made_by=shell_command(NAME, options))


def judge_results(bench: Bench, splits: Splits) -> dict[str, Any]:
    """Describe the judge, and score real images that it was not trained on."""
    unseen = {"validation": splits.validation}
    unseen |= {group: splits.held_out.of_group(group) for group in (BY_TONE, BY_STYLE)}
    known = {name: split.of_subjects(bench.judge.subjects) for name, split in unseen.items()}
    return {
        "parameters": bench.judge.count_parameters(),
        "subjects": len(bench.judge.subjects),
        "combinations": len(bench.catalogue.combinations),
        "temperature": bench.temperature,
        "real": {
            name: bench.shares(split.images, split.meant)
            for name, split in known.items()
            if len(split.meant)
        },
    }


if __name__ == "__main__":
    command.main(Options, run, description=__doc__)
