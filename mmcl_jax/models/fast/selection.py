"""HD-GCN's selections: maxima and nearest nodes, with gradients that XLA computes well."""

import jax
import jax.numpy as jnp


def largest(x: jax.Array, axis: int) -> jax.Array:
    """The maximum over one axis.

    Plain form: `x.max(axis)`.

    The gradient goes to one element, as in PyTorch; that of `jnp.max` is shared among those that equal the maximum. XLA
    may compute `x` once for the maximum and once more, in another order, for that comparison: then no element is equal,
    and the gradient is 0 / 0.
    """
    return _largest(x, axis)


def _maximum(x: jax.Array, axis: int) -> jax.Array:
    return x.max(axis)


def _largest_forward(x: jax.Array, axis: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    index = jnp.argmax(x, axis, keepdims=True)
    return jnp.take_along_axis(x, index, axis).squeeze(axis), (x, index)


def _largest_backward(axis: int, saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    x, index = saved  # only the shape of x is used
    chosen = jax.lax.broadcasted_iota(index.dtype, x.shape, axis) == index
    return (jnp.where(chosen, jnp.expand_dims(gradient, axis), 0),)


_largest = jax.custom_vjp(_maximum, nondiff_argnums=(1,))
_largest.defvjp(_largest_forward, _largest_backward)


def nearest(x: jax.Array, count: int) -> jax.Array:
    """The nodes nearest to each node, itself among them, one-hot: `[L, C, N, M, V]` -> `[L, N, M, V, count, V]`.

    Plain form: `jax.nn.one_hot(jnp.argsort(distance)[..., :count], V)`, where `distance` is that of each two nodes.

    Faster on CPUs: gathering is then a product with the result. The gradient of indexing is a scatter, which XLA does
    slowly.
    """
    squares = jnp.square(x).sum(axis=1)
    # A choice, not a value: rounded products, as accelerators take them by default, would choose other nodes.
    products = jnp.einsum("lcnmu,lcnmv->lnmuv", x, x, precision=jax.lax.Precision.HIGHEST)
    _, index = jax.lax.top_k(2 * products - squares[..., :, None] - squares[..., None, :], count)
    return jax.nn.one_hot(index, x.shape[-1], dtype=x.dtype)
