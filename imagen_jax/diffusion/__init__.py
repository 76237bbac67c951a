"""The diffusion process: pure functions of arrays, `logsnr` and keys; no model is known here.

| file | holds |
|---|---|
| `schedules.py` | `logsnr` of a time, `alpha_sigma`, `add_noise`, `transition_variance` |
| `prediction.py` | eps, x0 and v: `to_x0` and `from_x0` |
| `preconditioning.py` | `wrap`: the raw network to `predict(z, logsnr)`, for both phases |
| `loss.py` | `loss`: level, noise, target, weight |
| `variance_bound.py` | `variance_bound`: what a learned variance adds to the loss |
| `guidance.py` | classifier-free guidance: `drop_text`, `guide`, its interval and rescaling |
| `thresholding.py` | `static`, `dynamic`, `threshold`, `select_percentile` |
| `noise_conditioning.py` | `upsample` and `augment` of the low-resolution input, for both phases |
| `spacing.py` | `logsnr_at`: the noise level of each step |
| `samplers.py` | one function per step rule; `SamplerParams`, the numbers they read |
| `sampling_loop.py` | `sample`: one loop over any step rule and levels |
"""
