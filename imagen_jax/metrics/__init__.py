"""Metrics of the field: FID, CMMD, CLIP score, precision and recall; networks and formulas.

| file | holds |
|---|---|
| `inception.py`, `inception_weights.py` | FID's Inception-v3; its weights, of either form |
| `clip.py`, `clip_config.py`, `clip_weights.py` | CLIP's towers, and a model's folder as Hugging Face has it |
| `clip_tokenizer.py` | CLIP's byte pair encoding |
| `frechet.py` | Gaussians of features that come part by part; the Fréchet distance |
| `cmmd.py`, `precision_recall.py`, `distances.py` | formulas on pairs of embeddings |
"""
