"""The least network that a config allows, for tests of what surrounds networks."""

from imagen_jax import config

SMALL = config.UNet(
    channels=8,
    channel_mult=(1,),
    attention_at=(),
    head_channels=8,
    norm_groups=4,
    text=config.TextConditioning(kv="none"),
)
