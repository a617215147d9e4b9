"""HD-GCN's selections, against `max` and sorted distances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.models.fast.selection import largest, nearest
from tests.models.fast.comparison import assert_same, normal


@pytest.mark.parametrize("axis", [0, 2])
def test_largest(axis):
    assert_same(lambda x: largest(x, axis), lambda x: x.max(axis), normal(3, 4, 5))


def test_the_gradient_of_equal_elements_goes_to_one():
    gradient = jax.grad(lambda x: largest(x, 0))(jnp.ones(4))
    assert sorted(gradient.tolist()) == [0, 0, 0, 1]


@pytest.mark.parametrize("count", [1, 3, 6])
def test_nearest(count):
    x = normal(2, 3, 2, 1, 6).astype(np.float32)  # [L, C, N, M, V]
    distance = np.square(x[..., :, None] - x[..., None, :]).sum(axis=1)
    expected = jax.nn.one_hot(np.argsort(distance)[..., :count], 6)
    np.testing.assert_array_equal(nearest(x, count), expected)
