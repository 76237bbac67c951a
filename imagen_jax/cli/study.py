"""`imagen study NAME`: run one of the paper's claims at our scale, to a plot and a table."""

import importlib

STUDIES = {
    "guidance": "alignment against picture quality over guidance weights and thresholds",
    "augmentation": "super-resolution with and without noise conditioning augmentation",
    "text-encoder": "a larger text encoder against a larger U-Net",
    "efficient-unet": "Efficient U-Net against U-Net at equal steps and at equal time",
    "sampling": "sampler, steps, guidance, threshold and wording on trained weights",
    "few-steps": "DPM-Solver++ in 20 steps against the ancestral sampler in 256",
    "recipe": "short runs that compare variants of the base stage",
}


def run(argv: list[str]) -> None:
    """Parse, then run the study. Errors: ValueError for no study or an unknown one."""
    name, *rest = argv or [""]
    if name in ("-h", "--help"):
        print(_help())
        return
    if name not in STUDIES:
        said = f"no study {name!r}" if name else "give a study first"
        raise ValueError(f"{said}; there are {', '.join(STUDIES)}")
    from imagen_jax.cli import parsing  # only here: the list above is there at once

    module = importlib.import_module(f"imagen_jax.studies.{name.replace('-', '_')}")
    prog = f"imagen study {name}"
    options = parsing.parse(module.Options, rest, prog=prog, description=module.__doc__)
    from imagen_jax.parallel import compilation_cache

    compilation_cache.use_cache()
    module.run(options)


def _help() -> str:
    lines = [f"  {name:<16}{summary}" for name, summary in STUDIES.items()]
    return "\n".join(
        [
            "usage: imagen study NAME ...",
            "",
            "Run one of the paper's claims at our scale: a plot, a table and the numbers.",
            "",
            *lines,
            "",
            "`imagen study NAME --help` lists its options. A study that was interrupted goes on",
            "when the same command is given again.",
        ]
    )
