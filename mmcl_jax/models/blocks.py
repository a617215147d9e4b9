"""What several backbones are built of: the block, its temporal convolutions, and the ten-block network."""

import functools
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.losses import cross_entropy
from mmcl_jax.models.layers import (
    BatchNorm,
    Conv1x1,
    Initializers,
    TemporalConv,
    frames_max_pool,
    gcn_init,
    linear_uniform,
)

DILATIONS = (1, 2)
TEMPORAL_KERNEL = 5
WIDTHS = (1, 1, 1, 1, 2, 2, 2, 4, 4, 4)  # channels of the ten blocks, in multiples of base_channels
STRIDES = (1, 1, 1, 1, 2, 1, 1, 2, 1, 1)


def cross_entropy_of_logits(logits: jax.Array, aux: dict[str, jax.Array], labels: jax.Array) -> jax.Array:
    """The classification loss of a backbone that has no other: cross entropy; `aux` is not needed."""
    del aux
    return cross_entropy(logits, labels)


def near_one(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Initialiser of batch norm scales: normal around 1, deviation 0.02."""
    return 1.0 + 0.02 * jax.random.normal(key, shape)


class MultiScaleTemporalConv(nn.Module):
    """Four temporal branches: two dilated convolutions, a max pool, a 1x1 convolution; concatenated.

    `[channels, N, M, T, V]` -> `[channels, N, M, ceil(T / stride), V]`.

    Attributes:
      norm: makes a batch norm.
      initializers: those of kernels and biases (see `layers.Conv1x1`).
      scale_init: initialiser of the batch norms' scales.
    """

    channels: int
    stride: int
    norm: Callable[..., nn.Module]
    initializers: Callable[[int, int], Initializers] = gcn_init
    scale_init: nn.initializers.Initializer = near_one

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width = self.channels // 4
        norm = functools.partial(self.norm, scale_init=self.scale_init)
        reduced = Conv1x1(self.channels, fan_out=width, initializers=self.initializers, name="reduce")(x)
        hidden = nn.relu(norm(name="reduce_bn")(reduced[:-width], train))
        branches = [
            TemporalConv(
                width, TEMPORAL_KERNEL, self.stride, dilation, self.initializers, name=f"conv_dilation_{dilation}"
            )(hidden[i * width : (i + 1) * width])
            for i, dilation in enumerate(DILATIONS)
        ]
        pooled = frames_max_pool(hidden[-width:], self.stride)
        pointwise = reduced[-width:, ..., :: self.stride, :]
        return norm(name="out_bn")(jnp.concatenate([*branches, pooled, pointwise]), train)


def normalise_joints(norm: nn.Module, x: jax.Array, train: bool) -> jax.Array:
    """`[N, M, T, V, C]` -> channel-major `[C, N, M, T, V]`; each body, joint and channel is normalised by itself."""
    clips, bodies, frames, joints, channels = x.shape
    x = x.transpose(1, 3, 4, 0, 2).reshape(bodies * joints * channels, clips, frames)
    x = norm(x, train).reshape(bodies, joints, channels, clips, frames)
    return x.transpose(2, 3, 0, 4, 1)


def add_residual(y: jax.Array, x: jax.Array, norm: Callable[..., nn.Module], train: bool) -> jax.Array:
    """The end of a graph convolution: batch norm of its result `y`, its input `x` added, ReLU.

    Makes submodules of the module that calls it: `bn`, which starts at almost nothing, and, where `x` has not as many
    channels as `y`, `down` and `down_bn`.
    """
    y = norm(scale_init=nn.initializers.constant(1e-6), name="bn")(y, train)
    if x.shape[0] != y.shape[0]:
        x = norm(name="down_bn")(Conv1x1(y.shape[0], name="down")(x), train)
    return nn.relu(y + x)


class Block(nn.Module):
    """Graph convolution, temporal convolution, residual.

    `[C_in, N, M, T, V]` -> `[channels, N, M, ceil(T / stride), V]`.

    Attributes:
      graph_conv: makes the graph convolution from `channels`, `norm` and `name`.
      temporal_conv: makes the temporal convolution from `channels`, `stride`, `norm` and `name`.
      norm: makes a batch norm.
    """

    channels: int
    stride: int
    residual: bool
    graph_conv: Callable[..., nn.Module]
    temporal_conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = self.graph_conv(channels=self.channels, norm=self.norm, name="gcn")(x, train)
        y = self.temporal_conv(channels=self.channels, stride=self.stride, norm=self.norm, name="tcn")(y, train)
        if self.residual:
            if x.shape[0] != self.channels or self.stride != 1:
                x = Conv1x1(self.channels, name="residual")(x[..., :: self.stride, :])
                x = self.norm(name="residual_bn")(x, train)
            y = y + x
        return nn.relu(y)


class TenBlocks(nn.Module):
    """What CTR-GCN, CTRS-GCN and HD-GCN share: ten blocks, mean pool over bodies, frames and joints, dense classifier.

    A subclass says which convolutions the blocks have: `graph_conv`, `temporal_conv`.

    Attributes:
      num_classes: length of the logits.
      adjacency: float32 `[..., V, V]`, what the graph convolutions start from.
      base_channels: channels of blocks 1-4; blocks 5-7 have twice, blocks 8-10 four times as many. A multiple of 4.
      batch_norm_group_size: clips that normalise together, None = the batch (see `layers.BatchNorm`).
    """

    num_classes: int
    adjacency: np.ndarray
    base_channels: int = 64
    batch_norm_group_size: int | None = None

    temporal_conv: ClassVar[Callable[..., nn.Module]] = MultiScaleTemporalConv
    classification_loss = staticmethod(cross_entropy_of_logits)

    def graph_conv(self, number: int) -> Callable[..., nn.Module]:
        """What makes the graph convolution of block `number` (from 0) out of `channels`, `norm` and `name`."""
        raise NotImplementedError

    def setup(self):
        norm = functools.partial(BatchNorm, group_size=self.batch_norm_group_size, channel_major=True)
        self.data_bn = norm()
        self.blocks = [
            Block(
                self.base_channels * width, stride, number > 0, self.graph_conv(number), type(self).temporal_conv, norm
            )
            for number, (width, stride) in enumerate(zip(WIDTHS, STRIDES, strict=True))
        ]
        self.fc = nn.Dense(
            self.num_classes,
            kernel_init=nn.initializers.normal((2.0 / self.num_classes) ** 0.5),
            bias_init=linear_uniform(self.feature_width),
        )

    @property
    def feature_width(self) -> int:
        """Channels of the features."""
        return WIDTHS[-1] * self.base_channels

    def features(self, x: jax.Array, train: bool) -> jax.Array:
        """Clips `[N, M, T, V, C]` -> features before pooling `[N, M, T / 4, V, 4 * base_channels]`."""
        x = normalise_joints(self.data_bn, x, train)
        for block in self.blocks:
            x = block(x, train)
        return x.transpose(1, 2, 3, 4, 0)

    def head(self, features: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Features `[N, M, T', V, C']` -> logits `[N, num_classes]` and no auxiliary outputs."""
        del train  # the head behaves alike in both modes
        return self.fc(features.mean(axis=(1, 2, 3))), {}

    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Clips `[N, M, T, V, C]` -> logits `[N, num_classes]` and auxiliary outputs."""
        return self.head(self.features(x, train), train)
