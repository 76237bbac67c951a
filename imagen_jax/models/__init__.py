"""The networks: (z, logsnr, cond) to a prediction. They know nothing of diffusion.

| file | holds |
|---|---|
| `network.py` | `build`, `init`, `condition`: a stage's network and its conditioning |
| `convolution.py` | convolutions that are fast on CPUs, as are their gradients |
| `winograd.py` | convolutions with half of the products, for `convolution.py` |
| `layers.py` | norm, residual block, time embedding |
| `resampling.py` | up- and down-sampling, patches |
| `attention.py` | attention to image and text |
| `conditioning.py` | `Conditioning`, the noise embedding, the network's input |
| `null_caption.py` | `NullCaption`: what stands for no text |
| `text_conditioning.py` | `Conditioner`: positions, refiner, pooling, text keys |
| `unet.py` | `UNet`, the base network |
| `efficient_unet.py` | `EfficientUNet`, super-resolution |
| `deepfloyd_unet.py` | `DeepFloydUNet`, DeepFloyd IF's stages I and II |
| `deepfloyd_conditioning.py` | its text, time steps and attention layers |
| `remat.py` | what the backward pass computes again |
"""

from imagen_jax.models.conditioning import Conditioning
from imagen_jax.models.deepfloyd_unet import DeepFloydUNet
from imagen_jax.models.efficient_unet import EfficientUNet
from imagen_jax.models.network import (
    build,
    condition,
    count_parameters,
    init,
    parameter_shapes,
    predictor,
    sampling_dtype,
    sampling_shapes,
    without_guidance_input,
)
from imagen_jax.models.unet import UNet

__all__ = [
    "Conditioning",
    "DeepFloydUNet",
    "EfficientUNet",
    "UNet",
    "build",
    "condition",
    "count_parameters",
    "init",
    "parameter_shapes",
    "predictor",
    "sampling_dtype",
    "sampling_shapes",
    "without_guidance_input",
]
