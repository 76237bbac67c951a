"""Trained cascades that come with the package, as `imagen export` writes them.

Each folder here is one: its stages, `manifest.json` and a `README.md` that says how it was made.
`imagen sample NAME "..."`, `imagen eval NAME` and `imagen_jax.load(NAME)` know them by name.
"""

from pathlib import Path

FOLDER = Path(__file__).parent


def list_names() -> list[str]:
    """The embedded cascades."""
    return sorted(manifest.parent.name for manifest in FOLDER.glob("*/manifest.json"))


def folder_of(name: str) -> Path:
    """The folder of the cascade `name`.

    Errors: FileNotFoundError that lists the embedded cascades.
    """
    if name not in list_names():
        raise FileNotFoundError(
            f"no embedded cascade {name!r}; there are: {', '.join(list_names()) or 'none'}"
        )
    return FOLDER / name
