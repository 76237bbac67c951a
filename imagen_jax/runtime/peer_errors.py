"""Errors of jax when another process of a run is gone, in one sentence.

A closed connection is an error in Python (gloo, on CPU). Else jax's client ends the process from
C++ (LOG(FATAL), so SIGABRT): no Python of that process can say anything any more, and a callback in
Python is no way out (std::bad_cast, jaxlib 0.10.2). Its parent reads the words that are left.
"""

import re

FATAL = "JAX distributed service detected fatal errors"
_BROKEN = re.compile(r"Gloo .*failed: .*(Connection|Timed out|timeout|Broken pipe)")
_SILENT = re.compile(r"unhealthy \(stopped sending heartbeats\):\s((?:\S*\d+\n)+)")
_RESTARTED = re.compile(r"(\d+) unexpectedly tried to connect with a different incarnation")


def describe_lost_peer(output: str) -> str | None:
    """Name the lost process, from the end of a stderr; None for an end of another cause."""
    if FATAL in output:
        who = _who(output[output.rindex(FATAL) :], output)
    elif _BROKEN.search(output[output.rfind("Traceback (most recent") :]):
        who = "another process closed its connection (its own log says why)"
    else:
        return None
    return f"{who}, and this one cannot go on alone"


def _who(last: str, output: str) -> str:
    if silent := _SILENT.search(output):
        numbers = [re.findall(r"\d+", name)[-1] for name in silent[1].split()]
        gone = "process " + numbers[0] if len(numbers) == 1 else "processes " + ", ".join(numbers)
        return f"{gone} gave no sign of life any more"
    if restarted := _RESTARTED.search(output):
        return f"process {restarted[1]} ended and was started again"
    if "RegisterTask" in last:
        return "the other processes were not found in time"
    if "Failed to send RPC to coordination service" in last:
        return "process 0, the coordinator, is gone"
    return "another process is gone (its own log says why)"
