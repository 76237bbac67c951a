"""Captioned pictures: made, stored with their encodings, and streamed to the devices.

| file | holds |
|---|---|
| `scenes.py` | the seeded grammar of the embedded dataset |
| `captions.py` | scenes to captions, and back |
| `drawing.py` | scenes to pictures |
| `painting.py` | many of both, in parallel |
| `shapes.py` | the TFDS builder of the embedded dataset |
| `sources.py` | where captioned pictures come from |
| `decoding.py`, `quiet.py` | bytes to upright RGB, whatever they are; without Pillow's warnings |
| `framing.py` | pictures of any size to squares |
| `filters.py` | why an example is dropped |
| `area.py` | the mean of each box of pixels |
| `transforms.py` | per-example steps: crop, the (low, high) pair, the pyramid of sizes |
| `preparation.py` | a source's examples to pictures at a store's sizes |
| `records.py` | the example format |
| `store.py`, `array_files.py` | the store of (image, encoding) pairs, and its files |
| `skipped.py` | examples that did not become records |
| `damage.py` | how much of a store turned out damaged in a run |
| `pipeline.py` | a store to a stream of batches whose position is (seed, step) |
"""
