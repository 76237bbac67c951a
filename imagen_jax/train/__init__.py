"""Training one stage.

| file | holds |
|---|---|
| `state.py` | `TrainState`, initialised under its shardings |
| `init_from.py` | another run's weights to begin with |
| `optim.py` | the optax chain |
| `ema.py` | the moving average of the parameters |
| `step.py` | `train_step`, the page a researcher edits |
| `sharded_step.py` | the step jitted with its shardings, for the loop, plan and benchmark |
| `loop.py` | step, log, save, resume |
| `run.py` | what a run consists of: its step, batches, log and checkpoints |
| `checkpointing.py` | when a checkpoint is made, and what happens when that fails |
| `resolve.py` | the run's config as it runs: its mesh, micro-batches and encoder |
| `resume_checks.py` | options that differ from those of the run that is resumed |
| `run_lease.py` | one trainer at a time in a run's folder |
| `logger.py` | everything that a run reports, together |
| `anomalies.py` | steps that were skipped, losses that jump |
| `update_monitor.py` | updates too small to learn from |
| `goodput.py` | the share of the time that was spent in steps |
| `norms.py` | norms by module group |
| `train_metrics.py` | FLOP/s, MFU, memory |
| `profiler.py` | profiler traces of chosen steps |
| `progress.py` | the progress bar, lines and figures of a run |
| `writers.py` | destinations of figures: JSON lines, TensorBoard, Weights & Biases |
"""
