"""The site: it builds without a warning, and its reference has every command, field and name."""

import dataclasses
import html
import re
import subprocess
import sys
from pathlib import Path

import pytest

import imagen_jax
from imagen_jax import cli, config

ROOT = Path(__file__).parent.parent
EXTENSIONS = str(ROOT / "docs" / "_extensions")


@pytest.fixture(autouse=True)
def _extensions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXTENSIONS)


def _text(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


@pytest.mark.docs
def test_the_site_builds(tmp_path: Path) -> None:
    for entry in ROOT.iterdir():  # a copy, since a build writes pages beside the others
        if entry.name != "docs":
            (tmp_path / entry.name).symlink_to(entry)
    command = ["cp", "-r", str(ROOT / "docs"), str(tmp_path)]
    subprocess.run(command, check=True)
    options = ["-q", "-W", "--keep-going", "-b", "html", "docs", "site"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    reference = site / "reference"
    commands = _text(reference / "cli.html")
    for name in cli.COMMANDS:
        assert f"usage: imagen {name}" in commands
    assert "custom = imagen.with_step_rule(ddim" in _text(site / "examples" / "sampling.html")
    assert "Scores" in _text(site / "results" / "embedded.html")
    public = (reference / "api" / "imagen_jax.html").read_text()
    for name in imagen_jax.__all__:
        assert f'id="imagen_jax.{name}"' in public


def test_docstrings_become_rst() -> None:
    from docstrings import to_rst

    lines = [
        "A gain of `a*b` * c. Errors: ValueError for |x|, and",
        "`y`.",
        "",
        "Shapes, Units: as `x`.",
        "",
        "| a | b |",
        "|---|---|",
        "| `c` | d_ |",
        "* a list",
    ]
    assert "\n".join(to_rst(lines)) == (
        "A gain of `a*b` \\* c.\n\n:Errors: ValueError for \\|x\\|, and\n    `y`.\n\n\n"
        ":Shapes, Units: as `x`.\n\n\n"
        ".. list-table::\n   :header-rows: 1\n\n"
        "   * - a\n     - b\n   * - `c`\n     - d\\_\n\n* a list"
    )


def test_fields_are_described_by_their_comments() -> None:
    from field_comments import field_comments

    text = field_comments(config.Text)
    assert text["width"] == "of its output"
    assert text["dtype"].startswith("Of its matrices and products; norms")
    assert text["dtype"].endswith("int8 halves bfloat16's memory.")
    assert field_comments(config.Framing)["crop_seed"] == "Random seed of what is drawn."
    assert field_comments(config.Stage)["name"] == ""


def test_every_field_of_every_config_is_on_its_page() -> None:
    from config_page import config_page

    sections = dict(part.split("\n", 1) for part in config_page().split("\n## ")[1:])
    kinds = [vars(config)[name] for name in config.__all__]
    kinds = [k for k in kinds if dataclasses.is_dataclass(k) and k is not config.Range]
    assert sections.keys() == {kind.__name__ for kind in kinds}
    for kind in kinds:
        for field in dataclasses.fields(kind):
            assert f"| `{field.name}` |" in sections[kind.__name__]
    assert (
        "| `low_size` | `int` or `None` | from 1 to 16384 | `None` | side of its low-"
        in sections["Stage"]
    )
    assert "| `percentile` | `float` | above 1 and 100 or less, it is" in sections["Sampler"]
    assert "| `seed` | `int` | from 0 to 4294967295 | `0` |" in sections["Train"]
    assert "`Level(channels=128, blocks=2)`" not in sections["EfficientUNet"]
    assert "Level(channels=128, blocks=2)" in sections["EfficientUNet"]
