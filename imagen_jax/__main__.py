"""`python -m imagen_jax`: the command `imagen`."""

from imagen_jax.cli import main

main()
