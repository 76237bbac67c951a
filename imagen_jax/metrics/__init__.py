"""Metrics of the field: FID, CMMD, CLIP score, precision and recall; networks and formulas.

| file | holds |
|---|---|
| `inception.py`, `inception_weights.py` | FID's Inception-v3; its weights, of either form |
| `clip.py`, `clip_config.py`, `clip_weights.py` | CLIP's towers; a model's folder |
| `clip_tokenizer.py` | CLIP's byte pair encoding |
| `image_set.py` | images to score, of any form |
| `networks.py`, `parts.py` | networks on the mesh; features that are kept, part by part |
| `measure.py`, `statistics_file.py` | statistics of a set of images, computed or read |
| `score.py` | which metrics there are, and what a score says |
| `frechet.py` | Gaussians of features that come part by part; the Fréchet distance |
| `cmmd.py`, `precision_recall.py`, `distances.py` | formulas on pairs of embeddings |
"""
