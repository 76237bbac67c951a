"""Throughput of the devices: FLOP/s of the model, its share of the peak (MFU), memory in use."""

from collections.abc import Sequence
from typing import Any

import jax

from imagen_jax.parallel import accelerators

GIB = 2**30


class Throughput:
    """Throughput metrics for the log; those that a device does not report are left out.

    MFU counts the model's own work, 3 forward passes, without what rematerialisation adds.
    """

    def __init__(self, flops_per_image: float, devices: Sequence[Any]) -> None:
        self._flops, self._count = flops_per_image, len(devices)
        self._here = [d for d in devices if d.process_index == jax.process_index()]
        self._chip = accelerators.from_device_kind(devices[0].device_kind)

    def metrics(self, images_per_s: float) -> dict[str, float]:
        """Compute metrics at a rate over all devices. Units: TFLOP/s of a device, GiB."""
        rate = self._flops * images_per_s / self._count
        found = {"tflops_per_device": rate / 1e12}
        if self._chip is not None:
            found["mfu"] = rate * self._chip.devices / self._chip.peak_flops
        memory = [m for d in self._here if (m := d.memory_stats())]
        for tag, field in (
            ("memory_gib", "bytes_in_use"),
            ("memory_peak_gib", "peak_bytes_in_use"),
        ):
            if values := [m[field] for m in memory if field in m]:
                found[tag] = max(values) / GIB
        return found
