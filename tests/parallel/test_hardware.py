"""The platform for jax by the machine's devices, and what is said of an accelerator left unused."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from imagen_jax.cli import devices
from imagen_jax.parallel import hardware


@pytest.fixture
def machine(tmp_path: Path):
    """A machine with these files, and at each PCI place a vendor and a device."""

    def make(*files: str, pci: tuple[str, str] | None = None) -> Path:
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        if pci:
            place = tmp_path / "sys" / "bus" / "pci" / "devices" / "0000:00:05.0"
            place.mkdir(parents=True)
            (place / "vendor").write_text(f"{pci[0]}\n")
            (place / "device").write_text(f"{pci[1]}\n")
        return tmp_path

    return make


TPU, GVNIC = ("0x1ae0", "0x0063"), ("0x1ae0", "0x0042")


@pytest.mark.parametrize(
    ("files", "pci", "environment", "sign"),
    [
        ((), None, {}, ""),
        (("dev/accel0",), None, {}, "/dev/accel0"),
        ((), TPU, {}, "PCI device 0000:00:05.0"),
        ((), GVNIC, {}, ""),
        ((), ("0x10de", "0x0063"), {}, ""),
        ((), None, {"TPU_ACCELERATOR_TYPE": "v5litepod-8"}, "TPU_ACCELERATOR_TYPE"),
        ((), None, {"TPU_ACCELERATOR_TYPE": "WARNING: could not determine TPU"}, ""),
    ],
)
def test_a_tpu_is_known_by_its_device(machine, files, pci, environment, sign) -> None:
    assert hardware.find_tpu(environment, machine(*files, pci=pci)) == sign


@pytest.mark.parametrize(
    ("files", "installed", "environment", "platforms"),
    [
        ((), {"libtpu"}, {}, "cpu"),
        ((), set(), {}, ""),
        ((), {"libtpu"}, {"JAX_PLATFORMS": "tpu"}, ""),
        ((), {"libtpu", "jax_plugins"}, {}, ""),
        (("dev/accel0",), {"libtpu"}, {}, ""),
        (("dev/vfio/0",), {"libtpu"}, {}, ""),
        (("dev/nvidia0",), {"libtpu"}, {}, ""),
        (("dev/nvidia0",), {"libtpu", "jax_plugins", "jax_cuda13_plugin"}, {}, "cuda,cpu"),
    ],
)
def test_libtpu_is_left_alone_without_a_tpu(
    machine, files, installed, environment, platforms
) -> None:
    found = hardware.choose_platforms(environment, machine(*files), installed.__contains__)
    assert found == platforms


@pytest.mark.parametrize(
    ("files", "installed", "environment", "says"),
    [
        ((), set(), {}, ""),
        (("dev/accel0",), set(), {}, r"a TPU (/dev/accel0), but .*: pip install '.[tpu]'"),
        (("dev/accel0",), {"libtpu"}, {}, ""),
        (("dev/nvidia0",), set(), {}, r"an NVIDIA GPU (/dev/nvidia0), .*: pip install '.[cuda]'"),
        (("dev/nvidia0",), {"jax_cuda12_plugin"}, {}, ""),
        (("dev/nvidia0",), set(), {"JAX_PLATFORMS": "cpu"}, ""),
    ],
)
def test_an_accelerator_that_jax_cannot_use_is_told(
    machine, files, installed, environment, says
) -> None:
    found = hardware.describe_unused(environment, machine(*files), installed.__contains__)
    begin, _, end = says.partition(".*")
    assert bool(found) == bool(says)
    assert begin in found
    assert found.endswith(end)


def test_the_devices_are_one_line(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    devices.report_devices()
    assert capsys.readouterr() == ("", f"devices: {jax.device_count()} cpu\n")
    monkeypatch.setattr(hardware, "describe_unused", lambda: "this machine has a TPU")
    devices.report_devices()
    assert capsys.readouterr().err.endswith("imagen: warning: this machine has a TPU\n")


@pytest.mark.skipif(bool(hardware.find_tpu()), reason="with a TPU libtpu has its say")
def test_no_command_prints_libtpus_complaints(tmp_path: Path) -> None:
    """Where libtpu is installed, as the tests and `imagen plan` need it."""
    pytest.importorskip("libtpu")
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    program = "from imagen_jax.cli import main; main()"
    command = [sys.executable, "-c", program, "encode", "folder:nowhere", "--for", "tiny/base8"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], env=environment, capture_output=True, text=True
    )
    first, second = done.stderr.splitlines()
    assert first == "devices: 1 cpu"
    assert second == "imagen encode: error: no folder nowhere"
