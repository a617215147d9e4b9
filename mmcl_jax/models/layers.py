"""Layers that several models share: batch norm as PyTorch computes it, 1x1 and temporal convolutions, pooling.

Between a backbone's entry and its exit, features are **channel-major**, `[C, N, M, T, V]` (channel, clip, body, frame,
joint): a 1x1 convolution is then one matrix product, batch norm reduces contiguous rows, and aggregation over joints is
a batch of small products that need no transposing. On CPUs that is much faster than channels last.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl_jax.models.fast.frames import convolve_frames
from mmcl_jax.models.fast.normalization import batch_normalize, normalize, normalize_bodies
from mmcl_jax.models.fast.products import channel_product
from mmcl_jax.models.groups import group_count
from mmcl_jax.models.initializers import Initializer, Initializers, gcn_init
from mmcl_jax.models.precision import at_least_float32

EPSILON = 1e-5  # added to variances, PyTorch's default


class BatchNorm(nn.Module):
    """Batch normalization over every axis but that of the channels, as PyTorch's `BatchNorm2d` computes it.

    Input and output have the same shape and type. Statistics are float32, or float64 if the input is. Two things differ
    from `flax.linen.BatchNorm`: running variances take the unbiased estimate, and statistics can be taken over groups
    of clips, as two GPUs do under PyTorch's `DataParallel` (each group is normalized by itself; the running statistics
    follow only the first group).

    Attributes:
      group_size: clips in a group, a divisor of N; None means the whole batch.
      channel_major: the input is `[C, N, ...]`; otherwise `[N, ..., C]`.
      momentum: the weight that the old running statistics keep (1 minus PyTorch's `momentum`).
      epsilon: added to the variance.
      scale_init: initializer of the scale.

    Raises:
      ConfigError: in training, `group_size` does not divide N.
    """

    group_size: int | None = None
    channel_major: bool = False
    momentum: float = 0.9
    epsilon: float = EPSILON
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, weights: jax.Array | None = None) -> jax.Array:
        """Normalizes `x`. With `weights` `[N, M]`, body m of clip n counts so often, and each clip is a group.

        `x` is channel-major then: `[C, N, M, ...]`. See `packed`.
        """
        channels = x.shape[0 if self.channel_major else -1]
        scale = self.param("scale", self.scale_init, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        # [C, groups, rest] or [groups, rest, C]; the statistics keep the reduced axis.
        per_channel = (channels, 1, 1) if self.channel_major else (channels,)
        if not train:
            flat = x.reshape(channels, 1, -1) if self.channel_major else x
            mean, var, scale, bias = (
                values.reshape(per_channel) for values in (running_mean.value, running_var.value, scale, bias)
            )
            return normalize(flat, mean, jax.lax.rsqrt(var + self.epsilon), scale, bias).reshape(x.shape)
        if weights is None:
            groups = group_count(x.shape[1 if self.channel_major else 0], self.group_size)
            shape, axis = ((channels, groups, -1), 2) if self.channel_major else ((groups, -1, channels), 1)
            grouped = x.reshape(shape)
            scale, bias = scale.reshape(per_channel), bias.reshape(per_channel)
            y, mean, var = batch_normalize(grouped, scale, bias, axis, self.epsilon)
            first, count = (slice(None), 0, 0) if self.channel_major else (0, 0), grouped.shape[axis]
            least = max(count - 1, 1)
        else:
            grouped = x.reshape(channels, *weights.shape, -1)
            y, mean, var = normalize_bodies(grouped, scale, bias, weights, self.epsilon)
            first, count = (slice(None), 0), weights[0].sum().astype(mean.dtype) * grouped.shape[3]
            least = jnp.maximum(count - 1, 1)
        if not self.is_initializing():
            unbiased = var[first] * (count / least)
            running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean[first]
            running_var.value = self.momentum * running_var.value + (1 - self.momentum) * unbiased
        return y.reshape(x.shape)


class Conv1x1(nn.Module):
    """A 1x1 convolution, `[C_in, ...]` -> `[channels, ...]`.

    Attributes:
      channels: output channels.
      fan_out: output channels of each of the convolutions that are stacked in this one; None means `channels`.
      initializers: of kernel and bias.
    """

    channels: int
    fan_out: int | None = None
    initializers: Initializers = gcn_init

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel_init, bias_init = self.initializers(x.shape[0], self.fan_out or self.channels)
        kernel = self.param("kernel", kernel_init, (x.shape[0], self.channels))
        bias = self.param("bias", bias_init, (self.channels,))
        return channel_product(kernel, x, bias)


class TemporalConv(nn.Module):
    """A convolution over frames, padded with zeros: `[C_in, ..., T, V]` -> `[channels, ..., ceil(T / stride), V]`.

    Attributes:
      channels: output channels.
      kernel_size: frames that a result sees.
      stride: frames between two results.
      dilation: frames between two that a result sees.
      initializers: of kernel and bias.
      frames_axis: axis of the frames, -2, or -1 for features `[C, ..., V, T]`.
    """

    channels: int
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    initializers: Initializers = gcn_init
    frames_axis: int = -2

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel_init, bias_init = self.initializers(self.kernel_size * x.shape[0], self.kernel_size * self.channels)
        kernel = self.param("kernel", kernel_init, (self.kernel_size, x.shape[0], self.channels))
        bias = self.param("bias", bias_init, (self.channels,))
        return convolve_frames(kernel, x, bias, self.stride, self.dilation, self.frames_axis)


def pool(features: jax.Array) -> jax.Array:
    """The mean over bodies, frames and joints, `[N, M, T, V, C]` -> `[N, C]`, in float32 or wider."""
    return at_least_float32(features).mean(axis=(1, 2, 3))
