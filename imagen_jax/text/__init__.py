"""Captions to encodings with a frozen T5 encoder (section 2.1).

| file | holds |
|---|---|
| `encoder.py` | `TextEncoder`: captions in, encodings and mask out; `load(name_or_path)` |
| `tokenizer.py` | `Tokenizer`: captions to SentencePiece ids and mask |
| `t5.py` | `T5Config`, the network, and `encode`, a pure function of parameters and ids |
| `load.py` | `load`: any checkpoint to `T5Config` and parameters, tensor by tensor |
| `t5x_checkpoint.py`, `huggingface.py` | which tensor holds which parameter |
| `huggingface_files.py` | which of a folder's safetensors files those are |
| `native.py` | our own form, written by `imagen convert text` and read: one folder |
| `t5x.py`, `folders.py` | the bytes underneath: msgpack tree, zarr, Orbax; local or `gs://` |
| `safetensors_io.py` | safetensors, read and written tensor by tensor |
| `stored.py` | tensors not read yet, and reading them within the memory of the largest |
| `encode.py` | a dataset's captions and pictures to a store of (image, encoding) pairs |
| `jobs.py` | a store to make, as any process is told of it |
| `building.py`, `beam.py` | the processes: of this machine; of an Apache Beam pipeline |
| `t5_1_1_tiny/` | the embedded default encoder, 64 wide: checkpoint and SentencePiece model |
| `t5_1_1_mini/` | a larger one, 256 wide, that also tells which object stands where |
"""
