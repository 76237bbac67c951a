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
| `emoji_images.py` | real emoji in several styles, with what their captions mean |
| `emoji_features.py` | what the classifiers of emoji see, and augmentation |
| `emoji_judge.py` | classifiers of emoji by subject and by style |
| `emoji_tones.py` | an oracle of skin tones by colours |
| `emoji_ranks.py` | ranks among all combinations of subject, skin tone and style |
| `emoji_neighbours.py` | closest training images, and their page |
| `emoji_measures.py` | all that is measured of a group of sampled emoji |
| `emoji_pages.py` | table, plot and images of these |
| `twin.py` | a U-Net of as many parameters as an Efficient U-Net |
"""
