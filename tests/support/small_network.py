"""The least networks that configs allow, for tests of what surrounds networks."""

from pathlib import Path

from imagen_jax import config

FOLDER = Path(__file__).parent / "small"  # a cascade of two stages, for commands
SMALL = config.load(str(FOLDER / "base8.py"))[0].stage.model
