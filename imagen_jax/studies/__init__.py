"""The paper's claims at our scale: each file trains or loads what it needs, measures and plots.

Every study has `Options`, which `imagen study NAME` turns into flags, and `run(options)`, which
writes OUT/<study>.png, .md and .json. What is done is not done again.

| file | claim or part |
|---|---|
| `guidance.py` | alignment against quality over guidance weights, by threshold (2.2, 2.3) |
| `augmentation.py` | super-resolution with and without noise conditioning augmentation (2.4) |
| `text_encoder.py` | a larger text encoder against a larger U-Net (4.4, fig. 4) |
| `efficient_unet.py` | Efficient U-Net against U-Net at equal steps and equal time (2.5, B.1) |
| `sampling.py` | how the trained base stage had better sample |
| `few_steps.py` | DPM-Solver++ in 20 steps against the ancestral sampler in 256 |
| `recipe.py` | how the base stage was tuned, one variant a row |
| `variants.py` | the rows of the recipe |
| `training.py` | `train`: one run of a study, its data made where it is missing |
| `random_encoder.py` | a text encoder that never learned anything |
| `judging.py` | captions with one and with two objects, scores, held-out noise-prediction error |
| `quality.py` | alignment, Fréchet distance and saturation of the same pictures |
| `studio.py` | pictures painted once and kept |
| `sheet.py` | pictures as a table: a row a setting, a column a caption |
| `writing.py` | a study's plot, table and numbers on disk |
"""
