"""Accelerators that this machine has, before jax is loaded: which platform jax is to look for.

jax looks for a TPU wherever libtpu is installed, and libtpu complains where there is none.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path("/")
# PCI identifiers. Source: jax/_src/hardware_utils.py.
GOOGLE = "0x1ae0"
TPUS = {"0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076"}
TPU_VARIABLES = ("TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES")  # of machines whose TPU is a pod's
NVIDIA = ("dev/nvidia0", "dev/nvidiactl", "dev/dxg")  # dxg: WSL2
CUDA = ("jax_cuda13_plugin", "jax_cuda12_plugin")


def find_tpu(environment: Mapping[str, str] = os.environ, root: Path = ROOT) -> str:
    """Return what shows that this machine has a TPU; "" where nothing does."""
    for path in sorted(root.glob("dev/accel[0-9]*")):
        return f"/{path.relative_to(root)}"
    for vendor in sorted(root.glob("sys/bus/pci/devices/*/vendor")):
        device = vendor.with_name("device")
        if vendor.read_text().strip() == GOOGLE and device.read_text().strip() in TPUS:
            return f"PCI device {vendor.parent.name}"
    given = {name: environment.get(name, "") for name in TPU_VARIABLES}
    # A parent process whose libtpu found no TPU leaves "WARNING: could not determine ..." in them.
    return next((n for n, value in given.items() if value and "WARNING" not in value), "")


def find_gpu(root: Path = ROOT) -> str:
    """Return what shows that this machine has an NVIDIA GPU; "" where nothing does."""
    return next((f"/{name}" for name in NVIDIA if (root / name).exists()), "")


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def choose_platforms(
    environment: Mapping[str, str] = os.environ,
    root: Path = ROOT,
    installed: Callable[[str], bool] = _is_installed,
) -> str:
    """Return the JAX_PLATFORMS to set so that jax leaves libtpu alone; "" to leave it to jax.

    libtpu is installed for `imagen plan`, too, on machines without a TPU.
    """
    if environment.get("JAX_PLATFORMS") or not installed("libtpu"):
        return ""
    if find_tpu(environment, root) or any(root.glob("dev/vfio/[0-9]*")):  # perhaps a TPU's
        return ""
    if not find_gpu(root):
        return "" if installed("jax_plugins") else "cpu"
    return "cuda,cpu" if any(map(installed, CUDA)) else ""


def describe_unused(
    environment: Mapping[str, str] = os.environ,
    root: Path = ROOT,
    installed: Callable[[str], bool] = _is_installed,
) -> str:
    """Describe an accelerator that jax cannot use for want of a package; "" where there is none.

    Where JAX_PLATFORMS is set, the devices are chosen already.
    """
    if environment.get("JAX_PLATFORMS"):
        return ""
    found = {
        ("a TPU", "tpu"): not installed("libtpu") and find_tpu(environment, root),
        ("an NVIDIA GPU", "cuda"): not any(map(installed, CUDA)) and find_gpu(root),
    }
    for (what, extra), sign in found.items():
        if sign:
            return (
                f"this machine has {what} ({sign}), but the jax that is installed cannot use it: "
                f"pip install '.[{extra}]'"
            )
    return ""
