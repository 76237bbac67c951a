"""Floating-point operations of a function, counted on its trace: two per multiply-add.

Convolutions and matrix products alone count, as in published figures; a scan's body counts once a
turn, which the compiler's own count does not do.
"""

import math
from collections.abc import Callable
from typing import Any

import jax


def count_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """FLOPs of one call; shapes may stand in for arrays, and nothing is computed."""
    return _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of_jaxpr(jaxpr: Any) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        output = equation.outvars[0].aval.shape
        features = params["dimension_numbers"].rhs_spec[0]  # where the kernel has output channels
        taps = math.prod(n for axis, n in enumerate(kernel) if axis != features)
        zeros = math.prod(params["lhs_dilation"])  # are between pixels: no products
        return 2 * math.prod(output) * taps // zeros
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        output = equation.outvars[0].aval.shape
        return 2 * math.prod(output) * math.prod(left[axis] for axis in contracted)
    turns = params["length"] if name == "scan" else 1
    inner = [x for value in params.values() for x in _jaxprs(value)]
    if name == "cond":
        return max(map(_of_jaxpr, inner), default=0)
    return turns * sum(map(_of_jaxpr, inner))


def _jaxprs(value: Any) -> list[Any]:
    """The functions inside an equation's parameter."""
    if hasattr(value, "eqns"):
        return [value]
    if hasattr(value, "jaxpr"):
        return [value.jaxpr]
    if isinstance(value, tuple | list):
        return [x for item in value for x in _jaxprs(item)]
    return []
