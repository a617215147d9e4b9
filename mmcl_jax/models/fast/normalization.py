"""Batch normalization with a gradient in closed form."""

import jax
import jax.numpy as jnp

from mmcl_jax.models.precision import at_least_float32


def normalize(x: jax.Array, mean: jax.Array, inverse: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns `(x - mean) * inverse * scale + bias` in the type of `x`.

    `inverse` is one over the standard deviation; all arguments broadcast against `x`. The features are centered before
    they are scaled: `x * factor + offset` would lose digits where the mean is large.
    """
    return ((at_least_float32(x) - mean) * (scale * inverse) + bias).astype(x.dtype)


def batch_normalize(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axis: int, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes `x` over one axis by its own mean and variance, computed in float32 or wider.

    Plain form: `(x - x.mean(axis)) / jnp.sqrt(x.var(axis) + epsilon) * scale + bias`, with the axis kept.

    Faster everywhere: the gradient is the closed form, two sums and one pass over the features. Automatic
    differentiation takes three passes and keeps more of them in memory.

    Args:
      x: features, three axes.
      scale: parameter of each channel; broadcasts against `x`.
      bias: the same.
      axis: the axis that is normalized.
      epsilon: added to the variance.

    Returns:
      The normalized features, and the mean and variance (biased), the axis kept. No gradient flows through the latter
      two.
    """
    return _batch_normalize(x, scale, bias, axis, epsilon)


def _compute(x, scale, bias, axis: int, epsilon: float):
    return _forward(x, scale, bias, axis, epsilon)[0]


def _forward(x, scale, bias, axis: int, epsilon: float):
    exact = at_least_float32(x)
    mean = exact.mean(axis, keepdims=True)
    var = jnp.square(exact - mean).mean(axis, keepdims=True)
    inverse = jax.lax.rsqrt(var + epsilon)
    return (normalize(x, mean, inverse, scale, bias), mean, var), (x, mean, inverse, scale)


def _backward(axis: int, epsilon: float, saved, gradients):
    del epsilon
    x, mean, inverse, scale = saved
    gradient, centered = at_least_float32(gradients[0]), at_least_float32(x) - mean
    of_bias = gradient.sum(axis, keepdims=True)
    of_scale = (gradient * centered).sum(axis, keepdims=True) * inverse
    count = x.shape[axis]
    of_x = (scale * inverse) * (gradient - of_bias / count - centered * (inverse * of_scale / count))
    return of_x.astype(x.dtype), _sum_groups(of_scale, scale), _sum_groups(of_bias, scale)


def _sum_groups(gradient: jax.Array, parameter: jax.Array) -> jax.Array:
    """A parameter's gradient for each group, `[C, groups, 1]` or `[groups, 1, C]` -> their sum, in its shape."""
    groups = 1 if parameter.ndim == gradient.ndim else 0
    return gradient.sum(groups).reshape(parameter.shape)


_batch_normalize = jax.custom_vjp(_compute, nondiff_argnums=(3, 4))
_batch_normalize.defvjp(_forward, _backward)
