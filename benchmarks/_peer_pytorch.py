"""The side of lucidrains/imagen-pytorch 2.1.0, in its own trainer's step and sampling loop."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import _peer_turns
import jax
from _peer_shapes import GUIDANCE, HEAD_CHANNELS, Missing, Shapes, Work

from imagen_jax.parallel import flops
from imagen_jax.train.sharded_step import CHANNELS, TRAINING

NAME = "imagen-pytorch"
INSTALL = "imagen-pytorch is left out: pip install 'imagen_jax[peer]'"
HEADS = 4  # at every level


def training(shapes: Shapes) -> Work:
    """Its trainer's step: forward, gradient, Adam, and EMA at every step as the other sides."""
    torch, package = load()
    imagen = _imagen(torch, package, shapes)
    trainer = package.ImagenTrainer(imagen, ema_update_every=1, ema_update_after_step=0)
    number = len(imagen.unets)
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(shapes.batch, CHANNELS, shapes.size, shapes.size, generator=draw)
    given = _captions(torch, shapes)

    def call() -> None:
        trainer(images, unet_number=number, **given)
        trainer.update(unet_number=number)

    with torch.no_grad():
        forward = counted(torch, lambda: imagen(images, unet_number=number, **given))
    return Work(
        parameters=_parameters(imagen),
        forward=forward / shapes.batch,
        flops=TRAINING * forward,
        call=call,
    )


def sampling(shapes: Shapes) -> Work:
    """Its sampling loop with plain guidance; of its options only those that the shapes fix."""
    torch, package = load()
    imagen = _imagen(torch, package, shapes)
    given = {
        **_captions(torch, shapes),
        "cond_scale": GUIDANCE,
        "cfg_remove_parallel_component": False,
        "use_tqdm": False,
    }
    if shapes.low_size is not None:
        low = torch.rand(shapes.batch, CHANNELS, shapes.low_size, shapes.low_size)
        given |= {"start_at_unet_number": 2, "start_image_or_video": low}
    step = counted(torch, lambda: imagen.sample(**given)) / shapes.steps
    return Work(
        parameters=_parameters(imagen),
        forward=step / shapes.batch,
        flops=step,
        call=lambda: imagen.sample(**given),
        steps=shapes.steps,
    )


def load() -> tuple[Any, Any]:
    """PyTorch and the package, which would ask the network for a default's width at import.

    Errors: Missing.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise Missing(f"{INSTALL} ({error})") from error
    width = SimpleNamespace(d_model=768)
    with mock.patch.object(transformers.T5Config, "from_pretrained", return_value=width):
        try:
            import imagen_pytorch
        except ImportError as error:
            raise Missing(f"{INSTALL} ({error})") from error
    torch.set_num_threads(_peer_turns.threads())
    _check_counts(torch)
    return torch, imagen_pytorch


def counted(torch: Any, call: Any) -> int:
    """FLOPs of one call, by PyTorch's counter."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as found:
        call()
    return found.get_total_flops()


def _check_counts(torch: Any) -> None:
    """Errors: RuntimeError where the two counters differ on one convolution."""
    layer, x = torch.nn.Conv2d(8, 16, 3, padding=1), torch.zeros(1, 8, 12, 12)
    kernel = jax.ShapeDtypeStruct((16, 8, 3, 3), "float32")
    image = jax.ShapeDtypeStruct((1, 8, 12, 12), "float32")
    own = flops.count_flops(lambda x, k: jax.lax.conv(x, k, (1, 1), "SAME"), image, kernel)
    other = counted(torch, lambda: layer(x))
    if own != other:
        raise RuntimeError(f"a convolution has {own} FLOPs by jax's trace, {other} by PyTorch's")


def _imagen(torch: Any, package: Any, shapes: Shapes) -> Any:
    torch.manual_seed(0)
    levels = len(shapes.channel_mult)
    network = package.Unet(
        dim=shapes.channels,
        dim_mults=shapes.channel_mult,
        # One more comes before those it counts; our resampling has as many.
        num_resnet_blocks=(shapes.res_blocks,) * levels,
        layer_attns=shapes.attends,
        layer_cross_attns=shapes.attends,
        attn_heads=HEADS,
        attn_dim_head=HEAD_CHANNELS,
        text_embed_dim=shapes.text_width,
        max_text_len=shapes.text_length,
        lowres_cond=shapes.low_size is not None,
        memory_efficient=shapes.halves_first,
    )
    before = () if shapes.low_size is None else (package.NullUnet(),)
    return package.Imagen(
        unets=(*before, network),
        image_sizes=(*([shapes.low_size] if before else []), shapes.size),
        text_embed_dim=shapes.text_width,
        timesteps=shapes.steps,
        dynamic_thresholding_percentile=0.995,
    )


def _captions(torch: Any, shapes: Shapes) -> dict[str, Any]:
    text = torch.randn(shapes.batch, shapes.text_length, shapes.text_width)
    return {"text_embeds": text, "text_masks": torch.ones(text.shape[:2], dtype=torch.bool)}


def _parameters(imagen: Any) -> int:
    return sum(p.numel() for p in imagen.unets[-1].parameters())
