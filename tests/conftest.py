"""The suite's strictness: no silent promotion, no warnings, eight simulated devices."""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version

from packaging.version import Version

# Bytecode is kept, as Python does by default: compiling all that it imports, jax first of all,
# takes a process seconds, and tests start many.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# With the TPU compiler installed jax would look for chips, here and in every subprocess.
os.environ["JAX_PLATFORMS"] = "cpu"
# Compiling takes a quarter to a half less with the older emitters and in one thread, in programs
# of the tests too. With XLA_FLAGS given, `XLA_FLAGS= pytest`, the compiler is as users have it.
# XLA ends the process at a flag that it does not know: jaxlib 0.11 has no older emitters any more.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_cpu_parallel_codegen_split_count=1"
    + " --xla_cpu_use_fusion_emitters=false" * (Version(version("jaxlib")) < Version("0.11")),
)

import hypothesis
import jax
import pytest

sys.dont_write_bytecode = False  # as in the processes that have the environment from here
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests compile much and compute little: optimising costs more than it saves, and what several tests
# train or paint is compiled once. The folder goes with the process.
jax.config.update("jax_disable_most_optimizations", True)
_PROGRAMS = tempfile.TemporaryDirectory(prefix="imagen_jax_tests_")
jax.config.update("jax_compilation_cache_dir", _PROGRAMS.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

# Properties: a few cases in the suite, the same each time; many, and other ones at each start, with
# `pytest --hypothesis-profile=long`. Compiling makes a first case slow, so no case has a deadline.
hypothesis.settings.register_profile("suite", max_examples=50, derandomize=True, deadline=None)
hypothesis.settings.register_profile(
    "long",
    max_examples=10_000,
    database=None,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")

# Files that take minutes begin first, or one process waits at the end for the other's.
LONG = ("test_end_to_end", "test_command", "test_step", "test_golden", "test_targets", "test_loop")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)


def pytest_collection_finish() -> None:
    """Tracing makes many objects: what was imported is not searched for garbage each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="module")
def one_device() -> Iterator[None]:
    """The first of the eight devices alone, for tests that prove nothing of sharding.

    Partitioned programs take a third longer to compile, and a single image is cut in eight parts.
    """
    first = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("devices", "local_devices"):
            patch.setattr(jax, name, lambda *_, **__: first)
        yield


@pytest.fixture(autouse=True)
def _own_folder_for_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """`imagen` called in a test does not tell Python what programs of later tests may import."""
    monkeypatch.setenv("PYTHONSAFEPATH", "")
