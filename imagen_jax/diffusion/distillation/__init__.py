"""Losses of distillation: pure functions of denoisers, the data's images and a key.

A denoiser is `(z, logsnr) -> x0`. The teacher's is guided and thresholded, and no gradient reaches
it.

| file | holds |
|---|---|
| `guidance.py` | one call of the network for the two of guidance (arXiv:2210.03142) |
| `moments.py` | multistep moment matching: few ancestral steps (arXiv:2406.04103) |
| `progressive.py` | one DDIM step for two of the teacher's (arXiv:2202.00512) |
"""
