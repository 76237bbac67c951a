"""Captioned pictures: made, stored with their encodings, and streamed to the devices.

| file | holds |
|---|---|
| `tfds_builder.py` | what the embedded datasets share, written and read without TensorFlow |
| `scenes.py` | the seeded grammar of captioned shapes |
| `captions.py` | scenes to captions, and back |
| `render.py` | scenes to pictures |
| `painting.py` | many of both, in parallel |
| `dataset.py` | captioned shapes: the TFDS builder |
| `emoji_font.py` | a font's coloured bitmaps by emoji |
| `emoji_names.py` | emoji to captions, to subject and skin tones, and to splits |
| `dataset.py` | captioned emoji: the TFDS builder |
| `addresses.py` | addresses of captioned pictures: what is at one, by index |
| `tfds.py` | a dataset that TFDS wrote |
| `base.py` | what a source is: its examples, and names of what it leaves out |
| `tars.py`, `tar_index.py`, `tar_members.py` | tars as of img2dataset, read at any place |
| `folders.py`, `tables.py` | pictures beside their captions, or with a table of them |
| `parquet.py` | Hugging Face's files with the pictures' bytes |
| `mixture.py` | several sources as one, by weight |
| `remote_files.py` | files on this machine or in a bucket: found, and read in ranges |
| `worker_pool.py` | processes that end with this one |
| `decode.py`, `quiet.py` | bytes to upright RGB, whatever they are; without Pillow's warnings |
| `crop.py` | pictures of any size to squares |
| `filters.py` | why an example is dropped |
| `transforms.py` | per-example steps: crop, the (low, high) pair, the pyramid of sizes |
| `images.py` | a source's examples to pictures at a store's sizes |
| `records.py` | the example format |
| `store.py`, `shard_file.py` | the store of (image, encoding) pairs, and its files |
| `skipped.py` | examples that did not become records |
| `corrupt_records.py` | how much of a store turned out damaged in a run |
| `pipeline.py` | a store to a stream of batches whose position is (seed, step) |
"""
