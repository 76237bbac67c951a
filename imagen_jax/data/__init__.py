"""Captioned pictures: made, stored with their encodings, and streamed to the devices.

| file | holds |
|---|---|
| `scenes.py` | the seeded grammar of the embedded dataset |
| `captions.py` | scenes to captions, and back |
| `drawing.py` | scenes to pictures |
| `painting.py` | many of both, in parallel |
| `shapes.py` | the TFDS builder of the embedded dataset |
| `records.py` | the store of (image, encoding) pairs |
| `transforms.py` | per-example steps: decode, crop, area resize, the (low, high) pair |
| `damage.py` | how much of a store turned out damaged in a run |
| `pipeline.py` | a store to a stream of batches whose position is (seed, step) |
"""
