"""What the GCN backbones share: the block, its multi-scale temporal convolution, and the network of ten blocks."""

import functools
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.models.fast.frames import every_frame, max_pool_frames
from mmcl_jax.models.initializers import (
    Initializer,
    Initializers,
    classifier_normal,
    gcn_init,
    linear_uniform,
    near_one,
)
from mmcl_jax.models.layers import BatchNorm, Conv1x1, TemporalConv, pool
from mmcl_jax.models.losses import cross_entropy_of_logits

DILATIONS = (1, 2)
TEMPORAL_KERNEL = 5

Norm = Callable[..., nn.Module]
"""Makes a batch norm from `name` and, optionally, `scale_init`; the norm is called as `(x, train)`."""

Stages = tuple[tuple[int, int], ...]
"""Of each block: its channels, in multiples of `base_channels`, and its stride over frames."""

TEN_STAGES: Stages = ((1, 1), (1, 1), (1, 1), (1, 1), (2, 2), (2, 1), (2, 1), (4, 2), (4, 1), (4, 1))


class MultiScaleTemporalConv(nn.Module):
    """The multi-scale temporal convolution of CTR-GCN, section 3.4: four branches side by side.

    Two dilated convolutions, a max pool and a 1x1 convolution, each with a quarter of the channels; their results are
    concatenated. `[channels, N, M, T, V]` -> `[channels, N, M, ceil(T / stride), V]`.

    Attributes:
      channels: of input and output, a multiple of 4.
      stride: over frames.
      norm: makes a batch norm.
      initializers: of the convolutions' kernels and biases.
      scale_init: initializer of the batch norms' scales.
    """

    channels: int
    stride: int
    norm: Norm
    initializers: Initializers = gcn_init
    scale_init: Initializer = near_one

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width = self.channels // 4
        norm = functools.partial(self.norm, scale_init=self.scale_init)
        reduced = Conv1x1(self.channels, fan_out=width, initializers=self.initializers, name="reduce")(x)
        hidden = nn.relu(norm(name="reduce_bn")(reduced[:-width], train))
        pointwise = every_frame(reduced[-width:], self.stride)
        dilated = [
            TemporalConv(
                width, TEMPORAL_KERNEL, self.stride, dilation, self.initializers, name=f"conv_dilation_{dilation}"
            )(hidden[i * width : (i + 1) * width])
            for i, dilation in enumerate(DILATIONS)
        ]
        largest = max_pool_frames(hidden[-width:], self.stride)
        return norm(name="out_bn")(jnp.concatenate([*dilated, largest, pointwise]), train)


def normalize_joints(norm: nn.Module, x: jax.Array, train: bool) -> jax.Array:
    """Normalizes each channel of each joint of each body: `[N, M, T, V, C]` -> channel-major `[C, N, M, T, V]`."""
    clips, bodies, frames, joints, channels = x.shape
    x = x.transpose(1, 3, 4, 0, 2).reshape(bodies * joints * channels, clips, frames)
    x = norm(x, train).reshape(bodies, joints, channels, clips, frames)
    return x.transpose(2, 3, 0, 4, 1)


def add_residual(y: jax.Array, x: jax.Array, norm: Norm, train: bool) -> jax.Array:
    """The end of a graph convolution: batch norm of its result `y`, its input `x` added, ReLU.

    Makes submodules of the module that calls it: `bn`, whose scale starts at almost zero, and, if `x` has other
    channels than `y`, `down` and `down_bn`.
    """
    y = norm(scale_init=nn.initializers.constant(1e-6), name="bn")(y, train)
    if x.shape[0] != y.shape[0]:
        x = norm(name="down_bn")(Conv1x1(y.shape[0], name="down")(x), train)
    return nn.relu(y + x)


class Block(nn.Module):
    """Graph convolution, temporal convolution, residual: `[C_in, N, M, T, V]` -> `[channels, N, M, T', V]`.

    `T'` is `ceil(T / stride)`.

    Attributes:
      channels: of the output.
      stride: over frames.
      residual: whether the input is added to the output.
      graph_conv: makes the graph convolution from `channels`, `norm` and `name`.
      temporal_conv: makes the temporal convolution from `channels`, `stride`, `norm` and `name`.
      norm: makes a batch norm.
    """

    channels: int
    stride: int
    residual: bool
    graph_conv: Callable[..., nn.Module]
    temporal_conv: Callable[..., nn.Module]
    norm: Norm

    frames_axis: ClassVar[int] = -2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = self.graph_conv(channels=self.channels, norm=self.norm, name="gcn")(x, train)
        y = self.temporal_conv(channels=self.channels, stride=self.stride, norm=self.norm, name="tcn")(y, train)
        if self.residual:
            if x.shape[0] != self.channels or self.stride != 1:
                x = Conv1x1(self.channels, name="residual")(every_frame(x, self.stride, self.frames_axis))
                x = self.norm(name="residual_bn")(x, train)
            y = y + x
        return nn.relu(y)


class Backbone(nn.Module):
    """A backbone in three parts, so that prediction can compute the bodies of a clip one by one.

    A subclass defines `embed`, `trunk` and `head`.

    Attributes:
      weighs_bodies: whether training may compute absent bodies once (see `packed`). In `trunk`, bodies may then meet
        only in channel-major `layers.BatchNorm`s, whose groups are the field `batch_norm_group_size`; and `trunk` draws
        no random numbers.
    """

    weighs_bodies: ClassVar[bool] = False

    def embed(self, x: jax.Array, train: bool) -> jax.Array:
        """Clips `[N, M, T, V, C]` -> `[C', N, M, T, V]`, normalized for each body and joint."""
        raise NotImplementedError

    def trunk(self, x: jax.Array, train: bool) -> jax.Array:
        """Embedded bodies `[C', N, M, T, V]`, each independent of the others -> features `[N, M, T', V, C'']`."""
        raise NotImplementedError

    def head(self, features: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Features `[N, M, T', V, C'']` -> logits `[N, num_classes]` and auxiliary outputs."""
        raise NotImplementedError

    def features(self, x: jax.Array, train: bool) -> jax.Array:
        """Clips `[N, M, T, V, C]` -> features before pooling, `[N, M, T', V, C'']`."""
        return self.trunk(self.embed(x, train), train)

    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Clips `[N, M, T, V, C]` -> logits `[N, num_classes]` and auxiliary outputs."""
        return self.head(self.features(x, train), train)


def run_blocks(blocks: list[Block], x: jax.Array, train: bool) -> jax.Array:
    """Embedded bodies `[C', N, M, T, V]` -> features, channels last: `[N, M, T', V, C'']`."""
    for block in blocks:
        x = block(x, train)
    return x.transpose(1, 2, 3, 4, 0)


class TenBlocks(Backbone):
    """CTR-GCN, CTRS-GCN and HD-GCN: ten blocks, the mean over bodies, frames and joints, a dense classifier.

    A subclass defines `graph_conv` and, if it is not the multi-scale one, `temporal_conv`.

    Attributes:
      num_classes: length of the logits.
      adjacency: float32 `[..., V, V]`, the topologies that the graph convolutions start from.
      base_channels: channels of the first blocks, a multiple of 4.
      batch_norm_group_size: clips that are normalized together, None: the batch (see `layers.BatchNorm`).
      dtype: type of features and products between the input's batch norm and pooling, None: that of the clips.
        Parameters and statistics keep their own.
      stages: channels and stride of each block.
    """

    num_classes: int
    adjacency: np.ndarray
    base_channels: int = 64
    batch_norm_group_size: int | None = None
    dtype: jnp.dtype | None = None
    stages: Stages = TEN_STAGES

    weighs_bodies: ClassVar[bool] = True
    block: ClassVar[type[Block]] = Block
    temporal_conv: ClassVar[type[nn.Module]] = MultiScaleTemporalConv
    classification_loss = staticmethod(cross_entropy_of_logits)

    def graph_conv(self, number: int) -> Callable[..., nn.Module]:
        """Returns what makes the graph convolution of block `number` (from 0) from `channels`, `norm` and `name`."""
        raise NotImplementedError

    @property
    def norm(self) -> Norm:
        return functools.partial(BatchNorm, group_size=self.batch_norm_group_size, channel_major=True)

    @property
    def feature_width(self) -> int:
        """Channels of the features."""
        return self.stages[-1][0] * self.base_channels

    def setup(self):
        self.data_bn = self.norm()
        self.blocks = [
            self.block(
                width * self.base_channels, stride, number > 0, self.graph_conv(number), self.temporal_conv, self.norm
            )
            for number, (width, stride) in enumerate(self.stages)
        ]
        self.fc = nn.Dense(
            self.num_classes,
            kernel_init=classifier_normal(self.num_classes),
            bias_init=linear_uniform(self.feature_width),
        )

    def embed(self, x: jax.Array, train: bool) -> jax.Array:
        return normalize_joints(self.data_bn, x, train).astype(self.dtype or x.dtype)

    def trunk(self, x: jax.Array, train: bool) -> jax.Array:
        return run_blocks(self.blocks, x, train)

    def head(self, features: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        del train  # the head is the same in both modes
        return self.fc(pool(features)), {}
