"""Batch normalization with a gradient in closed form, of features and of bodies that count several times."""

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


def normalize_bodies(
    x: jax.Array, scale: jax.Array, bias: jax.Array, weights: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As `batch_normalize`, with bodies that count several times; each clip is normalized by itself.

    Plain form: `batch_normalize` over the bodies of `x`, each repeated as often as it counts. A gradient with respect
    to `x` is the sum over the repetitions.

    Args:
      x: features, `[C, N, M, rest]`.
      scale, bias: parameters, `[C]`.
      weights: how often each body counts, `[N, M]`; a body that counts 0 times has no influence.
      epsilon: added to the variance.

    Returns:
      The normalized features, and the mean and variance (biased), `[C, N]` each. No gradient flows through the latter
      two.
    """
    return _normalize_bodies(x, scale, bias, weights, epsilon)


def _compute_bodies(x, scale, bias, weights, epsilon: float):
    return _forward_bodies(x, scale, bias, weights, epsilon)[0]


def _forward_bodies(x, scale, bias, weights, epsilon: float):
    exact = at_least_float32(x)
    weights = weights.astype(exact.dtype)
    share = weights / (weights.sum(axis=1, keepdims=True) * x.shape[3])  # of one value in the sums
    mean = (exact.sum(axis=3) * share).sum(axis=2)
    var = (jnp.square(exact - _wide(mean)).sum(axis=3) * share).sum(axis=2)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = normalize(x, _wide(mean), _wide(inverse), _wide(scale), _wide(bias))
    return (y, mean, var), (x, mean, inverse, scale, share)


def _backward_bodies(epsilon: float, saved, gradients):
    del epsilon
    x, mean, inverse, scale, share = saved
    gradient, centered = at_least_float32(gradients[0]), at_least_float32(x) - _wide(mean)
    of_bias = gradient.sum(axis=(2, 3))
    of_scale = (gradient * centered).sum(axis=(2, 3)) * inverse
    both = _wide(of_bias) + centered * _wide(inverse * of_scale)
    of_x = _wide(scale[:, None] * inverse) * (gradient - share[:, :, None] * both)
    return of_x.astype(x.dtype), of_scale.sum(axis=1), of_bias.sum(axis=1), None


def _wide(values: jax.Array) -> jax.Array:
    """`[C]` or `[C, N]` -> four axes, to broadcast against `[C, N, M, rest]`."""
    return values.reshape(*values.shape, *[1] * (4 - values.ndim))


_normalize_bodies = jax.custom_vjp(_compute_bodies, nondiff_argnums=(4,))
_normalize_bodies.defvjp(_forward_bodies, _backward_bodies)
