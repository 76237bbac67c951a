"""Does it fit, and how fast will it go? Real programs, compiled for TPU slices that you don't have.

Nothing of jax is imported here: `topology.use_compiler` has to come first.

| file | holds |
|---|---|
| `topology.py` | slices by name, described by the TPU compiler |
| `compile.py` | the training step, the sampler and the encoder, lowered and compiled |
| `sampling_loop.py` | a stage's sampling loop with the shapes of its arguments |
| `collectives.py` | what a program sends between chips |
| `roofline.py` | memory, roofline, and whether to believe the compiler's time |
| `max_batch.py` | the largest batch and the cheapest rematerialisation that fit |
| `report.py` | figures by name, as text and JSON |
"""
