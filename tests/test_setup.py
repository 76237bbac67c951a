"""What an index of packages shows: the README, with links that lead somewhere from there."""

import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(([^()\s]+)\)")
HERE = "https://github.com/someone/imagen_jax"
WORKFLOW = {
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "someone/imagen_jax",
    "GITHUB_SHA": "0123abc",
}


def _metadata(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What setup.py says to setuptools, which environments need not have."""
    given: dict = {}
    tools = SimpleNamespace(setup=lambda **to: given.update(to), find_packages=lambda *_, **__: [])
    monkeypatch.setitem(sys.modules, "setuptools", tools)
    runpy.run_path(str(ROOT / "setup.py"))
    return given


def test_links_of_a_wheel_built_by_a_workflow_lead_to_its_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in WORKFLOW.items():
        monkeypatch.setenv(name, value)
    given = _metadata(monkeypatch)
    assert given["project_urls"]["Source"] == HERE
    found = LINK.findall(given["long_description"])
    readme = LINK.findall((ROOT / "README.md").read_text())
    assert len(readme) > 30
    for (_, text, target), (image, shown, link) in zip(found, readme, strict=True):
        kind = "raw" if image else "blob"
        outside = link.startswith("https://")
        assert (text, target) == (shown, link if outside else f"{HERE}/{kind}/0123abc/{link}")


def test_without_a_repository_nothing_links_to_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    given = _metadata(monkeypatch)
    assert "Source" not in given["project_urls"]
    links = LINK.findall(given["long_description"])
    assert links
    assert all(target.startswith("https://") for _, _, target in links)
    assert "](" not in LINK.sub("", given["long_description"])
    assert "docs/quickstart.md says what to expect" in given["long_description"]
