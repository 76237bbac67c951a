"""Captioned images: made, stored with their encodings, and streamed to the devices.

| file | holds |
|---|---|
| `sources/base.py` | a source: its examples, and names of the files that it leaves out |
| `sources/addresses.py` | addresses of sources, such as `tars:PATH`, and opening them |
| `sources/bare_paths.py` | paths without a form, and lists of them, to addresses |
| `sources/tfds.py` | a dataset that TFDS wrote |
| `sources/tars.py`, `tar_index.py`, `tar_members.py` | img2dataset's tars, by index |
| `sources/tar_rows.py` | whether an index is of its tar |
| `sources/tfds_classes.py` | the classes that the files of a TFDS dataset name |
| `sources/folders.py`, `tables.py` | images next to their captions, or with a table of them |
| `sources/parquet.py` | Hugging Face's files with the images' bytes |
| `sources/parquet_process.py`, `parquet_worker.py` | processes that read those, apart |
| `sources/mixture.py` | several sources as one, by weight |
| `images/decode.py` | bytes to upright RGB, whatever the file's mode |
| `images/decoding_cost.py` | memory and time that decoding takes, told before |
| `images/crop.py` | images of any size to squares |
| `images/filters.py` | reasons for which an example is dropped |
| `images/transforms.py` | per-example steps: crop, the (low, high) pair, the pyramid of sizes |
| `prepare/images.py` | a source's examples to images at a store's sizes |
| `prepare/encode.py` | a source's captions and images to a store of (image, encoding) pairs |
| `prepare/jobs.py` | `prepare_dataset`, and the description of a store to make |
| `prepare/multiprocess.py`, `beam.py` | processes of this machine, or of an Apache Beam pipeline |
| `store/records.py` | the example format |
| `store/store.py`, `shard_file.py` | the store of (image, encoding) pairs, and its files |
| `store/fit.py` | whether an experiment can train on a store |
| `store/skipped.py` | examples that did not become records |
| `synthetic/tfds_builder.py` | the builder of the embedded datasets, without TensorFlow |
| `synthetic/shapes/` | captioned shapes: scenes, captions, rendering |
| `synthetic/emoji/` | captioned emoji: a font's bitmaps, names; sets of several designers |
| `inspect.py`, `dataset_report.py` | a source's images, captions and faults, counted |
| `known_words.py` | words that a dataset's captions have |
| `corrupt_records.py` | the share of a store that turned out damaged in a run |
| `worker_pool.py` | processes that end with this one |
| `pipeline.py` | a store to a stream of batches whose position is (seed, step) |
"""
