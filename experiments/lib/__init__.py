"""Parts that the experiments share.

| file | holds |
|---|---|
| `command.py` | the command line of every experiment |
| `runs.py` | one training run; its data is made where it is missing |
| `variants.py` | the rows of the recipe: variants of a base stage |
| `random_encoder.py` | a text encoder with random weights |
| `scoring.py` | scores by number of objects, held-out noise-prediction error, Fréchet distance |
| `image_cache.py` | images that are sampled once and stored |
| `image_table.py` | images as a table: a row per setting, a column per caption |
| `results.py` | an experiment's plot, table and numbers on disk |
| `twin.py` | a U-Net of as many parameters as an Efficient U-Net |
"""
