"""Judging pictures.

| file | holds |
|---|---|
| `alignment.py` | the oracle: `judge` one picture against its caption, `score` many |
| `detector.py` | `look`: what a picture of shapes shows, by classical image analysis |
| `frechet.py` | a Fréchet distance on classical descriptors, in place of FID |
| `sharpness.py` | how crisp edges are, for sizes that the oracle reduces |
| `report.py` | one page of scores, plots and sample grids |
"""
