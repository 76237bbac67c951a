"""Painting with a trained cascade.

| file | holds |
|---|---|
| `denoiser.py` | one stage's network, guided and thresholded, as `denoise(z, logsnr)` |
| `painting.py` | what a batch is painted from, and the one program that paints it |
| `request.py` | what is wanted besides the prompts: negatives, a picture, a mask, sides |
| `sides.py` | sides that the networks can paint |
| `stage.py` | a stage over all prompts |
| `overrides.py` | samplers changed, for all stages or some |
| `memory.py` | sides that need more memory than there is are refused |
| `finite.py` | images that are no numbers are refused |
| `progress.py` | progress, glimpses, and batches kept for a painting that is cut short |
| `stored.py` | weights that wait where they are stored until their stage's turn |
| `cascade.py` | a fold over stages: 16 -> 64 -> 256, or the paper's 64 -> 256 -> 1024 |
"""
