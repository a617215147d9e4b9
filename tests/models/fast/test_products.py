"""1x1 convolutions as flat products, against einsum."""

import jax.numpy as jnp
import numpy as np

from mmcl_jax.models.fast.products import channel_product
from tests.models.fast.comparison import assert_same, normal


def test_channel_product():
    kernel, x = normal(3, 5), normal(3, 2, 1, 4, 6)
    assert_same(channel_product, lambda kernel, x: jnp.einsum("io,inmtv->onmtv", kernel, x), kernel, x)


def test_channel_product_with_a_bias():
    def plain(kernel, x, bias):
        return jnp.einsum("io,inm->onm", kernel, x) + bias[:, None, None]

    assert_same(channel_product, plain, normal(3, 5), normal(3, 2, 4), normal(5))


def test_the_type_is_that_of_the_features():
    kernel, x, bias = (np.asarray(array, np.float32) for array in (normal(3, 5), normal(3, 2), normal(5)))
    assert channel_product(kernel, jnp.asarray(x, jnp.bfloat16), bias).dtype == jnp.bfloat16
