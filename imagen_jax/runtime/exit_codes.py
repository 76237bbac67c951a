"""Exit codes of `imagen`: what a script or supervisor outside may rely on.

0 is success; a process that a signal ends has 128 plus the signal's number. The three that are no
convention of shells are those of sysexits.h.
"""

REFUSED = 1
"""The input was refused, with one sentence: the same command again cannot do better."""
BAD_USAGE = 2
"""The command line was refused."""
LOST = 69
"""Another process of the same run is gone, so this one could not go on (EX_UNAVAILABLE)."""
CRASHED = 70
"""An unforeseen error, with its traceback (EX_SOFTWARE)."""
PREEMPTED = 75
"""The machine is going away; the run is saved and the same command resumes it (EX_TEMPFAIL)."""
INTERRUPTED = 130
"""Somebody pressed Ctrl-C (128 + SIGINT); what could be saved is, and said."""


UNREAD = 141
"""The reader of our output has ended, as in `imagen ... | head` (128 + SIGPIPE)."""


class Preempted(Exception):
    """The machine is about to be taken away, and what was done is saved: ends as PREEMPTED."""
