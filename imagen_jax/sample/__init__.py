"""Painting with a trained cascade.

| file | holds |
|---|---|
| `denoiser.py` | one stage's network, guided and thresholded, as `denoise(z, logsnr)` |
| `following.py` | progress, and batches kept for a painting that is cut short |
| `stored.py` | weights that wait where they are stored until their stage's turn |
| `cascade.py` | a fold over stages: 16 -> 64 -> 256, or the paper's 64 -> 256 -> 1024 |
"""
