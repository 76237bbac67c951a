"""Options of the sampler, which every command that samples has."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class SamplerOptions:
    """Options of the sampler, for all stages or for some: 64, sr256=20 or 64,sr256=20."""

    guidance_weight: str | None = None
    """Classifier-free guidance weight; 1 turns guidance off. Diffusers calls it guidance scale."""
    guidance_interval: str | None = None
    """Range LOW:HIGH of noise over signal (sigma / alpha) to guide in, such as 0.2:5."""
    guidance_rescale: str | None = None
    """Share, 0 to 1, of the contrast added by guidance that is taken back."""
    steps: str | None = None
    """Sampling steps."""
    sampler: str | None = None
    """Step rule: ancestral, ddim, dpmpp_2m or edm_heun."""
    spacing: str | None = None
    """Spacing of the steps' noise levels: time, logsnr, karras, or leading for time steps."""
    timesteps: str | None = None
    """Discrete time steps in place of --steps and --spacing: 999:600:0, or DeepFloyd's list, such
    as smart50."""
    final_noise: str | None = None
    """Noise from the last step, too, unless that is time step 0: true or false."""
    stochasticity: str | None = None
    """Variance of the ancestral sampler, 0 (small) to 1 (large)."""
    threshold: str | None = None
    """Thresholding of the estimated image: none, static or dynamic."""
    percentile: str | None = None
    """Percentile of dynamic thresholding, such as 99.5."""
    threshold_max: str | None = None
    """Largest value of the dynamic threshold, such as 1.5."""
    known_pixels: str | None = None
    """Pixels that --mask keeps, in every step: noised, or clean as DeepFloyd IF has them."""
    edm_rho: str | None = None
    """Exponent of karras spacing, such as 7."""
    edm_sigma_min: str | None = None
    """Smallest noise of karras spacing, in sigma / alpha."""
    edm_sigma_max: str | None = None
    """Largest noise of karras spacing, in sigma / alpha."""
    aug_level: str | None = None
    """Noise on the low-resolution input of super-resolution stages, 0 to 1."""
