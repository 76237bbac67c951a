"""Captioned pictures: made, stored with their encodings, and streamed to the devices.

| file | holds |
|---|---|
| `embedded.py` | what the embedded datasets share, written and read without TensorFlow |
| `scenes.py` | the seeded grammar of captioned shapes |
| `captions.py` | scenes to captions, and back |
| `drawing.py` | scenes to pictures |
| `painting.py` | many of both, in parallel |
| `shapes.py` | captioned shapes: the TFDS builder |
| `emoji_font.py` | a font's coloured bitmaps by emoji |
| `emoji_names.py` | emoji to captions, to subject and skin tones, and to splits |
| `emoji.py` | captioned emoji: the TFDS builder |
| `records.py` | the store of (image, encoding) pairs |
| `transforms.py` | per-example steps: decode, crop, area resize, the (low, high) pair |
| `damage.py` | how much of a store turned out damaged in a run |
| `pipeline.py` | a store to a stream of batches whose position is (seed, step) |
"""
