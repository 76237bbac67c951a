"""`imagen eval --pairs A B --prompts FILE`: a page on which people compare two sets of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagen_jax.evaluate import preference_page, prompt_file
from imagen_jax.evaluate.prompt_file import PromptColumns

if TYPE_CHECKING:
    from imagen_jax.cli.evaluate import Options


def run(options: Options) -> None:
    """Write the page. Errors: as `preference_page.write` and `prompt_file.read_prompts`."""
    from imagen_jax.io.atomic import check_names
    from imagen_jax.metrics import image_set
    from imagen_jax.runtime import lease

    assert options.pairs is not None
    assert options.prompts is not None
    columns = PromptColumns(options.prompt_column, options.category_column)
    prompts = prompt_file.read_prompts(options.prompts, columns)
    networks = options.networks
    first, second = (
        image_set.open_images(str(p), data_dir=networks.data_dir) for p in options.pairs
    )
    check_names(options.out, files=preference_page.FILES)
    with lease.hold(options.out, command="imagen eval", option="--out"):
        page = preference_page.write(
            options.out, (first, second), prompts, seed=options.seed, size=networks.size
        )
    print(f"{len(prompts):,} prompts, two questions each; the page is {page}")
    print("its answers are scored by `imagen score preferences.csv`")
