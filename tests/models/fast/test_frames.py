"""Convolution and maximum over frames, against XLA's convolutions and windows; both orders of frames and joints."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.models.fast.frames import convolve_frames, every_frame, max_pool_frames
from tests.models.fast.comparison import assert_same, normal

both_orders = pytest.mark.parametrize("axis", [-2, -1])


def frames_at(axis: int, x: jax.Array) -> jax.Array:
    """`[C, N, T, V]` with its frames at `axis`."""
    return x if axis == -2 else x.swapaxes(-1, -2)


@both_orders
@pytest.mark.parametrize("frames", [1, 4, 7])
@pytest.mark.parametrize(("size", "stride", "dilation"), [(5, 1, 1), (5, 1, 2), (5, 2, 1), (5, 2, 2), (3, 2, 1)])
def test_convolve_frames(axis, frames, size, stride, dilation):
    def fast(kernel, x, bias):
        return frames_at(axis, convolve_frames(kernel, frames_at(axis, x), bias, stride, dilation, axis))

    def plain(kernel, x, bias):
        reach = dilation * (size - 1) // 2
        y = jax.lax.conv_general_dilated(
            x.transpose(1, 2, 3, 0),
            kernel[:, None],
            window_strides=(stride, 1),
            padding=((reach, reach), (0, 0)),
            rhs_dilation=(dilation, 1),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )
        return y.transpose(3, 0, 1, 2) + bias[:, None, None, None]

    assert_same(fast, plain, normal(size, 3, 4), normal(3, 2, frames, 5), normal(4))


@both_orders
@pytest.mark.parametrize("frames", [1, 5, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_max_pool_frames(axis, frames, stride):
    def fast(x):
        return frames_at(axis, max_pool_frames(frames_at(axis, x), stride, axis))

    def plain(x):
        y = x.transpose(1, 2, 3, 0)
        pooled = nn.max_pool(y, (3, 1), strides=(stride, 1), padding=((1, 1), (0, 0)))
        return pooled.transpose(3, 0, 1, 2)

    # All negative, so that a padding of zeros would be seen.
    assert_same(fast, plain, -1 - np.abs(normal(3, 2, frames, 5)))


@both_orders
def test_every_frame(axis):
    x = normal(2, 3, 8, 5)
    y = frames_at(axis, every_frame(jnp.asarray(frames_at(axis, x)), 2, axis, begin=1, length=6))
    np.testing.assert_array_equal(y, x[:, :, 1:7:2].astype(np.float32))
