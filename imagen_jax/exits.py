"""How a command ends: exit codes that a supervisor can act on. 0 is success."""

REFUSED = 1  # bad input, told in one sentence
PREEMPTED = 75  # EX_TEMPFAIL: asked to stop, all is saved, the same command goes on from there


class Preempted(Exception):
    """The machine is about to be taken away, and what was done is saved."""
