"""A parent process that starts training, watches it and starts it again; it never imports jax.

| file | holds |
|---|---|
| `supervisor.py` | the rule: which ends are crashes, and when to start again |
| `child_process.py` | one child: its output live and kept, signals passed on |
| `peer_errors.py` | what jax says when another process of the run is gone, in one sentence |
| `reached.py` | the last step, in a file that outlives the process that writes it |
"""
