"""Variables of a backbone for clips of another number of bodies than it was trained on."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def fit_bodies(variables: Mapping, bodies: int, trained: int) -> dict:
    """The variables for clips of `bodies` bodies.

    Only the first batch norm, `data_bn`, knows which body of its clip a body is: it normalizes each with statistics of
    its own. A body that the model was not trained on gets the first body's; surplus ones are dropped.

    Args:
      variables: `params` and `batch_stats` of a backbone.
      bodies: wanted M.
      trained: M of the clips that the variables were trained on; the arrays of `data_bn` are `[trained * V * C]`.
    """

    return {
        kind: {
            name: jax.tree.map(lambda array: fit_array(array, bodies, trained), tree) if name == "data_bn" else tree
            for name, tree in part.items()
        }
        for kind, part in variables.items()
    }


def fit_array(array: Any, bodies: int, trained: int) -> jax.Array:
    """An array of `data_bn`, `[trained * V * C]` -> `[bodies * V * C]`; see `fit_bodies`."""
    by_body = jnp.asarray(array).reshape(trained, -1)
    kept = by_body[: min(bodies, trained)]
    return jnp.concatenate([kept, jnp.repeat(by_body[:1], bodies - len(kept), axis=0)]).reshape(-1)
