"""The rule by itself: each state to one decision."""

from dataclasses import replace

import pytest

from imagen_jax.cloud.observe import AttemptSnapshot, HeartbeatTracker, WorkerReport
from imagen_jax.cloud.restart_policy import COMING, GOING, LOST, decide
from imagen_jax.cloud.run_record import Attempt, LaunchSpec, Limits, RunRecord, from_json, to_json
from imagen_jax.cloud.tpu_slice import Slice
from imagen_jax.runtime import exit_codes

RUN = RunRecord(
    job=LaunchSpec(
        run_id="a", workdir="gs://bucket/a", commands=(("imagen", "train", "b"),), code="c"
    ),
    wanted=Slice(accelerator="v6e-16", zone="us-east5-a", slices=2),
    limits=Limits(until=1000.0, max_restarts=3, silence=100, setup=200),
    attempts=(Attempt(number=1, made=0.0),),
)
UP = AttemptSnapshot(queued="ACTIVE", nodes=("READY", "READY"), workers=2, active=10.0)


def said(*reports: dict) -> tuple[WorkerReport, ...]:
    """Of as many workers."""
    plain = {"of": len(reports), "beat": 1, "phase": "running"}
    return tuple(WorkerReport(**{**plain, "worker": i, **r}) for i, r in enumerate(reports))


def ended(code: int, **more) -> dict:
    return {"phase": "ended", "code": code, **more}


@pytest.mark.parametrize("state", [*COMING, *GOING])
def test_what_is_on_its_way_or_going_is_waited_for(state: str) -> None:
    assert decide(AttemptSnapshot(queued=state), RUN, now=0.0).do == "wait"


@pytest.mark.parametrize("state", [*LOST, None])
def test_what_is_lost_is_made_again(state: str | None) -> None:
    assert decide(AttemptSnapshot(queued=state), RUN, now=0.0).do == "again"


@pytest.mark.parametrize("state", ["PREEMPTED", "TERMINATED", "STOPPED", "DELETING", "MISSING"])
def test_one_slice_that_is_gone_is_enough(state: str) -> None:
    seen = replace(UP, nodes=("READY", state), reports=said({}, {}))
    assert decide(seen, RUN, now=0.0).do == "again"


@pytest.mark.parametrize("state", ["READY", "REPAIRING"])
def test_living_slices_are_left_alone(state: str) -> None:
    assert decide(replace(UP, nodes=("READY", state)), RUN, now=0.0).do == "wait"


@pytest.mark.parametrize("queued", ["ACTIVE", "SUSPENDED", "FAILED", None])
def test_a_run_that_ended_well_is_done_whatever_google_says(queued: str | None) -> None:
    seen = replace(UP, queued=queued, reports=said(ended(0), ended(0)))
    assert decide(seen, RUN, now=2000.0).do == "done"
    one = replace(seen, reports=said(ended(0), {}))
    assert decide(one, RUN, now=0.0).do != "done"


@pytest.mark.parametrize(
    ("codes", "do", "culprit"),
    [
        ((exit_codes.PREEMPTED, exit_codes.PREEMPTED), "again", None),
        ((exit_codes.LOST, 143), "again", None),
        ((exit_codes.LOST, 137), "again", 1),  # killed, for memory say: the program's fault
        ((exit_codes.LOST, exit_codes.CRASHED), "again", 1),
        ((0, exit_codes.CRASHED), "again", 1),
    ],
)
def test_whose_fault_it_was(codes: tuple[int, int], do: str, culprit: int | None) -> None:
    decision = decide(replace(UP, reports=said(*map(ended, codes))), RUN, now=0.0)
    assert decision.do == do
    assert (decision.crash.worker if decision.crash else None) == culprit


def test_a_worker_that_lost_another_waits_for_the_others_word() -> None:
    lost = ended(exit_codes.LOST)
    for silent, do in ((10.0, "wait"), (95.0, "again")):
        seen = replace(UP, reports=said(lost, {"silent": silent}))
        assert decide(seen, RUN, now=0.0).do == do


def test_a_crash_is_not_waited_with() -> None:
    """The others may hang in a collective; they pay by the second."""
    seen = replace(UP, reports=said({"silent": 10.0}, ended(exit_codes.CRASHED)))
    assert decide(seen, RUN, now=0.0).do == "again"


@pytest.mark.parametrize(("before", "do"), [("step 5 of a", "stop"), ("step 4 of a", "again")])
def test_a_second_crash_at_the_same_step_ends_it(before: str, do: str) -> None:
    crashed = Attempt(number=1, made=0.0, ended="x", granted=True, code=70, step=before)
    taken = Attempt(number=2, made=0.0, ended="x", granted=True)
    run = replace(RUN, attempts=(crashed, taken, Attempt(number=3, made=0.0)))
    seen = replace(UP, reports=said(ended(70, step="step 5 of a"), ended(exit_codes.LOST)))
    decision = decide(seen, run, now=0.0)
    assert decision.do == do
    assert decision.code == (70 if do == "stop" else 0)


def test_refusals_count_before_the_first_step_only() -> None:
    seen = replace(UP, reports=said(ended(1), ended(1)))
    assert decide(seen, RUN, now=0.0).do == "stop"
    later = replace(UP, reports=said(ended(1, step="step 1 of a"), ended(1)))
    assert decide(replace(later, reports=later.reports[:1]), RUN, now=0.0).do == "again"


@pytest.mark.parametrize(("silent", "do"), [(99.0, "wait"), (100.0, "again")])
def test_silence(silent: float, do: str) -> None:
    assert decide(replace(UP, reports=said({}, {"silent": silent})), RUN, now=0.0).do == do


@pytest.mark.parametrize(("active", "do"), [(199.0, "wait"), (200.0, "again")])
@pytest.mark.parametrize("heard", [0, 1])
def test_setting_up(active: float, do: str, heard: int) -> None:
    reports = said({"of": 2}, {})[:heard]
    assert decide(replace(UP, active=active, reports=reports), RUN, now=0.0).do == do


def test_costs_are_bounded() -> None:
    waiting = AttemptSnapshot(queued="WAITING_FOR_RESOURCES")
    assert decide(waiting, RUN, now=1000.0).do == "wait"
    late = decide(waiting, RUN, now=1001.0)
    assert (late.do, late.code) == ("stop", exit_codes.PREEMPTED)
    for number, do in ((3, "again"), (4, "stop")):
        attempts = tuple(Attempt(number=i, made=0.0, granted=True) for i in range(1, number + 1))
        assert (
            decide(AttemptSnapshot(queued=None), replace(RUN, attempts=attempts), now=0.0).do == do
        )


def test_beats_are_timed_by_our_own_clock() -> None:
    now = [0.0]
    pulse = HeartbeatTracker(lambda: now[0])
    heard = []
    for beat in (1, 1, 2, 2, 1):  # the machine began anew: the beat is another one
        heard.append(pulse.silent(1, 0, beat))
        now[0] += 5.0
    assert heard == [0.0, 5.0, 0.0, 5.0, 0.0]
    assert pulse.silent(2, 0, 1) == 0.0  # another attempt's


def test_the_record_survives_the_bucket() -> None:
    assert from_json(to_json(RUN), where="x") == RUN
    for text in ("{", '{"format": 1}', "[]"):
        with pytest.raises(ValueError, match="x is no record of a launch"):
            from_json(text, where="x")
    with pytest.raises(ValueError, match="a newer imagen_jax"):
        from_json(to_json(RUN).replace('"format": 1', '"format": 2'), where="x")
