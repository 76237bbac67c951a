"""Captions to encodings with a frozen T5 encoder (section 2.1).

| file | holds |
|---|---|
| `encoder.py` | `TextEncoder`: captions in, encodings and mask out; `load(name_or_path)` |
| `encoder_folders.py` | where encoders and their tokenizers are |
| `lost_text.py` | what of captions their encodings do not hold |
| `encoder_digests.py` | what tells one encoder from another |
| `tokenizer.py` | `Tokenizer`: captions, cleaned if asked for, to SentencePiece ids and mask |
| `t5.py` | `T5Config`, the network, and `encode`, a pure function of parameters and ids |
| `relative_positions.py` | the bias of relative positions, in buckets of distances |
| `t5_storage.py` | dtypes that parameters are kept in, and axes that they are split by |
| `packing.py` | several captions in one row of the network |
| `offloaded.py` | an encoder that is on the devices only while it encodes |
| `nonfinite_encodings.py` | encodings that are not finite, and their cause |
| `checkpoints/load.py` | any checkpoint to `T5Config` and parameters, tensor by tensor |
| `checkpoints/t5x.py`, `huggingface.py` | which tensor holds which parameter |
| `checkpoints/huggingface_files.py` | which of a folder's safetensors files those are |
| `checkpoints/native.py` | our own form, written by `imagen convert text` and read: one folder |
| `checkpoints/safetensors_io.py` | safetensors, read and written tensor by tensor |
| `checkpoints/remote_folders.py` | a folder here or in a bucket, through TensorStore |
| `checkpoints/zarr_arrays.py`, `zarr_limits.py` | arrays of zarr, and how large they may be |
| `checkpoints/lazy_tensors.py` | tensors not read yet, read within the memory of the largest |
| `t5_1_1_tiny/` | the embedded default encoder, 64 wide: checkpoint and SentencePiece model |
| `t5_1_1_mini/` | a larger one, 256 wide, that also encodes which object stands where |
"""
