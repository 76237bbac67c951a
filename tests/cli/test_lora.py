"""`--lora FILE[=WEIGHT]` of `imagen sample`."""

from pathlib import Path
from typing import Any

import pytest

from imagen_jax.cli import lora_option


@pytest.mark.parametrize(
    ("given", "path", "weight"),
    [
        ("style.safetensors", "style.safetensors", None),
        ("style.safetensors=0.7", "style.safetensors", 0.7),
        ("runs/a=b=-2", "runs/a=b", -2.0),
        ("there=1", "there=1", None),
    ],
)
def test_files_and_weights_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, path: str, weight: float | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there=1").touch()
    asked: list[Any] = []
    monkeypatch.setattr("imagen_jax.with_lora", lambda *a, **k: asked.append((a, k)))
    lora_option.with_adapters("cascade", [given])  # type: ignore[arg-type]
    assert asked == [(("cascade", path), {} if weight is None else {"weight": weight})]


@pytest.mark.parametrize("given", ["a=b", "a=", "a=nan", "a=٣", "a=1e3"])
def test_what_is_no_weight_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"is no weight, and no file has that name; give FILE"):
        lora_option.with_adapters("cascade", [given])  # type: ignore[arg-type]
