"""Evaluation of cascades of shapes.

| file | holds |
|---|---|
| `evaluate.py` | `evaluate`: the protocol; what `imagen eval` runs |
| `settings.py` | `EvaluationSettings`: prompts, sweep, seed |
| `eval_set.py` | captions that are in no dataset, and real images of them |
| `alignment.py` | the oracle: `judge` one image against its caption, `score` many |
| `detector.py` | shapes, colours and places in an image, by classical image analysis |
| `frechet.py` | a Fréchet distance on classical descriptors, in place of FID |
| `sharpness.py` | sharpness of edges, for sizes that the oracle reduces |
| `report.py` | `Report`: one page of scores, plots and sample grids |
"""
