"""What a served image was made of, as `imagen sample` writes it into its own."""

from typing import Any

from imagen_jax.imagen import Imagen
from imagen_jax.sample.description import describe_cascade
from imagen_jax.serve.image_request import ImageRequest


def describe_image(imagen: Imagen, model: str, request: ImageRequest, index: int) -> dict[str, Any]:
    """Describe one image: prompts, seed, index and options; the cascade with its digests."""
    height, width = request.size
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": request.seed,
        "index": index,
        "size": f"{height}x{width}",
        "strength": request.strength,
        "has_init_image": request.init_image is not None,
        "has_mask": request.mask is not None,
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance_weight,
        "cascade": model,
        **describe_cascade(imagen.stages, imagen.stage_steps(), imagen.encoder.identity),
    }
