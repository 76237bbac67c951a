"""What the server allows, and what it calls its cascade."""

import dataclasses

from imagen_jax import config

MOST_IMAGES = 10  # of one request, as OpenAI has it
MOST_PARTIALS = 3
MOST_PROMPT = 32_000  # characters, as OpenAI has it
JSON_BYTES = 1 << 20  # of a body that is no upload
UPLOAD_BYTES = 50 << 20  # of an upload in all
HEADER_SECONDS = 20  # until the head of a request has to be there
BODY_SECONDS = 60  # until a body has to be there
UNREAD_SECONDS = 60  # in which a client has to read something of a long answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits of the server. `sizes` are (height, width); the first one is the default."""

    model: str
    sizes: tuple[tuple[int, int], ...]
    max_pixels: config.Pixels
    max_steps: config.Steps
    timeout: config.Positive  # seconds of a request
    tokens: tuple[str, ...] = dataclasses.field(default=(), repr=False)

    def __post_init__(self) -> None:
        config.check_fields(self, "settings")
        for height, width in self.sizes:
            config.require(
                height * width <= self.max_pixels,
                f"images of {width}x{height} have more pixels than --max-pixels "
                f"{self.max_pixels:,}",
            )
