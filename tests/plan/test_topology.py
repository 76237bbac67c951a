"""Topologies by name: what the TPU compiler knows, and refusals that say what it would accept."""

import pytest

from imagen_jax.plan import topology


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("v5litepod:2x2", "no TPU generation 'v5litepod'; there are v4, v5e, v5p, v6e, tpu7x"),
        ("v5e-16", "'v5e-16' is not spelled GENERATION:SHAPE, such as v5e:16x16"),
        ("v5e", "is not spelled"),
        ("v4:4x4", "v4 slices have 3 dimensions, such as v4:2x2x1"),
        ("v6e:2x2x1", "v6e slices have 2 dimensions, such as v6e:2x2"),
    ],
)
def test_names_that_do_not_fit_are_refused(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        topology.parse_topology(name)


def test_generation_and_shape() -> None:
    chip, shape = topology.parse_topology("v5p:4x4x8")
    assert (chip.name, shape) == ("v5p", (4, 4, 8))


def test_planning_without_the_compiler_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    environment: dict[str, str] = {}
    with pytest.raises(ValueError, match=r"pip install 'imagen_jax\[plan\]'"):
        topology.use_compiler(environment)
    assert not environment


@pytest.mark.parametrize(
    ("requirement", "installed", "says"),
    [
        ('libtpu==0.0.42.*; extra == "tpu"', "0.0.42.1", ""),
        ('libtpu==0.0.42.*; extra == "tpu"', "0.0.42", ""),
        ('libtpu==0.0.42.*; extra == "tpu"', "0.0.52", "pip install 'libtpu==0.0.42.*'"),
        ('libtpu==0.0.4.*; extra == "tpu"', "0.0.42", "libtpu 0.0.42 is not the one"),
        ("numpy>=2.0", "0.0.52", ""),
    ],
)
def test_another_compiler_than_that_of_jax_is_told(requirement, installed, says) -> None:
    found = topology.describe_mismatch(["scipy>=1.14", requirement], installed)
    assert says in found
    assert bool(says) == bool(found)


def test_planning_stays_on_the_cpu(monkeypatch) -> None:
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: object())
    environment: dict[str, str] = {}
    topology.use_compiler(environment)
    assert environment["JAX_PLATFORMS"] == "cpu"
    assert environment["TPU_SKIP_MDS_QUERY"] == "1"
