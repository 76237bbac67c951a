"""sr256 with a base-style U-Net instead of the Efficient one: 490.3 M parameters, for comparison.

Run: imagen train imagen/sr256_unet --workdir runs/sr256_unet
Hardware: as sr256, with more time and memory: 16 images a chip need rematerialisation.
Expected: section 2.5 and appendix B.1: the Efficient U-Net is 2 to 3 times as fast.
The network is the one that the study `efficient-unet` makes of sr256: as many parameters, the same
feature sides and attention.
"""

import dataclasses

from imagen_jax import config


def get_config() -> config.Experiment:
    (base,) = config.load("imagen/sr256")
    efficient = base.stage.model
    model = config.UNet(
        channels=224,
        channel_mult=(1, 2, 3, 4, 4),
        res_blocks=2,
        attention_at=(16,),
        head_channels=224,
        remat="block",
        dtype=efficient.dtype,
        text=efficient.text,
    )
    return dataclasses.replace(
        base, stage=dataclasses.replace(base.stage, name="sr256_unet", model=model)
    )
