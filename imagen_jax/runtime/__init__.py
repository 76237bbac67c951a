"""A parent process that starts training, watches it and starts it again; it never imports jax.

| file | holds |
|---|---|
| `supervisor.py` | which ends are crashes, when to start again; the last step, in a file |
| `child_process.py` | one child: its output live and kept, signals passed on |
| `peer_errors.py` | what jax says when another process of the run is gone, in one sentence |
"""
