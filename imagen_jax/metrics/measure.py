"""Statistics of a set of images: read from a file, or computed, part by part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagen_jax.metrics import parts, statistics_file
from imagen_jax.metrics.image_set import ImageSet, open_images
from imagen_jax.metrics.networks import CLIP, Devices, MetricNetwork
from imagen_jax.metrics.statistics_file import Statistics


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How images become statistics."""

    networks: Sequence[MetricNetwork]
    size: int | None  # pixels of the square that each image becomes; None: as it is
    batch_size: int
    keep_inception: bool  # features of each image, for precision and recall
    unfinished: Path  # folder of the parts that are done
    progress: Callable[[str, int], None]  # told of the set, and of the images of each batch

    def measure(self, images: ImageSet, *, what: str) -> Statistics:
        """The statistics of images; `what` names the set, and its folder of parts.

        Errors: ValueError, by the image, for one that can't be scored; OSError.
        """
        networks = [n for n in self.networks if what == "images" or n.name != CLIP]
        preprocessing = _describe(self.size)
        weights = {n.name: {k: v for k, v in n.about.items() if k != "file"} for n in networks}
        made_of = {"networks": weights, "prompts": images.prompts_sha256, **preprocessing}
        kept = parts.Parts(images, self.unfinished / what, self.size, made_of)

        def progress(done: int) -> None:
            self.progress(what, done)

        parts.fill(kept, Devices(networks), batch_size=self.batch_size, progress=progress)
        about = {
            "address": images.address,
            "count": len(images),
            "left_out": images.left_out,
            "prompts_sha256": images.prompts_sha256,
            "preprocessing": preprocessing,
            "networks": {network.name: network.about for network in networks},
        }
        return statistics_file.gather(kept.read_all(), about, keep_inception=self.keep_inception)

    def reference(self, opened: ImageSet | Path) -> Statistics:
        """The statistics of what `open_reference` found.

        Errors: as `measure` and `statistics_file.read`.
        """
        if isinstance(opened, Path):
            return statistics_file.read(opened)
        return self.measure(opened, what="reference")


def open_reference(address: str, data_dir: Path) -> ImageSet | Path:
    """The real images at an address, or the file of their statistics.

    Errors: as `open_images`.
    """
    return statistics_file.find_file(address) or open_images(address, data_dir=data_dir)


def count_images(opened: ImageSet | Path) -> int:
    """Count the images that are to be gone through; there are none of a file of statistics."""
    return 0 if isinstance(opened, Path) else len(opened)


def _describe(size: int | None) -> dict[str, str]:
    resized = f"short side to {size} px, antialiased (area means, or Pillow's HAMMING)"
    return {
        "resize": resized if size else "none",
        "crop": "centre" if size else "none",
        "quantisation": "8 bits a channel, as decoded",
        "transparency": "refused",
    }
