"""Tensors that don't fit a network: missing, extra, of another shape; each by name."""

from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]  # by the tensor's name


def tensor_mismatches(there: Shapes, wanted: Shapes, *, extra: bool = True) -> list[str]:
    """A line for each tensor that doesn't fit; those that nobody wants count if `extra`."""
    return [
        *(f"missing {name} {shape}" for name, shape in wanted.items() if name not in there),
        *(f"extra {name} {there[name]}" for name in there if extra and name not in wanted),
        *(
            f"{name} is {there[name]}, wanted {shape}"
            for name, shape in wanted.items()
            if name in there and there[name] != shape
        ),
    ]
