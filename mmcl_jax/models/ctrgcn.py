"""CTR-GCN (Chen et al., ICCV 2021): graph convolutions whose joint topology differs in every channel.

Parameters that act on the same input are stored stacked (three subsets, four temporal branches), so that each is
one matrix product; `mmcl_jax.torch_weights` maps them to the published names.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.models.layers import BatchNorm, Conv1x1, TemporalConv, fan_out_normal, frames_max_pool

DILATIONS = (1, 2)
TEMPORAL_KERNEL = 5
WIDTHS = (1, 1, 1, 1, 2, 2, 2, 4, 4, 4)  # channels of the ten blocks, in multiples of base_channels
STRIDES = (1, 1, 1, 1, 2, 1, 1, 2, 1, 1)


class GraphConv(nn.Module):
    """Channel-wise topology refinement graph convolution (CTR-GC, its three subsets at once).

    `[C_in, N, M, T, V]` -> `[channels, N, M, T, V]`.
    """

    channels: int
    adjacency: np.ndarray  # [K, V, V]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        subsets = self.adjacency.shape[0]
        topology = Topology(self.channels, self.adjacency, name="topology")(x)
        values = Conv1x1(subsets * self.channels, fan_out=self.channels, name="values")(x)
        values = values.reshape(subsets, self.channels, *x.shape[1:])
        # One product a subset, not one over all three: XLA would transpose the subsets inwards first.
        y = sum(jnp.einsum("cnmuv,cnmtv->cnmtu", topology[k], values[k]) for k in range(subsets))
        y = self.norm(scale_init=nn.initializers.constant(1e-6), name="bn")(y, train)
        if x.shape[0] != self.channels:
            x = self.norm(name="down_bn")(Conv1x1(self.channels, name="down")(x), train)
        return nn.relu(y + x)


class Topology(nn.Module):
    """A clip's own joint topology for every channel: the shared adjacency plus a refinement from the features.

    `[C_in, N, M, T, V]` -> `[K, channels, N, M, U, V]`, the weight with which joint u receives from joint v.
    The relation branches see the temporal mean of the features: 1x1 convolutions commute with it.
    """

    channels: int
    adjacency: np.ndarray  # [K, V, V]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels_in, subsets = x.shape[0], self.adjacency.shape[0]
        width = 8 if channels_in <= 9 else channels_in // 8
        kernel = self.param("relation_kernel", fan_out_normal(width), (channels_in, 2, subsets, width))
        bias = self.param("relation_bias", nn.initializers.zeros, (2, subsets, width))
        relation = jnp.einsum("ipkr,inmv->pkrnmv", kernel, x.mean(axis=3)) + bias[..., None, None, None]
        receiver, sender = relation
        distance = jnp.tanh(receiver[..., :, None] - sender[..., None, :])  # [K, R, N, M, U, V]

        kernel = self.param("lift_kernel", fan_out_normal(self.channels), (subsets, width, self.channels))
        bias = self.param("lift_bias", nn.initializers.zeros, (subsets, self.channels))
        # alpha scales the small kernel, not the large result: less work, and a more exact gradient for alpha.
        alpha = self.param("alpha", nn.initializers.zeros, (1,))
        refinement = jnp.einsum("krc,krnmuv->kcnmuv", kernel * alpha, distance)
        shared = self.param("PA", lambda _key: jnp.asarray(self.adjacency))
        return refinement + ((bias * alpha)[..., None, None] + shared[:, None])[:, :, None, None]


class MultiScaleTemporalConv(nn.Module):
    """Four temporal branches: two dilated convolutions, a max pool, a 1x1 convolution; concatenated.

    `[channels, N, M, T, V]` -> `[channels, N, M, ceil(T / stride), V]`.
    """

    channels: int
    stride: int
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width = self.channels // 4
        norm = functools.partial(self.norm, scale_init=_near_one)
        reduced = Conv1x1(self.channels, fan_out=width, name="reduce")(x)
        hidden = nn.relu(norm(name="reduce_bn")(reduced[:-width], train))
        branches = [
            TemporalConv(width, TEMPORAL_KERNEL, self.stride, dilation, name=f"conv_dilation_{dilation}")(
                hidden[i * width : (i + 1) * width]
            )
            for i, dilation in enumerate(DILATIONS)
        ]
        pooled = frames_max_pool(hidden[-width:], self.stride)
        pointwise = reduced[-width:, ..., :: self.stride, :]
        return norm(name="out_bn")(jnp.concatenate([*branches, pooled, pointwise]), train)


def _near_one(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return 1.0 + 0.02 * jax.random.normal(key, shape)


class Block(nn.Module):
    """Graph convolution, temporal convolution, residual.

    `[C_in, N, M, T, V]` -> `[channels, N, M, ceil(T / stride), V]`.
    """

    channels: int
    stride: int
    residual: bool
    adjacency: np.ndarray
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = GraphConv(self.channels, self.adjacency, self.norm, name="gcn")(x, train)
        y = MultiScaleTemporalConv(self.channels, self.stride, self.norm, name="tcn")(y, train)
        if self.residual:
            if x.shape[0] != self.channels or self.stride != 1:
                x = Conv1x1(self.channels, name="residual")(x[..., :: self.stride, :])
                x = self.norm(name="residual_bn")(x, train)
            y = y + x
        return nn.relu(y)


class CTRGCN(nn.Module):
    """CTR-GCN: ten blocks, mean pool over bodies, frames and joints, dense classifier.

    Attributes:
      num_classes: length of the logits.
      adjacency: float32 `[3, V, V]`, `mmcl_jax.graphs.spatial_adjacency` of the layout.
      base_channels: channels of blocks 1-4; blocks 5-7 have twice, blocks 8-10 four times as many. A multiple of 4.
      batch_norm_group_size: clips that normalise together, None = the batch (see `layers.BatchNorm`).
    """

    num_classes: int
    adjacency: np.ndarray
    base_channels: int = 64
    batch_norm_group_size: int | None = None

    def setup(self):
        norm = functools.partial(BatchNorm, group_size=self.batch_norm_group_size, channel_major=True)
        self.data_bn = norm()
        self.blocks = [
            Block(self.base_channels * width, stride, number > 0, self.adjacency, norm)
            for number, (width, stride) in enumerate(zip(WIDTHS, STRIDES, strict=True))
        ]
        bound = self.feature_width**-0.5
        self.fc = nn.Dense(
            self.num_classes,
            kernel_init=nn.initializers.normal((2.0 / self.num_classes) ** 0.5),
            bias_init=lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound),
        )

    @property
    def feature_width(self) -> int:
        """Channels of the features."""
        return WIDTHS[-1] * self.base_channels

    def features(self, x: jax.Array, train: bool) -> jax.Array:
        """Clips `[N, M, T, V, C]` -> features before pooling `[N, M, T / 4, V, 4 * base_channels]`."""
        clips, bodies, frames, joints, channels = x.shape
        x = x.transpose(1, 3, 4, 0, 2).reshape(bodies * joints * channels, clips, frames)
        x = self.data_bn(x, train).reshape(bodies, joints, channels, clips, frames)
        x = x.transpose(2, 3, 0, 4, 1)  # [C, N, M, T, V] from here on
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
