"""The runner of the fuzzing suite sees what a parser must not do, whatever the parser does then."""

import random
from pathlib import Path

import pytest
from fuzz import planted, runner
from fuzz.effort import Effort
from fuzz.mutator import LARGEST, Link, mutate, read_files, write_files


def _run(name: str, folder: Path, *, inputs: int) -> runner.Report:
    return runner.fuzz(f"fuzz.planted:{name}", folder, Effort(inputs=inputs), limit=1.0)


@pytest.fixture(scope="module")
def planted_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, runner.Report]:
    """Two inputs of every parser that has a fault: the honest one, and one that it has it for."""
    efforts = {f"fuzz.planted:{name}": Effort(inputs=2) for name in planted.FAULTY}
    return runner.fuzz_all(efforts, tmp_path_factory.mktemp("planted"), limit=1.0)


@pytest.mark.parametrize("name", planted.FAULTY)
def test_a_planted_fault_is_reported_with_its_input(
    name: str, planted_run: dict[str, runner.Report]
) -> None:
    found = planted_run[f"fuzz.planted:{name}"]
    (fault,) = found.faults
    assert planted.FAULTY[name][1] in fault.what
    assert read_files(Path(fault.input)) != {"file": planted.HONEST}
    assert (found.inputs, found.loads, found.refusals) == (2, 1, 0)


def test_a_sound_parser_has_no_faults(tmp_path: Path) -> None:
    found = _run("sound", tmp_path, inputs=500)
    assert found.faults == ()
    assert found.inputs == found.loads + found.refusals == 500
    assert min(found.loads, found.refusals) > 20
    assert 0 < found.slowest < runner.LIMIT
    assert found.memory < 1 << 28


def test_inputs_that_follow_an_abort_are_tried(tmp_path: Path) -> None:
    found = _run("aborts", tmp_path, inputs=4)
    assert (found.inputs, found.loads, len(found.faults)) == (4, 1, 3)


def test_targets_share_a_process_and_one_fault_costs_no_other_target(tmp_path: Path) -> None:
    efforts = {
        f"fuzz.planted:{n}": Effort(inputs=3) for n in ("sound", "aborts", "leaks_key_error")
    }
    found = runner.fuzz_all(efforts, tmp_path)
    assert [report.inputs for report in found.values()] == [3, 3, 3]
    assert [len(report.faults) for report in found.values()] == [0, 2, 1]


def test_changes_are_the_same_for_the_same_seed_and_stay_small() -> None:
    files = {"a.json": b'{"a": [1, "b", null]}', "b": bytes(range(256)) * 40}

    def changes(seed: int) -> list[object]:
        rng = random.Random(seed)
        return [mutate(files, [files], rng) for _ in range(300)]

    assert changes(1) == changes(1)
    assert changes(1) != changes(2)
    found = changes(1)
    assert sum(one != files for one in found) > 280
    texts = [x for one in found for x in one.values() if isinstance(x, bytes)]  # type: ignore[attr-defined]
    assert max(map(len, texts)) <= LARGEST
    for wanted in (b"9" * 1000, b"[" * 80, b"../", b"\\ud800"):
        assert any(wanted in text for text in texts), wanted


def test_links_are_written_and_honest_files_read_again(tmp_path: Path) -> None:
    write_files({"a/b": b"x", "c": Link("a/b")}, tmp_path)
    assert (tmp_path / "c").is_symlink()
    assert read_files(tmp_path) == {"a/b": b"x", "c": b"x"}
