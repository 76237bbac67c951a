"""The line on the devices that a command uses, and the command that installs jax for others."""

import sys
from collections import Counter

from imagen_jax.parallel import hardware


def report_devices() -> None:
    """Print the devices of all processes in one line, and an accelerator that is left unused.

    Process 0 alone prints, to stderr: results are on stdout. It comes after `initialize`.
    """
    import jax

    if jax.process_index():
        return
    kinds = Counter(device.device_kind for device in jax.devices())
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    hosts = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    print(f"devices: {found}{hosts}", file=sys.stderr, flush=True)
    if jax.default_backend() == "cpu" and (said := hardware.describe_unused()):
        print(f"imagen: warning: {said}", file=sys.stderr, flush=True)
