"""EfficientNet-Lite0, a small image encoder whose ImageNet weights come as a package."""

import itertools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl_jax.models.initializers import linear_uniform
from mmcl_jax.models.layers import BatchNorm
from mmcl_jax.models.precision import at_least_float32

STEM, HEAD = 32, 1280  # channels before and after the blocks
_DROPOUT = 0.2
# As published: deviation sqrt(2 / fan_out); a channel of a depthwise convolution has as many outputs as inputs.
_kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_depthwise_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Block(NamedTuple):
    """An inverted residual block: kernel size, stride, factor of the expansion, channels in and out."""

    kernel: int
    stride: int
    expansion: int
    channels_in: int
    channels: int

    @property
    def hidden(self) -> int:
        """Channels between the expansion and the projection."""
        return self.expansion * self.channels_in


def _stage(repeats: int, kernel: int, stride: int, expansion: int, channels_in: int, channels: int) -> list[Block]:
    first = Block(kernel, stride, expansion, channels_in, channels)
    return [first, *(Block(kernel, 1, expansion, channels, channels) for _ in range(repeats - 1))]


BLOCKS = (
    *_stage(1, 3, 1, 1, 32, 16),
    *_stage(2, 3, 2, 6, 16, 24),
    *_stage(2, 5, 2, 6, 24, 40),
    *_stage(3, 3, 2, 6, 40, 80),
    *_stage(3, 5, 1, 6, 80, 112),
    *_stage(4, 5, 2, 6, 112, 192),
    *_stage(1, 3, 1, 6, 192, 320),
)


class DepthwiseConv(nn.Module):
    """A convolution of each channel by itself: `[N, H, W, C]` -> `[N, ceil(H / stride), ceil(W / stride), C]`.

    A sum of shifted images, because XLA's grouped convolution, and still more its gradient, takes many times as long on
    CPUs. The sum is computed in float32 for every `dtype`. The kernel `[size, size, 1, C]` and the padding are those of
    `nn.Conv` with as many groups as channels, and 'SAME'.
    """

    size: int
    stride: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        clips, *image, channels = x.shape
        kernel = self.param("kernel", _depthwise_init, (self.size, self.size, 1, channels)).astype(self.dtype)
        sizes = [-(-side // self.stride) for side in image]
        spans = [(size - 1) * self.stride + 1 for size in sizes]  # from the first to the last pixel that a shift takes
        lacking = [max(span + self.size - 1 - side, 0) for span, side in zip(spans, image, strict=True)]
        padding = ((0, 0), *((lack // 2, lack - lack // 2) for lack in lacking), (0, 0))
        padded = jnp.pad(x.astype(self.dtype), padding)
        result = jnp.zeros((clips, *sizes, channels), at_least_float32(padded).dtype)
        for i, j in itertools.product(range(self.size), repeat=2):
            end = (clips, i + spans[0], j + spans[1], channels)
            shifted = jax.lax.slice(padded, (0, i, j, 0), end, (1, self.stride, self.stride, 1))
            result += at_least_float32(shifted) * at_least_float32(kernel[i, j, 0])
        return result.astype(self.dtype)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection: `[N, H, W, C]` -> `[N, H / stride, W / stride, channels]`."""

    spec: Block
    group_size: int | None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        spec, y = self.spec, x
        if spec.expansion > 1:
            y = _conv(spec.hidden, 1, 1, "expand", self.dtype)(y)
            y = nn.relu6(_norm(self.group_size, "expand_bn")(y, train))
        y = DepthwiseConv(spec.kernel, spec.stride, self.dtype, name="depthwise")(y)
        y = nn.relu6(_norm(self.group_size, "depthwise_bn")(y, train))
        y = _conv(spec.channels, 1, 1, "project", self.dtype)(y)
        y = _norm(self.group_size, "project_bn")(y, train)
        return x + y if spec.stride == 1 and spec.channels_in == spec.channels else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 (Tan and Le 2019; the Lite variants have ReLU6 and no squeeze-and-excitation).

    Input: images `[N, H, W, 3]` float32 of any size (the published input is 224), normalized by mean 127 and deviation
    128 of 255. Output: logits `[N, num_classes]` float32. Dropout (rate 0.2, on the pooled features) acts when `train`
    is true and a `dropout` rng is given. Blocks are not dropped in training.

    Attributes:
      num_classes: width of the last layer.
      group_size: clips in a batch-norm group in training (see `BatchNorm`); None means the whole batch.
      dtype: type of convolutions and activations; parameters and batch-norm statistics stay float32.
    """

    num_classes: int = 1000
    group_size: int | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        x = _conv(STEM, 3, 2, "stem", self.dtype)(images)  # [N, H, W, C] throughout
        x = nn.relu6(_norm(self.group_size, "stem_bn")(x, train))
        for number, spec in enumerate(BLOCKS):
            x = InvertedResidual(spec, self.group_size, self.dtype, name=f"blocks_{number}")(x, train)
        x = _conv(HEAD, 1, 1, "head", self.dtype)(x)
        x = nn.relu6(_norm(self.group_size, "head_bn")(x, train))
        x = at_least_float32(x).mean(axis=(1, 2))
        x = nn.Dropout(_DROPOUT, deterministic=not (train and self.has_rng("dropout")))(x)
        init = linear_uniform(x.shape[-1])
        return nn.Dense(self.num_classes, kernel_init=init, bias_init=init, name="fc")(x)


def _conv(features: int, size: int, stride: int, name: str, dtype: jnp.dtype) -> nn.Conv:
    return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding="SAME",
        use_bias=False,
        kernel_init=_kernel_init,
        dtype=dtype,
        name=name,
    )


def _norm(group_size: int | None, name: str) -> BatchNorm:
    return BatchNorm(group_size, momentum=0.99, epsilon=1e-3, name=name)
