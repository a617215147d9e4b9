"""Batch normalization with the gradient in closed form, against automatic differentiation."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.models.fast.normalization import batch_normalize, normalize
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
