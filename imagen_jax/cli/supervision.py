"""Commands of several processes, each in a child: a dead peer aborts it before Python can tell."""

import os
import sys
from collections.abc import Sequence

from imagen_jax import config
from imagen_jax.parallel import distributed
from imagen_jax.runtime.supervisor import STEP_FILE, Supervisor


def needs_child(processes: config.Processes) -> bool:
    """True in a process that joins others, unless it is the child."""
    return distributed.is_multiprocess(processes) and STEP_FILE not in os.environ


def run_child(command: str, argv: Sequence[str], *, resumes: str) -> None:
    """Run `imagen COMMAND` in a child, and end as it does; `resumes` as that of `Supervisor`."""
    from imagen_jax.runtime.child_process import imagen_command

    supervisor = Supervisor(
        imagen_command(command, *argv),
        None,
        name=f"imagen {command}",
        max_restarts=0,
        resumes=resumes,
    )
    if code := supervisor.run():
        sys.exit(code)
