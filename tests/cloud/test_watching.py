"""The watcher against a cloud that grants late, preempts, suspends, fails, hangs, loses workers."""

import dataclasses
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imagen_jax.cloud import gcloud, lease, watcher
from imagen_jax.cloud.gcloud import Gcloud
from imagen_jax.cloud.run_record import LaunchSpec, Limits, RunRecord
from imagen_jax.cloud.tpu_slice import Slice
from imagen_jax.runtime import exit_codes
from imagen_jax.runtime.lease import Lease
from imagen_jax.runtime.lease_holder import Holder

pytestmark = pytest.mark.cloud  # processes of workers, machines and watchers

STARTUP = Path(__file__).parents[2] / "launch" / "startup.sh"
UP = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
WORKDIR = "gs://bucket/runs/mine"
LEASE = f"{WORKDIR}/launch/{lease.FILE}"


def run(**limits) -> RunRecord:
    job = LaunchSpec(
        run_id="mine", workdir=WORKDIR, commands=(("imagen", "train", "tiny"),), code="c"
    )
    wanted = Slice(accelerator="v5litepod-8", zone="us-west4-a", provisioning="spot")
    given = {"until": time.time() + 3600, **limits}
    return RunRecord(job=job, wanted=wanted, limits=Limits(**given))


def make_watcher(given: RunRecord) -> watcher.Watcher:
    quick = Gcloud(sleep=lambda _: None)
    watcher.write_record(quick, given)
    return watcher.Watcher(
        quick, given, STARTUP, every=0.1, sleep=lambda s: time.sleep(min(s, 0.1))
    )


def watch(cloud, **limits) -> int:
    """The exit code; nothing that costs money is left, whatever happened."""
    code = make_watcher(run(**limits)).watch()
    assert cloud.left() == []
    deadline = time.monotonic() + 5
    while cloud.processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert cloud.processes() == []
    assert cloud.record()["finished"]
    return code


def ends(cloud) -> list[str]:
    return [attempt["ended"] for attempt in cloud.record()["attempts"]]


def test_a_slice_that_is_granted_late_runs_to_the_end(cloud, capfd) -> None:
    cloud.plan([*["WAITING_FOR_RESOURCES"] * 4, "PROVISIONING", "ACTIVE"], workers=2, does="exit 0")
    assert watch(cloud) == 0
    assert ends(cloud) == ["the command ended well on every worker"]
    said = capfd.readouterr().err
    assert said.count("WAITING_FOR_RESOURCES") == 1  # what does not change is said once
    assert "creating mine-1: v5litepod-8 in us-west4-a" in said


@pytest.mark.parametrize("event", ["preempt", "node preempt", "SUSPENDED", "vanish"])
def test_what_is_taken_away_is_created_again(cloud, event: str) -> None:
    cloud.plan([*UP, "ACTIVE", event], UP, workers=2, does="step 3; wait\nstep 9; exit 0")
    assert watch(cloud) == 0
    assert len(ends(cloud)) == 2
    # Deleted before its successor is made: a preempted slice would block it.
    order = [a for a in cloud.calls("queued-resources") if a[3] in ("create", "delete")]
    assert [(a[3], a[4]) for a in order] == [
        ("create", "mine-1"),
        ("delete", "mine-1"),
        ("create", "mine-2"),
        ("delete", "mine-2"),
    ]
    assert all("--force" in a for a in order if a[3] == "delete")


def test_the_run_keeps_its_name_place_and_code(cloud) -> None:
    cloud.plan([*UP, "preempt"], UP, does="wait\nexit 0")
    assert watch(cloud) == 0
    first, second = (
        {flag.partition("=")[0]: flag for flag in call if flag.startswith("--")}
        for call in cloud.calls("queued-resources create")
    )
    changed = {flag for flag in first if first[flag] != second[flag]}
    assert changed <= {"--node-id", "--metadata", "--valid-until-duration"}
    assert (
        first["--metadata"].replace("imagen-attempt=1", "imagen-attempt=2") == second["--metadata"]
    )


@pytest.mark.parametrize("event", ["kill", "lose"])
def test_machines_that_are_gone_while_google_says_ready(cloud, event: str) -> None:
    cloud.plan([*UP, "ACTIVE", event, "ACTIVE"], UP, workers=2, does="step 3; wait\nexit 0")
    assert watch(cloud, silence=1) == 0
    assert "gave no sign of life" in ends(cloud)[0]


def test_a_worker_that_never_comes_is_not_waited_for_for_ever(cloud) -> None:
    cloud.plan([*UP, "lose", "ACTIVE"], UP, workers=2, worker=["sleep", "3600"])
    assert watch(cloud, setup=1, max_restarts=1) == exit_codes.PREEMPTED
    assert "worker 0 of 2 was not heard of" in ends(cloud)[1]
    assert "all 1 restarts are used up" in ends(cloud)[1]


def test_two_crashes_at_one_step_end_it_with_the_log(cloud, capfd) -> None:
    cloud.plan(UP, does="step 3; exit 70\nstep 7; exit 70\nstep 7; exit 70\nexit 0")
    assert watch(cloud) == 70
    assert len(ends(cloud)) == 3
    assert "another start would not help" in ends(cloud)[2]
    said = capfd.readouterr().err
    assert "gs://bucket/runs/mine/launch/3/worker-0.log\nso sorry" in said


def test_a_preemption_between_two_crashes_does_not_hide_them(cloud) -> None:
    cloud.plan(UP, [*UP, "preempt"], UP, does="step 7; exit 70\nstep 9; wait\nstep 7; exit 137")
    assert watch(cloud) == 137
    assert len(ends(cloud)) == 3


@pytest.mark.parametrize("code", [exit_codes.REFUSED, exit_codes.BAD_USAGE])
def test_refused_input_is_final(cloud, code: int) -> None:
    cloud.plan(UP, does=f"exit {code}\nexit 0")
    assert watch(cloud) == code
    assert "refused its input" in ends(cloud)[0]


def test_the_number_of_restarts_is_kept(cloud) -> None:
    cloud.plan([*UP, "preempt"], does="step 1; wait")
    assert watch(cloud, max_restarts=2) == exit_codes.PREEMPTED
    assert len(cloud.calls("queued-resources create")) == 3


def test_the_deadline_ends_what_still_waits(cloud) -> None:
    cloud.plan(["WAITING_FOR_RESOURCES"])
    assert watch(cloud, until=time.time() + 1) == exit_codes.PREEMPTED
    assert ends(cloud) == ["the deadline has passed"]


def test_a_resource_that_fails_twice_in_a_row_ends_it(cloud) -> None:
    cloud.plan(["CREATING", "FAILED"])
    assert watch(cloud) == exit_codes.REFUSED
    assert len(ends(cloud)) == 2
    assert "no more capacity in the zone" in ends(cloud)[1]


def test_what_fails_in_passing_is_tried_again(cloud) -> None:
    unavailable = "UNAVAILABLE: The service is currently unavailable."
    errors = {name: [unavailable, unavailable] for name in ("create", "describe", "delete", "cat")}
    cloud.plan(UP, does="exit 0", errors=errors)
    assert watch(cloud) == 0
    assert len(ends(cloud)) == 1


def test_a_look_that_fails_for_good_is_left_out(cloud, capfd) -> None:
    cloud.plan(UP, does="exit 0", errors={"describe": ["PERMISSION_DENIED: for a moment"]})
    assert watch(cloud) == 0
    assert "no look this time" in capfd.readouterr().err


def test_an_answer_that_was_lost_makes_no_second_resource(cloud, monkeypatch) -> None:
    """The first `create` comes through although gcloud hangs until it is ended."""
    cloud.plan(UP, does="exit 0", errors={"create": ["no answer"]})
    monkeypatch.setattr(gcloud, "PATIENCE", 1)
    assert watch(cloud) == 0
    assert len(cloud.calls("queued-resources create")) == 2
    assert len(ends(cloud)) == 1


def test_a_resource_that_is_refused_is_said_and_noted(cloud) -> None:
    cloud.plan(UP, errors={"create": ["PERMISSION_DENIED: Permission 'tpu.nodes.create' denied"]})
    with pytest.raises(gcloud.GcloudError, match=r"tpu\.nodes\.create"):
        watch(cloud)
    assert cloud.left() == []
    assert "PERMISSION_DENIED" in cloud.record()["finished"]


def test_what_cannot_be_deleted_is_said_with_the_command(cloud) -> None:
    cloud.plan(UP, does="exit 0", errors={"delete": ["PERMISSION_DENIED: no"] * 99})
    with pytest.raises(
        gcloud.GcloudError, match=r"may cost money.*: gcloud compute tpus .* --force"
    ):
        make_watcher(run()).watch()
    assert cloud.left() == ["mine-1"]


def test_what_is_being_provisioned_is_deleted_as_soon_as_google_lets_us(cloud) -> None:
    errors = {"delete": ["FAILED_PRECONDITION: it is being provisioned"] * 3}
    cloud.plan(UP, does="exit 0", errors=errors)
    assert watch(cloud) == 0


def test_a_successor_that_is_refused_for_a_while_is_tried_again(cloud) -> None:
    quota = "RESOURCE_EXHAUSTED: Quota limit 'TPUV5sPreemptibleLitepod' has been exceeded"
    cloud.plan(
        [*UP, "preempt"], UP, does="wait\nwait\nwait\nexit 0", errors={"create": ["", quota, quota]}
    )
    assert watch(cloud) == 0
    assert [quota in end for end in ends(cloud)] == [False, True, True, False]


def test_the_deadline_holds_when_nothing_can_be_seen(cloud) -> None:
    """Deleting asks whether it is gone, so that the last look has to be answered."""
    cloud.plan(UP, errors={"cat": ["", *["PERMISSION_DENIED: no"] * 99]})
    assert watch(cloud, until=time.time() + 1) == exit_codes.PREEMPTED
    assert "the deadline has passed; gcloud storage cat" in ends(cloud)[0]


def test_what_somebody_stopped_is_not_created_again(cloud) -> None:
    cloud.plan([*UP, *["ACTIVE"] * 9])
    mine = make_watcher(run())

    def stop(_: float) -> None:  # as `imagen launch stop` does, elsewhere
        watcher.write_record(Gcloud(), watcher.mark_stopped(mine.run))
        watcher.delete_resources(Gcloud(), mine.run.wanted, "mine-1")

    mine.sleep = stop
    assert mine.watch() == exit_codes.PREEMPTED
    assert len(cloud.calls("queued-resources create")) == 1
    assert "stopped" in cloud.record()["finished"]


def test_another_watcher_goes_on_where_one_was_ended(cloud) -> None:
    cloud.plan([*UP, *["ACTIVE"] * 3], does="step 3; exit 0")
    assert make_watcher(run()).begin() == 0
    found = watcher.read_record(Gcloud(), WORKDIR)
    assert make_watcher(found).watch() == 0
    assert len(cloud.calls("queued-resources create")) == 1
    assert cloud.left() == []
    assert (
        make_watcher(watcher.read_record(Gcloud(), WORKDIR)).watch() == 0
    )  # it has ended: nothing is made
    assert len(cloud.calls("queued-resources create")) == 1


def elsewhere(clock: Callable[[], float] = time.time, **other) -> Lease:
    """Another watcher's."""
    cloud, quick = Gcloud(sleep=lambda _: None), {"clock": clock, "sleep": lambda _: None}
    found = lease.make_lease(cloud, LEASE, **quick)
    told = {"host": "laptop", "process": 7, "machine": "that of the laptop", **other}
    found.holder = dataclasses.replace(found.holder, **told)
    return found


def test_a_second_watcher_is_refused_while_another_looks(cloud) -> None:
    cloud.plan(UP, does="exit 0")
    other = elsewhere()
    other.take()
    with pytest.raises(ValueError, match=r"process 7 of laptop .* since .* s ago: .*--take-over"):
        make_watcher(run()).watch()
    assert cloud.calls("queued-resources") == []
    other.give_back()
    assert watch(cloud) == 0


def test_a_watcher_whose_run_was_taken_over_leaves_it_alone(cloud) -> None:
    cloud.plan([*UP, "ACTIVE", "preempt"], does="wait")
    first = make_watcher(run())
    looks = []

    def sleep(_: float) -> None:
        looks.append(0)
        if len(looks) == 3:
            elsewhere().take(over=True)

    first.sleep = sleep
    with pytest.raises(ValueError, match=r"process 7 of laptop .* has taken it over"):
        first.watch()
    assert cloud.left() == ["mine-1"]  # the other's to delete
    assert cloud.calls("queued-resources delete") == []
    with pytest.raises(
        ValueError, match="process 7 of laptop"
    ):  # nor was the other's watch given back
        make_watcher(first.run).watch()


def test_a_watch_goes_on_where_a_dead_one_left_it(cloud) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    cloud.plan(UP, does="exit 0")
    here = Holder.here("imagen launch watch")
    elsewhere(host=here.host, machine=here.machine, process=ended.pid).take()
    assert watch(cloud) == 0


def test_a_watch_without_a_sign_of_life_for_long_is_free(cloud) -> None:
    cloud.plan(UP, does="exit 0")
    elsewhere(lambda: time.time() - lease.STALE).take()
    assert watch(cloud) == 0
    assert "laptop" not in cloud.bucket.objects[LEASE.removeprefix("gs://bucket/")][1].decode()


def test_signs_of_life_are_not_written_at_every_look(cloud) -> None:
    cloud.plan([])
    now = [0.0]
    mine = watcher.Watcher(Gcloud(), run(), STARTUP, clock=lambda: now[0])
    mine._lease.take()
    for seconds in (10.0, 50.0, lease.RENEWED, lease.RENEWED + 10):
        now[0] = seconds
        mine._hold()
    assert len(cloud.calls("storage cp")) == 2
    assert json.loads(cloud.bucket.objects["runs/mine/launch/watcher.json"][1])["at"] == 60
