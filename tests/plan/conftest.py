"""A network small enough to trace in a second."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from imagen_jax import config, models


@pytest.fixture
def toy_network() -> Callable[[str], Any]:
    def build(remat: str) -> Any:
        options = config.UNet(
            channels=16,
            channel_mult=(1, 2),
            res_blocks=2,
            attention_at=(8,),
            head_channels=16,
            norm_groups=4,
            remat=remat,
        )
        module = models.build(options)
        text, mask = jnp.zeros((4, 5, 12)), jnp.ones((4, 5), jnp.bool_)
        z, logsnr = jnp.zeros((4, 16, 16, 3)), jnp.zeros((4,))
        stage = config.Stage(name="toy", size=16, model=options)
        params = jax.eval_shape(
            lambda key: models.init(module, key, stage=stage, text_width=12, text_length=5),
            jax.random.key(0),
        )

        def forward(params: Any) -> jax.Array:
            variables = {"params": params}
            cond = module.apply(variables, text, mask, jnp.ones((4,), bool), method="encode_text")
            return module.apply(variables, z, logsnr, cond)

        return forward, lambda params: jnp.mean(forward(params) ** 2), params

    return build
