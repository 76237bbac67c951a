"""Preparation of a data source: images at a store's sizes, captions encoded once (section 2.1).

| file | holds |
|---|---|
| `jobs.py` | `EncodeJob` and `prepare_dataset`: one store to write; what `imagen encode` runs |
| `multiprocess.py` | `build_store`: the same by processes of this machine |
| `beam.py` | `build_with_beam`: the same as a pipeline of Apache Beam |
| `encode.py` | shards of pairs, encoded and written |
| `images.py` | a source's examples to images at a store's sizes |
| `shared_folder.py` | a folder that several processes write to is one |
| `summary.py` | sentences about a written store |
"""
