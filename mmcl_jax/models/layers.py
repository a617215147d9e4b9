"""Blocks that several models share: batch normalisation with explicit groups, convolutions as matrix products.

Skeleton features are **channel-major** between a backbone's entry and its exit, `[C, N, M, T, V]`: a 1x1 convolution is
then one matrix product with no batch, batch norm reduces contiguous rows, and aggregation over joints is a batch of
small products that need no transposing. On a CPU that is much faster than channels last.
"""

import functools
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl_jax.models.groups import group_count

EPSILON = 1e-5  # added to variances, PyTorch's default


class BatchNorm(nn.Module):
    """Batch normalisation over every axis but the channels', as PyTorch's `BatchNorm2d` computes it.

    Input and output have the same shape and type. Statistics are float32 (float64 where the input is). Differences
    from `flax.linen.BatchNorm`: running variances take the unbiased estimate, and statistics can be taken over groups
    of clips, as two GPUs under PyTorch's `DataParallel` do (each group normalises itself; the running statistics follow
    the first group only).

    Attributes:
      group_size: clips a group, N must be a multiple of it; None means the whole batch.
      channel_major: the input is `[C, N, ...]`; otherwise `[N, ..., C]`.
      momentum: the weight that the old running statistics keep (PyTorch's `1 - momentum`).
      epsilon: added to the variance.
      scale_init: initialiser of the scale.
    """

    group_size: int | None = None
    channel_major: bool = False
    momentum: float = 0.9
    epsilon: float = EPSILON
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        channels = x.shape[0 if self.channel_major else -1]
        scale = self.param("scale", self.scale_init, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        # [C, groups, rest] or [groups, rest, C]; the statistics keep the reduced axis.
        per_channel = (channels, 1, 1) if self.channel_major else (channels,)
        scale, bias = scale.reshape(per_channel), bias.reshape(per_channel)
        if not train:
            flat = x.reshape(channels, 1, -1) if self.channel_major else x
            mean, var = running_mean.value.reshape(per_channel), running_var.value.reshape(per_channel)
            return _normalised(flat, mean, jax.lax.rsqrt(var + self.epsilon), scale, bias).reshape(x.shape)
        groups = group_count(x.shape[1 if self.channel_major else 0], self.group_size)
        shape, axis = ((channels, groups, -1), 2) if self.channel_major else ((groups, -1, channels), 1)
        grouped = x.reshape(shape)
        y, mean, var = _batch_normalise(grouped, scale, bias, axis, self.epsilon)
        if not self.is_initializing():
            count = grouped.shape[axis]
            first = (slice(None), 0, 0) if self.channel_major else (0, 0)
            unbiased = var[first] * (count / max(count - 1, 1))
            running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean[first]
            running_var.value = self.momentum * running_var.value + (1 - self.momentum) * unbiased
        return y.reshape(x.shape)


def _normalised(x: jax.Array, mean: jax.Array, inverse: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """`x`, in its own type, as `mean`, the inverse deviation, `scale` and `bias` say; all broadcast against it."""
    # Centred before scaling: `x * factor + offset` would lose digits where the mean is large.
    return ((wide(x) - mean) * (scale * inverse) + bias).astype(x.dtype)


class FoldedNorm(nn.Module):
    """What is left of a `BatchNorm` where the product before it took over its factor, its offset, or both: the rest.

    Variables, both in `params` and both optional: `scale` and `bias`, `[C]`.

    Attributes:
      channel_major: the input is `[C, N, ...]`; otherwise `[N, ..., C]`.
      scale_init: accepted as `BatchNorm` does; nothing is initialised here.
    """

    channel_major: bool = False
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Raises: ValueError in training, which needs the statistics that are folded."""
        if train:
            raise ValueError("a model with folded batch norms cannot train; train the model that it was made of")
        per_channel = (-1, *[1] * (x.ndim - 1)) if self.channel_major else (-1,)
        if self.has_variable("params", "scale"):
            x = x * self.get_variable("params", "scale").reshape(per_channel)
        if self.has_variable("params", "bias"):
            x = x + self.get_variable("params", "bias").reshape(per_channel)
        return x


def make_norm(folded: bool, group_size: int | None) -> Callable[..., nn.Module]:
    """What makes the norms of a backbone, channel-major."""
    if folded:
        return functools.partial(FoldedNorm, channel_major=True)
    return functools.partial(BatchNorm, group_size=group_size, channel_major=True)


def is_folded(norm: Callable[..., nn.Module]) -> bool:
    """Whether `norm`, of `make_norm`, belongs to a model with folded variables."""
    return norm.func is FoldedNorm


def norm_affine(params: Mapping, batch_stats: Mapping, name: str) -> tuple[jax.Array, jax.Array]:
    """Factor and offset, `[C]` each, that the batch norm `name` amounts to in evaluation."""
    params, stats = params[name], batch_stats[name]
    factor = params["scale"] * jax.lax.rsqrt(stats["var"] + EPSILON)
    return factor, params["bias"] - stats["mean"] * factor


def fold_conv(params: Mapping, factor: jax.Array, offset: jax.Array) -> dict[str, jax.Array]:
    """A convolution's kernel `[..., O]` and bias `[O]` with factor and offset `[O]` of its batch norm in them."""
    return {"kernel": params["kernel"] * factor, "bias": params["bias"] * factor + offset}


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _batch_normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axis: int, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises `x` over `axis` alone; also the mean and variance that it took, through which no gradient flows.

    The gradient is the closed form: two sums and one pass over the features, where automatic differentiation makes
    three and keeps more of them.
    """
    return _batch_normalise_forward(x, scale, bias, axis, epsilon)[0]


def _batch_normalise_forward(x, scale, bias, axis: int, epsilon: float):
    exact = wide(x)
    mean = exact.mean(axis, keepdims=True)
    var = jnp.square(exact - mean).mean(axis, keepdims=True)
    inverse = jax.lax.rsqrt(var + epsilon)
    return (_normalised(x, mean, inverse, scale, bias), mean, var), (x, mean, inverse, scale)


def _batch_normalise_backward(axis: int, epsilon: float, saved, gradients):
    del epsilon
    x, mean, inverse, scale = saved
    gradient, centred = wide(gradients[0]), wide(x) - mean
    of_bias = gradient.sum(axis, keepdims=True)
    of_scale = (gradient * centred).sum(axis, keepdims=True) * inverse
    count = x.shape[axis]
    of_x = (scale * inverse) * (gradient - of_bias / count - centred * (inverse * of_scale / count))
    return of_x.astype(x.dtype), _over_groups(of_scale, scale), _over_groups(of_bias, scale)


_batch_normalise.defvjp(_batch_normalise_forward, _batch_normalise_backward)


def _over_groups(gradient: jax.Array, parameter: jax.Array) -> jax.Array:
    """A parameter's gradient by group, `[C, groups, 1]` or `[groups, 1, C]` -> their sum in the parameter's shape."""
    groups = 1 if parameter.ndim == gradient.ndim else 0
    return gradient.sum(groups).reshape(parameter.shape)


def fan_out_normal(fan_out: int) -> nn.initializers.Initializer:
    """PyTorch's `kaiming_normal_(mode='fan_out')`, for stacked kernels whose shape does not tell the fan."""
    return nn.initializers.normal((2.0 / fan_out) ** 0.5)


def linear_uniform(fan_in: int) -> nn.initializers.Initializer:
    """PyTorch's default for weights and biases of layers: uniform within `1 / sqrt(fan_in)`."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


Initializers = tuple[nn.initializers.Initializer, nn.initializers.Initializer]


def gcn_init(fan_in: int, fan_out: int) -> Initializers:
    """Of kernel and bias, as PyTorch's GCNs set them: `fan_out_normal`, zeros."""
    del fan_in
    return fan_out_normal(fan_out), nn.initializers.zeros


def default_init(fan_in: int, fan_out: int) -> Initializers:
    """Of kernel and bias, as PyTorch leaves them."""
    del fan_out
    return linear_uniform(fan_in), linear_uniform(fan_in)


class Conv1x1(nn.Module):
    """1x1 convolution, `[C_in, ...]` -> `[channels, ...]`.

    Attributes:
      channels: output channels.
      fan_out: output channels of each of the convolutions stacked in this one; None means `channels`.
      initializers: those of kernel and bias, from fan in and fan out.
    """

    channels: int
    fan_out: int | None = None
    initializers: Callable[[int, int], Initializers] = gcn_init

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel_init, bias_init = self.initializers(x.shape[0], self.fan_out or self.channels)
        kernel = self.param("kernel", kernel_init, (x.shape[0], self.channels))
        bias = self.param("bias", bias_init, (self.channels,))
        return channel_product(kernel, x, bias)


class TemporalConv(nn.Module):
    """Dilated convolution over frames, `[C_in, ..., T, V]` -> `[channels, ..., ceil(T / stride), V]`.

    Written as matrix products: XLA's convolution gradients are slow on CPUs. The one over gathered frames works on as
    many frames as come out; the one before shifting (`frames_axis=-1`) gathers nothing.

    Attributes:
      frames_axis: -2, or -1 where joints come before frames, `[..., V, T]`.
    """

    channels: int
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    initializers: Callable[[int, int], Initializers] = gcn_init
    frames_axis: int = -2

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel_init, bias_init = self.initializers(self.kernel_size * x.shape[0], self.kernel_size * self.channels)
        kernel = self.param("kernel", kernel_init, (self.kernel_size, x.shape[0], self.channels))
        bias = self.param("bias", bias_init, (self.channels,))
        reach = self.dilation * (self.kernel_size - 1)
        offsets = [i * self.dilation - reach // 2 for i in range(self.kernel_size)]
        if self.stride == 1 and self.frames_axis == -1:
            products = channel_product(kernel.transpose(1, 0, 2).reshape(x.shape[0], -1), x)
            products = products.reshape(self.kernel_size, self.channels, *x.shape[1:])
            y = sum(_shifted_frames(product, offset) for product, offset in zip(products, offsets, strict=True))
            return y + bias.astype(y.dtype).reshape(-1, *[1] * (y.ndim - 1))
        frames = x.shape[self.frames_axis]
        padded = pad_frames(x, reach // 2, reach - reach // 2, 0.0, self.frames_axis)
        taps = [
            every_frame(padded, self.stride, self.frames_axis, i * self.dilation, frames)
            for i in range(self.kernel_size)
        ]
        return channel_product(kernel.reshape(-1, self.channels), jnp.concatenate(taps), bias)


def _shifted_frames(x: jax.Array, offset: int) -> jax.Array:
    """Frame t of `[..., T]` becomes frame t + offset, zero where there is none."""
    edges = [(0, 0, 0)] * (x.ndim - 1)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), [*edges, (-offset, offset, 0)])


def frames_max_pool(x: jax.Array, stride: int, frames_axis: int = -2) -> jax.Array:
    """Maximum over three frames, `[..., T, V]` -> `[..., ceil(T / stride), V]`; `frames_axis` as in `TemporalConv`."""
    padded, frames = pad_frames(x, 1, 1, -jnp.inf, frames_axis), x.shape[frames_axis]
    first, second, third = (every_frame(padded, stride, frames_axis, begin, frames) for begin in range(3))
    return jnp.maximum(jnp.maximum(first, second), third)


def every_frame(x: jax.Array, stride: int, frames_axis: int, begin: int = 0, length: int | None = None) -> jax.Array:
    """One frame of each `stride`, from `begin` on, out of the next `length` (None: of all)."""
    end = x.shape[frames_axis] if length is None else begin + length
    return jax.lax.slice_in_dim(x, begin, end, stride, frames_axis % x.ndim)


def pad_frames(x: jax.Array, before: int, after: int, value: float, frames_axis: int = -2) -> jax.Array:
    """Pads the frames of `[..., T, V]` (`frames_axis=-1`: `[..., V, T]`) with `value`."""
    widths = [(0, 0)] * x.ndim
    widths[frames_axis] = (before, after)
    return jnp.pad(x, widths, constant_values=value)


def wide(x: jax.Array) -> jax.Array:
    """`x` in the type that statistics and whatever is small are computed in: float32 at least."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def pooled(features: jax.Array) -> jax.Array:
    """The mean over bodies, frames and joints, `[N, M, T, V, C]` -> `[N, C]`, in float32 at least."""
    return wide(features).mean(axis=(1, 2, 3))


def channel_product(kernel: jax.Array, x: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """A 1x1 convolution in the type of `x`: `[I, O]`, `[I, ...]`, `[O]` -> `[O, ...]`."""
    y = kernel.T.astype(x.dtype) @ x.reshape(x.shape[0], -1)  # flat, or XLA for CPUs would transpose the gradients
    return (y if bias is None else _add_bias(y, bias)).reshape(-1, *x.shape[1:])


@jax.custom_vjp
def _add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """`[O, P]` plus `[O]`, in the type of `x`. The bias's gradient is a product: XLA for CPUs sums slowly."""
    return x + bias.astype(x.dtype)[:, None]


def _add_bias_backward(bias: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    ones = jnp.ones(gradient.shape[1], gradient.dtype)
    summed = jnp.matmul(gradient, ones, precision="highest", preferred_element_type=bias.dtype)
    return gradient, summed


_add_bias.defvjp(lambda x, bias: (_add_bias(x, bias), bias), _add_bias_backward)
