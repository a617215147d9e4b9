"""Which type a value is computed in when features are bfloat16."""

import jax
import jax.numpy as jnp


def at_least_float32(x: jax.Array) -> jax.Array:
    """Returns `x` in float32, or in its own type where that is wider: for statistics, means and other small arrays."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
