"""Judging pictures.

| file | holds |
|---|---|
| `alignment.py` | the oracle: `judge` one picture against its caption, `score` many |
| `perception.py` | `look`: what a picture of shapes shows, by classical image analysis |
| `report.py` | one page of scores, plots and sample grids |
"""
