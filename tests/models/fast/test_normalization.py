"""Batch normalization with the gradient in closed form, against automatic differentiation."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.models.fast.normalization import batch_normalize, normalize, normalize_bodies
from tests.models.fast.comparison import assert_same, normal


@pytest.mark.parametrize(("shape", "per_channel", "axis"), [((4, 2, 6), (4, 1, 1), 2), ((2, 6, 4), (4,), 1)])
def test_batch_normalize(shape, per_channel, axis):
    def plain(x, scale, bias):
        mean, var = x.mean(axis, keepdims=True), x.var(axis, keepdims=True)
        return (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias

    x, scale, bias = 3 * normal(*shape) + 2, normal(*per_channel, seed=1), normal(*per_channel, seed=2)
    assert_same(lambda *arguments: batch_normalize(*arguments, axis, 1e-5)[0], plain, x, scale, bias)
    _, mean, var = batch_normalize(x.astype(np.float32), scale, bias, axis, 1e-5)
    np.testing.assert_allclose(mean, x.mean(axis, keepdims=True), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(var, x.var(axis, keepdims=True), rtol=1e-5)


def test_normalize():
    arguments = normal(4, 5), normal(4, 1), normal(4, 1, seed=1), normal(4, 1, seed=2), normal(4, 1, seed=3)
    assert_same(normalize, lambda x, mean, inverse, scale, bias: (x - mean) * inverse * scale + bias, *arguments)


def test_bodies_that_count_several_times():
    counts = np.array([[1, 3, 0], [2, 1, 1]])

    def plain(x, scale, bias):
        for clip in range(2):
            repeated = jnp.repeat(x[:, clip], counts[clip], axis=1, total_repeat_length=4)
            mean, var = repeated.mean((1, 2), keepdims=True), repeated.var((1, 2), keepdims=True)
            new = (x[:, clip] - mean) / jnp.sqrt(var + 1e-5) * scale[:, None, None] + bias[:, None, None]
            x = jnp.asarray(x).at[:, clip].set(new)
        return x * np.minimum(counts, 1)[:, :, None]

    def fast(x, scale, bias):
        y, _, _ = normalize_bodies(x, scale, bias, jnp.asarray(counts, jnp.float32), 1e-5)
        return y * np.minimum(counts, 1)[:, :, None]

    x, scale, bias = 3 * normal(4, 2, 3, 5) + 2, normal(4, seed=1), normal(4, seed=2)
    assert_same(fast, plain, x, scale, bias)
