"""Counts the multiply-adds of a traced program, which papers in this field call FLOPs. Needs only jax."""

import math

from jax.extend.core import jaxprs_in_params


def multiply_adds(jaxpr) -> int:
    """Counts the multiply-adds of the matrix products and convolutions in a jaxpr (`jax.make_jaxpr(f)(...).jaxpr`).

    Products with padding count; elementwise operations and sums do not.

    Raises: ValueError for a loop, or for branches of unequal work: their number depends on the data.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        branches = {multiply_adds(branch.jaxpr) for branch in params["branches"]} if name == "cond" else set()
        if name == "while" or len(branches) > 1:
            raise ValueError(f"the multiply-adds of {name!r} depend on the data; they cannot be counted")
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            # The number of kernel values per output value: all of them, divided by the number of output channels.
            features = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
            total += equation.outvars[0].aval.size * (kernel.size // features)
        inner = sum(branches) if branches else sum(multiply_adds(part) for part in jaxprs_in_params(params))
        total += inner * (params["length"] if name == "scan" else 1)
    return total
