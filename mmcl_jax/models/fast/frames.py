"""Convolution and maximum over frames without XLA's convolutions and windows.

Features are `[C, ..., T, V]` (`axis=-2`) or `[C, ..., V, T]` (`axis=-1`), where `axis` is that of the frames.
"""

import jax
import jax.numpy as jnp

from mmcl_jax.models.fast.products import channel_product


def convolve_frames(
    kernel: jax.Array, x: jax.Array, bias: jax.Array, stride: int, dilation: int, axis: int = -2
) -> jax.Array:
    """A dilated convolution over frames, padded with zeros: `[K, I, O]`, `[I, ...]`, `[O]` -> `[O, ...]`.

    The result has `ceil(T / stride)` frames. Plain form, with `begin = k * dilation - dilation * (K - 1) // 2`:
    `sum(jnp.einsum("io,i...->o...", kernel[k], shift(x, begin)) for k in range(K)) + bias`, every `stride`-th frame.

    Faster on CPUs, where XLA's gradients of convolutions are slow: the shifted copies of `x` are gathered as channels,
    so that the convolution is one matrix product, over only as many frames as the result has. Frames last and a stride
    of 1 allow for a faster order still: the product comes first, and its K parts are shifted while they are added,
    which copies nothing.
    """
    size, channels_in, channels = kernel.shape
    reach = dilation * (size - 1)
    if stride == 1 and axis == -1:
        offsets = [i * dilation - reach // 2 for i in range(size)]
        products = channel_product(kernel.transpose(1, 0, 2).reshape(channels_in, -1), x)
        products = products.reshape(size, channels, *x.shape[1:])
        y = jnp.asarray(sum(_shift_frames(product, offset) for product, offset in zip(products, offsets, strict=True)))
        return y + bias.astype(y.dtype).reshape(-1, *[1] * (y.ndim - 1))
    frames = x.shape[axis]
    padded = _pad_frames(x, reach // 2, reach - reach // 2, 0.0, axis)
    taps = [every_frame(padded, stride, axis, i * dilation, frames) for i in range(size)]
    return channel_product(kernel.reshape(-1, channels), jnp.concatenate(taps), bias)


def max_pool_frames(x: jax.Array, stride: int, axis: int = -2) -> jax.Array:
    """The maximum of each frame and its two neighbors, at every `stride`-th frame: `ceil(T / stride)` frames.

    Plain form: `nn.max_pool` over a window of three frames, padded by one.

    Faster on CPUs: two maxima of slices instead of a window reduction, whose gradient is slow.
    """
    padded, frames = _pad_frames(x, 1, 1, -jnp.inf, axis), x.shape[axis]
    first, second, third = (every_frame(padded, stride, axis, begin, frames) for begin in range(3))
    return jnp.maximum(jnp.maximum(first, second), third)


def every_frame(x: jax.Array, stride: int, axis: int = -2, begin: int = 0, length: int | None = None) -> jax.Array:
    """Every `stride`-th of `length` frames from `begin` on; None: of all. Plain form: `x[..., begin::stride, :]`."""
    end = x.shape[axis] if length is None else begin + length
    return jax.lax.slice_in_dim(x, begin, end, stride, axis % x.ndim)


def _pad_frames(x: jax.Array, before: int, after: int, value: float, axis: int) -> jax.Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (before, after)
    return jnp.pad(x, widths, constant_values=value)


def _shift_frames(x: jax.Array, offset: int) -> jax.Array:
    """Frame t of the result, `[..., T]`, is frame t + offset of `x`, or zero where `x` has none."""
    edges = [(0, 0, 0)] * (x.ndim - 1)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), [*edges, (-offset, offset, 0)])
