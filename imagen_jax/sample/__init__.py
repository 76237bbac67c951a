"""Painting with a trained cascade.

| file | holds |
|---|---|
| `denoiser.py` | one stage's network, guided and thresholded, as `denoise(z, logsnr)` |
| `following.py` | progress, and batches kept for a painting that is cut short |
| `cascade.py` | a fold over stages: 16 -> 64 -> 256, or the paper's 64 -> 256 -> 1024 |
"""
