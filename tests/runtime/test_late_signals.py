"""Signals while the main thread is in a library, as it is while XLA compiles."""

import os
import signal
import subprocess
import sys
import time

import pytest

from imagen_jax.runtime import exit_codes, late_signals, preemption

IN_PYTHON = "while True: time.sleep(0.01)"
IN_A_LIBRARY = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'x', b'y', 10**9)"  # hours
# What a shell starts in the background ignores SIGINT.
HEEDED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
COMMAND = """
import sys, time, types
from imagen_jax import cli
from imagen_jax.runtime import late_signals
late_signals.GRACE = 0.5
def run(arguments):
    print("begun", flush=True)
    WAIT
sys.modules["imagen_jax.cli.plan"] = types.SimpleNamespace(run=run)
sys.argv = ["imagen", "plan", "x"]
cli.main()
"""
TRAINING = """
import sys, time
from imagen_jax.runtime import exit_codes, late_signals, preemption
late_signals.GRACE = 0.5
def run(arguments):
    with (
        preemption.watch_for_preemption(at_once="before its first step") as watch,
        late_signals.end_late("before its first step", patience=0.5) as late,
    ):
        if STEPS:
            watch.at_once = ""
            late.ignore_sigterm()
        print("begun", flush=True)
        if STEPS:
            while not watch.stops_after(1):
                time.sleep(0.01)
            time.sleep(1.5)  # as a save may take
            raise exit_codes.Preempted("saved")
        WAIT
import types
from imagen_jax import cli
sys.modules["imagen_jax.cli.train"] = types.SimpleNamespace(run=run)
sys.argv = ["imagen", "train", "x"]
cli.main()
"""


def _run(program: str, *signals: int, wait: str = "", steps: bool = False) -> tuple[int, str]:
    """The exit code and the last words of a program that gets signals once it has begun."""
    program = HEEDED + program.replace("WAIT", wait).replace("STEPS", str(steps))
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        for number in signals:
            time.sleep(0.2)
            process.send_signal(number)
        _, said = process.communicate(timeout=20)
    return process.returncode, said


@pytest.mark.parametrize("wait", [IN_PYTHON, IN_A_LIBRARY], ids=["Python", "library"])
def test_several_interrupts_end_any_command(wait: str) -> None:
    code, said = _run(COMMAND, signal.SIGINT, signal.SIGINT, signal.SIGINT, wait=wait)
    assert code in (exit_codes.INTERRUPTED, -signal.SIGINT)  # of Python itself, as it ends
    assert "imagen" in said


@pytest.mark.parametrize("wait", [IN_PYTHON, IN_A_LIBRARY], ids=["Python", "library"])
def test_sigterm_before_the_first_step_ends_at_once(wait: str) -> None:
    code, said = _run(TRAINING, signal.SIGTERM, wait=wait)
    assert code == exit_codes.PREEMPTED
    assert said.strip().endswith("before its first step")


def test_an_interrupt_before_the_first_step_ends_at_once() -> None:
    code, said = _run(TRAINING, signal.SIGINT, wait=IN_PYTHON)
    assert code == exit_codes.INTERRUPTED
    assert "saving" not in said
    assert said.strip().endswith("before its first step")


def test_sigterm_after_the_first_step_waits_for_the_save() -> None:
    code, said = _run(TRAINING, signal.SIGTERM, signal.SIGTERM, steps=True)
    assert code == exit_codes.PREEMPTED
    assert said.strip().endswith("saved")


def test_a_block_that_ends_is_not_ended_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_signals.os, "_exit", lambda code: pytest.fail(f"ended with {code}"))
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with late_signals.end_late("x", patience=0.1):
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        with late_signals.end_late("x", patience=0.1), late_signals.pass_signals_on():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
    finally:
        signal.signal(signal.SIGTERM, before)


def _asked(at_once: str) -> None:
    with preemption.watch_for_preemption(at_once=at_once):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)


def test_a_signal_is_told_at_once_alone_while_nothing_is_done() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(exit_codes.Preempted, match="nothing was done"):
        _asked("nothing was done")
    signal.signal(signal.SIGTERM, before)
    with preemption.watch_for_preemption(at_once="nothing was done") as watch:
        watch.at_once = ""
        os.kill(os.getpid(), signal.SIGTERM)
        assert watch.stops_after(1)
    signal.signal(signal.SIGTERM, before)
