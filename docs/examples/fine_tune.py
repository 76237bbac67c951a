"""Fine-tune the base stage of `shapes` on a folder of images and captions, then sample.

`python docs/examples/fine_tune.py IMAGES --out runs/mine`, where IMAGES holds `name.png` beside
`name.txt`. What is there is not done again: the same command resumes a run that was interrupted.
"""

import argparse
import dataclasses
from pathlib import Path

import imagen_jax
from imagen_jax import config, pretrained
from imagen_jax.data.prepare import jobs
from imagen_jax.data.sources import addresses
from imagen_jax.data.store import store
from imagen_jax.train import loop
from imagen_jax.train.init_from import InitFrom

STAGE = "base16"


def fine_tuned(original: config.Experiment, folder: Path, steps: int) -> config.Experiment:
    """The stage's own options, for fewer steps of a lower rate: its EMA forgets sooner, too."""
    return dataclasses.replace(
        original,
        data=dataclasses.replace(original.data, dataset=f"folder:{folder}", split="train"),
        optim=dataclasses.replace(
            original.optim, learning_rate=original.optim.learning_rate / 4, ema_decay=0.98
        ),
        train=config.Train(steps=steps, batch_size=16, log_every=10, save_every=100),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="Folder of images, each with its caption.")
    parser.add_argument("--steps", type=int, default=300, help="Training steps.")
    parser.add_argument("--out", type=Path, default=Path("runs/mine"), help="Folder of the run.")
    options = parser.parse_args()

    # ---- images and captions as (image, encoding) pairs, by the cascade's own text encoder
    (original,) = (e for e in imagen_jax.load("shapes").experiments if e.stage.name == STAGE)
    job = jobs.EncodeJob(
        address=addresses.parse_address(f"folder:{options.images}"),
        data_dir=Path("data"),
        text=original.text,
        sizes=(original.stage.size,),
        folder=options.out / "pairs",
    )
    jobs.prepare_dataset(job)
    pairs = store.open_store(options.out / "pairs")

    # ---- training, from the cascade's averaged weights
    experiment = fine_tuned(original, options.images, options.steps)
    weights = InitFrom(folder=pretrained.folder_of("shapes") / STAGE)
    loop.train(experiment, options.out / STAGE, store=pairs, source=weights)

    # ---- a sample
    caption = pairs.source()[0].captions[0]
    (image,) = imagen_jax.load(options.out / STAGE)(caption, seed=0)
    image.save(options.out / "sample.png")
    print(f"{caption!r} in {options.out / 'sample.png'}")


if __name__ == "__main__":
    main()
