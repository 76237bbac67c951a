"""The comparison with diffusers, as far as it goes without it."""

import sys
from pathlib import Path

import pytest


def test_predictions_are_compared(tmp_path: Path) -> None:
    from _deepfloyd_sides import Case

    case = Case(folder=tmp_path, parameters=0, steps=2)
    case.keep("ours", case.noise())
    case.keep("theirs", case.noise() / 2)
    assert case.deviation() == 1.0


def test_the_table_compares_with_ours() -> None:
    import deepfloyd
    from _peer_turns import Row

    rows = [
        Row("imagen_jax", 2_000_000, 1e9, 12e9, 0.5, 0.25, 2**30),
        Row("diffusers", 2_000_000, 0.0, 0.0, 0.75, 0.5, 2**31),
    ]
    line = "| diffusers | 2.0 M | 0.75 | 0.5 | 2.00 GiB | 1.50 x | 2.00 x |"
    assert deepfloyd.table(rows).splitlines()[-1] == line


def test_without_diffusers_one_sentence_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import _deepfloyd_sides
    from _peer_shapes import Missing

    monkeypatch.setitem(sys.modules, "diffusers", None)
    case = _deepfloyd_sides.Case(folder=tmp_path, parameters=0, steps=2)
    with pytest.raises(Missing, match=r"pip install 'imagen_jax\[diffusers\]'"):
        _deepfloyd_sides.theirs(case)
