"""All targets by name."""

from fuzz.target import Target
from fuzz.targets import (
    deepfloyd,
    emoji_sets,
    images,
    launches,
    metric_files,
    outputs,
    runs,
    sources,
    stores,
    text_encoders,
)

MODULES = (
    *(deepfloyd, emoji_sets, images, launches, metric_files, outputs),
    *(runs, sources, stores, text_encoders),
)
TARGETS: dict[str, Target] = {t.name: t for module in MODULES for t in module.TARGETS}
PLACES = {t.name: f"{module.__name__}:{t.name}" for module in MODULES for t in module.TARGETS}
