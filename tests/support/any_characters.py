"""All code points, for tests of texts that need not be Unicode."""

from hypothesis import strategies as st

# Hypothesis draws halves of surrogate pairs where they are drawn on their own alone.
CHARACTERS = st.characters(codec=None) | st.integers(0xD800, 0xDFFF).map(chr)
