"""A plan's figures as people read them."""

import dataclasses
import json
from pathlib import Path

import pytest

from imagen_jax.cli.plan import read_plans
from imagen_jax.plan import compile, report, roofline, topology

ROOT = Path(__file__).parent.parent.parent


def _planned(*, seconds: float | None = 0.2, notes: tuple[str, ...] = ()) -> compile.CompiledPlan:
    memory = roofline.MemoryUse(
        arguments=2 * 2**30, outputs=0, temporaries=5 * 2**30, capacity=16 * 2**30
    )
    found = roofline.Estimate(
        memory=memory,
        flops=3e13,
        bytes_accessed=1e11,
        traffic={},
        roofline=roofline.Roofline(compute=0.15, memory=0.12, network=0.01),
        seconds=seconds,
        refused="" if seconds else "the program has a loop",
    )
    return compile.CompiledPlan(
        what="train",
        name="base64",
        mesh={"data": 2, "fsdp": 2, "spatial": 1},
        images=32,
        local_images=8.0,
        parameters=1_500_000,
        flops=4e12,
        estimate=found,
        remat="block",
        notes=notes,
    )


def _document(planned: compile.CompiledPlan, *, slices: int = 1) -> dict:
    chip, _ = topology.parse_topology("v5e:2x2")
    slice_ = topology.Topology(
        name="v5e:2x2", chip=chip, chips=4 * slices, slices=slices, devices=[None] * 4 * slices
    )
    return report.plan_document(planned, slice_, calls=864_000, price=1.5)


def test_a_plan_is_told_in_lines() -> None:
    lines = report.plan_text(_document(_planned(notes=("mind the batch",)))).splitlines()
    told = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}
    assert told["program"] == "train base64, 1.5 M parameters"
    assert told["devices"] == "v5e:2x2, 4 chips, data 2 x fsdp 2"
    assert told["batch"] == "32, 8 at once on a device, remat block"
    assert told["memory"].startswith("7.00 of 16 GiB a device: fits")
    assert told["traffic"] == "none"
    assert told["roofline"] == "150.0 ms, compute binds (compute 150.0, memory 120.0, network 10.0)"
    # 32 images in 0.2 s on 4 chips; 40 images/s a chip of 4 TFLOP are 160 of 197 TFLOP/s
    assert told["estimate"] == (
        "200.0 ms by the compiler's model, 40.0 images/s a chip, MFU 81.2 %"
    )
    # 864,000 steps of 0.2 s are two days; 48 hours of 4 chips at 1.5 dollars
    assert told["schedule"] == "864,000 steps, estimated 2.0 days, 288 dollars"
    assert told["note"] == "mind the batch"


def test_a_refused_time_leaves_no_figure_that_rests_on_it() -> None:
    figures = _document(_planned(seconds=None))
    assert not any(name.startswith("estimated_") and figures[name] for name in figures)
    assert "refused: the program has a loop" in report.plan_text(figures)
    row = report.plan_table([figures]).splitlines()[-1]
    assert row.endswith("| compute, 0.150 s | - | - | - | - |")


def test_a_samplers_steps_are_told() -> None:
    document = _document(dataclasses.replace(_planned(), what="sample", steps=20))
    assert (
        report.plan_text(document).splitlines()[0].startswith("program   sample base64, 20 steps")
    )
    assert "| sample `base64`, 20 steps |" in report.plan_table([document])
    assert "steps" not in report.plan_table([_document(_planned())])


def test_a_table_has_a_row_a_plan() -> None:
    rows = report.plan_table([_document(_planned()), _document(_planned(), slices=2)]).splitlines()
    assert len(rows) == 4
    assert {row.count("|") for row in rows} == {12}
    assert rows[2] == (
        "| train `base64` | v5e:2x2 | 32 | data 2 x fsdp 2 | block | 7.0 of 16 | compute, 0.150 s "
        "| 0.200 s | 40 | 81.2% | 2.0 |"
    )
    assert "| v5e:2x2 x 2 |" in rows[3]


def test_what_json_printed_can_be_read(tmp_path: Path) -> None:
    document = _document(_planned())
    file = tmp_path / "plan.json"
    file.write_text(report.plans_to_json([document], versions={"jax": "1"}, date="2026-01-01"))
    assert read_plans(file) == [document]
    assert json.loads(file.read_text())["date"] == "2026-01-01"


@pytest.mark.parametrize(
    "content",
    [
        *(None, "", "[]", "{}", "[" * 10**5, '{"plans": {}}', '{"plans": [3]}', '{"plans": [{}]}'),
        '{"plans": [{"what": "\\u001b[2J"}]}',
    ],
)
def test_a_file_without_plans_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "other.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json holds no plan"):
        read_plans(file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("what", "train\x1b[2J"), ("what", None), ("name", 3), ("topology", "a\nb")),
        *(("mesh", []), ("mesh", {"data": "2"}), ("mesh", {"\x1b": 2}), ("slices", "2")),
        *(("hbm_per_device", {}), ("hbm_per_device", None), ("estimated_mfu", "x")),
        *(("roofline_seconds", {"binds": "what"}), ("roofline_seconds", {"binds": "compute"})),
        *(("remat", 3), ("images", 2.5), ("estimated_days", [])),
    ],
)
def test_a_plan_of_other_kinds_is_refused(tmp_path: Path, name: str, value: object) -> None:
    file = tmp_path / "other.json"
    text = report.plans_to_json([_document(_planned()) | {name: value}], versions={}, date="")
    file.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json holds no plan \(plans\[0\]"):
        read_plans(file)


def test_the_page_shows_the_plans_that_are_kept() -> None:
    page = (ROOT / "docs" / "benchmarks" / "plans.md").read_text()
    files = sorted((ROOT / "docs" / "plans").glob("*.json"))
    plans = [plan for file in files for plan in read_plans(file)]
    assert len(plans) > 10
    assert report.plan_table(plans) in page
    versions = json.loads(files[0].read_text())["versions"]
    assert f"jax {versions['jax']}, libtpu {versions['libtpu']}" in page
