"""A use whose package is missing is refused with the command that installs it."""

import re
import sys
from pathlib import Path

import pytest

from imagen_jax import extras
from imagen_jax.cli import data, data_build, evaluate
from imagen_jax.data import known_words
from imagen_jax.data.sources import addresses
from imagen_jax.evaluate.report import Report
from imagen_jax.export import saved_model
from imagen_jax.io import workdir

SETUP = (Path(__file__).parent.parent / "setup.py").read_text()


@pytest.fixture(params=extras.EXTRAS)
def missing(request, monkeypatch) -> str:
    """A module that cannot be found."""
    monkeypatch.setitem(sys.modules, request.param, None)
    return request.param


def test_the_sentence_names_an_extra_that_installs_it(missing: str) -> None:
    _, extra = extras.EXTRAS[missing]
    sentence = re.escape(f"; pip install 'imagen_jax[{extra}]'")
    with pytest.raises(ValueError, match=f"^a use needs .+{sentence}$"):
        extras.require(missing, "a use needs")
    assert f'"{extra}": [' in SETUP


def test_what_is_installed_is_not_refused() -> None:
    extras.require("numpy", "a use needs")


@pytest.mark.parametrize(
    ("module", "use", "says"),
    [
        ("gcsfs", lambda: workdir.as_path("gs://b/x"), r"gs://b/x: buckets need gcsfs.*\[gcs\]"),
        (
            "pyarrow",
            lambda: addresses.open_source(addresses.parse_address("parquet:/x.parquet"), Path()),
            r"/x.parquet: Parquet needs pyarrow.*\[parquet\]",
        ),
        ("emoji", lambda: data.run(["build", "emoji"]), r"building emoji/full needs.*\[data\]"),
        (
            "emoji",
            lambda: addresses.open_embedded("emoji/full", "train", "data"),
            r"emoji/full: .*\[data\]",
        ),
        ("matplotlib", lambda: evaluate.run(["shapes"]), r"imagen eval draws.*\[plots\]"),
        (
            "matplotlib",
            lambda: Report(title="a", sections=()).write(Path("nowhere")),
            r"plots of a report need matplotlib.*\[plots\]",
        ),
        (
            "apache_beam",
            lambda: data_build.run(
                data_build.BuildOptions(
                    ("shapes/tiny",),
                    beam=True,
                    pairs=data_build.StoreOptions(out="x", encoder="t5_1_1_tiny", sizes=(8,)),
                ),
                [],
            ),
            r"--beam needs Apache Beam.*\[beam\]",
        ),
        ("tensorflow", saved_model.check, r"a SavedModel needs TensorFlow.*\[tensorflow\]"),
    ],
)
def test_each_use_is_refused_at_once(module: str, use, says: str, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=says):
        use()
    assert not list(tmp_path.iterdir())


def test_prompts_for_emoji_need_no_package(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "emoji", None)
    known_words._words.cache_clear()
    assert known_words.unknown_words(["a zyzzyva"], dataset="emoji/full") == []
    known_words._words.cache_clear()
