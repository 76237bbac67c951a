"""The life of a process: a parent that starts training again, and requests to stop.

The parent, `supervisor.py` and what it imports, never imports jax.

| file | holds |
|---|---|
| `exit_codes.py` | how processes end |
| `supervisor.py` | which ends are crashes, when to start again; the last step, in a file |
| `child_process.py` | one child: its output live and kept, signals passed on |
| `peer_errors.py` | what jax says when another process of the run is gone, in one sentence |
| `preemption.py` | requests to stop, between two steps of training or two batches of sampling |
| `watchdog.py` | processes that stand still |
| `lease.py`, `lease_file.py` | one process at a time in a folder, which a file there names |
| `lease_holder.py` | a process, told from every other |
"""
