"""Sizes of the cache as people type them."""

import pytest

from imagen_jax.cli.cache_options import CacheOptions


@pytest.mark.parametrize(
    ("typed", "size"),
    [
        ("50G", 50 << 30),
        ("800M", 800 << 20),
        ("2T", 2 << 40),
        ("64KiB", 1 << 16),
        ("0", 0),
        ("12345", 12345),
    ],
)
def test_sizes_have_units(typed: str, size: int) -> None:
    assert CacheOptions(cache_size=typed).settings().size == size


@pytest.mark.parametrize("typed", ["", "much", "-1G", "1.5G", "G", "5g5", "9" * 20])
def test_what_is_no_size_is_refused(typed: str) -> None:
    with pytest.raises(ValueError, match=rf"^--cache-size {typed} is no number of bytes, such as"):
        CacheOptions(cache_size=typed).settings()
