"""Every parser of files that strangers give: a short run here, a long one with `pytest -m fuzz`.

The long run tries FUZZ_INPUTS inputs of a target, at most FUZZ_SECONDS long; without them 100,000
of cheap parsers and 5,000 of others.
"""

import os
from pathlib import Path

import pytest
from fuzz import registry, runner, sandbox
from fuzz.effort import Effort
from fuzz.runner import Report

CHEAP, SLOW = 100_000, 5_000
SHORT_CHEAP, SHORT_SLOW = 60, 5  # and no fewer than the corpus


def _check(found: Report) -> None:
    print(found)
    assert not found.faults, "\n".join(f"{fault.input}: {fault.what}" for fault in found.faults)
    assert found.loads, "the honest inputs load"
    assert found.memory < sandbox.MEMORY


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """A few inputs of every target, in one process."""
    efforts = {
        registry.PLACES[name]: Effort(inputs=SHORT_CHEAP if target.is_cheap else SHORT_SLOW)
        for name, target in registry.TARGETS.items()
    }
    return runner.fuzz_all(efforts, tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", registry.TARGETS)
def test_some_changed_files_load_or_are_refused(name: str, short_run: dict[str, Report]) -> None:
    _check(short_run[registry.PLACES[name]])


@pytest.mark.fuzz
@pytest.mark.parametrize("name", registry.TARGETS)
def test_many_changed_files_load_or_are_refused(name: str, tmp_path: Path) -> None:
    default = CHEAP if registry.TARGETS[name].is_cheap else SLOW
    inputs = int(os.environ.get("FUZZ_INPUTS", default))
    seconds = float(os.environ.get("FUZZ_SECONDS", "1e9"))
    _check(runner.fuzz(registry.PLACES[name], tmp_path, Effort(inputs=inputs, seconds=seconds)))
