"""Sampling with a trained cascade.

| file | holds |
|---|---|
| `denoiser.py` | one stage's network, guided and thresholded, as `denoise(z, logsnr)` |
| `stage_program.py` | one stage, and the one program that samples it |
| `sampler_inputs.py` | encoded prompts, and the images that a stage starts from |
| `lazy_params.py` | weights that are read when a stage first samples |
| `noise_prediction.py` | the noise that a stage predicts, for losses and samplers of one's own |
| `request.py` | what is wanted besides the prompts: negative prompts, images, a mask, sizes |
| `options.py` | the keyword arguments of `Imagen.sample` as a request |
| `stage.py` | a stage over all prompts |
| `stage_batch.py` | one batch of a stage, step by step |
| `description.py` | stages as plain values, for the metadata of images |
| `overrides.py` | samplers changed, for all stages or some |
| `memory.py` | sizes that need more memory than there is are refused |
| `nonfinite_images.py` | images that are not finite are refused |
| `progress.py` | callbacks, previews, and batches kept for a run that is interrupted |
| `cascade.py` | a fold over stages: 16 -> 64 -> 256, or the paper's 64 -> 256 -> 1024 |
"""
