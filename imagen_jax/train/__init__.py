"""Training one stage.

| file | holds |
|---|---|
| `state.py` | `TrainState`, initialised under its shardings |
| `init_from.py` | another run's weights to begin with |
| `optim.py` | the optax chain and the EMA |
| `step.py` | `train_step`, the page a researcher edits |
| `sharded_step.py` | the step jitted with its shardings, for the loop, plan and benchmark |
| `loop.py` | step, log, save, resume |
| `checkpointing.py` | when a checkpoint is made, and what happens when that fails |
| `preemption.py` | the notice that the machine is about to be taken away |
| `logger.py` | all that a run tells of itself, together |
| `anomalies.py` | steps that were skipped, losses that jump |
| `goodput.py` | where the time went |
| `watchdog.py` | where every thread stands, when a step takes far longer than usual |
| `norms.py` | norms by module group |
| `train_metrics.py` | FLOP/s, MFU, memory |
| `profiler.py` | profiler traces of chosen steps |
| `progress.py` | what a run tells: a bar, lines, figures |
| `writers.py` | where figures go: JSON lines, TensorBoard, Weights & Biases |
"""
