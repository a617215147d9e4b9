"""What several backbones are built of: the block, its temporal convolutions, and the ten-block network."""

import functools
from collections.abc import Callable, Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.models.layers import (
    Conv1x1,
    Initializers,
    TemporalConv,
    every_frame,
    fold_conv,
    frames_max_pool,
    gcn_init,
    is_folded,
    linear_uniform,
    make_norm,
    norm_affine,
    pooled,
)
from mmcl_jax.models.losses import cross_entropy

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
      frames_axis: as in `layers.TemporalConv`.
    """

    channels: int
    stride: int
    norm: Callable[..., nn.Module]
    initializers: Callable[[int, int], Initializers] = gcn_init
    scale_init: nn.initializers.Initializer = near_one
    frames_axis: int = -2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width = self.channels // 4
        norm = functools.partial(self.norm, scale_init=self.scale_init)
        if is_folded(self.norm):
            # Two products: XLA copies the slices of a kernel, and with a stride the second needs fewer frames.
            hidden = nn.relu(Conv1x1(self.channels - width, name="reduce_hidden")(x))
            pointwise = Conv1x1(width, name="reduce_pointwise")(every_frame(x, self.stride, self.frames_axis))
        else:
            reduced = Conv1x1(self.channels, fan_out=width, initializers=self.initializers, name="reduce")(x)
            hidden = nn.relu(norm(name="reduce_bn")(reduced[:-width], train))
            pointwise = every_frame(reduced[-width:], self.stride, self.frames_axis)
        branches = [
            TemporalConv(
                width,
                TEMPORAL_KERNEL,
                self.stride,
                dilation,
                self.initializers,
                self.frames_axis,
                name=f"conv_dilation_{dilation}",
            )(hidden[i * width : (i + 1) * width])
            for i, dilation in enumerate(DILATIONS)
        ]
        largest = frames_max_pool(hidden[-width:], self.stride, self.frames_axis)
        if is_folded(self.norm):
            # No product comes before the pool, whose factor can be negative: it keeps its own.
            return jnp.concatenate([*branches, norm(name="out_bn")(largest, train), pointwise])
        return norm(name="out_bn")(jnp.concatenate([*branches, largest, pointwise]), train)

    @staticmethod
    def fold(params: Mapping, batch_stats: Mapping) -> dict:
        """The variables, `params`, of the same function with folded norms."""
        reduce_factor, reduce_offset = norm_affine(params, batch_stats, "reduce_bn")
        factors, offsets = (jnp.split(part, 4) for part in norm_affine(params, batch_stats, "out_bn"))
        width, reduce = factors[0].size, params["reduce"]
        hidden = {"kernel": reduce["kernel"][:, :-width], "bias": reduce["bias"][:-width]}
        pointwise = {"kernel": reduce["kernel"][:, -width:], "bias": reduce["bias"][-width:]}
        dilated = [f"conv_dilation_{dilation}" for dilation in DILATIONS]
        return {
            "reduce_hidden": fold_conv(hidden, reduce_factor, reduce_offset),
            "reduce_pointwise": fold_conv(pointwise, factors[3], offsets[3]),
            **{name: fold_conv(params[name], factors[i], offsets[i]) for i, name in enumerate(dilated)},
            "out_bn": {"scale": factors[2], "bias": offsets[2]},
        }


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


def fold_down(params: Mapping, batch_stats: Mapping) -> dict:
    """The folded `down` of `add_residual`, if there is one; `bn` is left to the caller, who knows the product."""
    return {"down": fold_conv(params["down"], *norm_affine(params, batch_stats, "down_bn"))} if "down" in params else {}


class Block(nn.Module):
    """Graph convolution, temporal convolution, residual.

    `[C_in, N, M, T, V]` -> `[channels, N, M, ceil(T / stride), V]`.

    Attributes:
      graph_conv: makes the graph convolution from `channels`, `norm` and `name`.
      temporal_conv: makes the temporal convolution from `channels`, `stride`, `norm` and `name`.
      norm: makes a batch norm.
      frames_axis: as in `layers.TemporalConv`; both convolutions have the same.
    """

    channels: int
    stride: int
    residual: bool
    graph_conv: Callable[..., nn.Module]
    temporal_conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    frames_axis: int = -2

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


def fold_block(block: Block, params: Mapping, batch_stats: Mapping) -> dict:
    """The variables, `params`, of a block's twin with folded norms; `graph_conv` and `temporal_conv` are partials."""
    parts = {"gcn": block.graph_conv.func, "tcn": block.temporal_conv.func}
    folded = {name: part.fold(params[name], batch_stats[name]) for name, part in parts.items()}
    if "residual" in params:
        folded["residual"] = fold_conv(params["residual"], *norm_affine(params, batch_stats, "residual_bn"))
    return folded


def fold_backbone(make_block: Callable[[int], Block], variables: Mapping) -> dict:
    """The variables of a backbone's twin with `folded=True`: the same function, without batch norms.

    Args:
      make_block: of a block's number.
      variables: `params` and `batch_stats` of the backbone.
    """
    params, batch_stats = dict(variables["params"]), dict(variables["batch_stats"])
    scale, bias = norm_affine(params, batch_stats, "data_bn")
    params["data_bn"] = {"scale": scale, "bias": bias}
    del batch_stats["data_bn"]
    for name in [name for name in params if name.startswith("blocks_")]:
        block = make_block(int(name.removeprefix("blocks_")))
        params[name] = fold_block(block, params[name], batch_stats.pop(name))
    return {"params": params, "batch_stats": batch_stats}


class TenBlocks(nn.Module):
    """What CTR-GCN, CTRS-GCN and HD-GCN share: ten blocks, mean pool over bodies, frames and joints, dense classifier.

    A subclass says which convolutions the blocks have: `graph_conv`, `temporal_conv`.

    Attributes:
      num_classes: length of the logits.
      adjacency: float32 `[..., V, V]`, what the graph convolutions start from.
      base_channels: channels of blocks 1-4; blocks 5-7 have twice, blocks 8-10 four times as many. A multiple of 4.
      batch_norm_group_size: clips that normalise together, None = the batch (see `layers.BatchNorm`).
      folded: the variables are those that `fold` returns.
      dtype: type of features and products from the input's batch norm to pooling, None = the clips'; parameters and
        statistics keep theirs.
    """

    num_classes: int
    adjacency: np.ndarray
    base_channels: int = 64
    batch_norm_group_size: int | None = None
    folded: bool = False
    dtype: jnp.dtype | None = None

    temporal_conv: ClassVar[Callable[..., nn.Module]] = MultiScaleTemporalConv
    classification_loss = staticmethod(cross_entropy_of_logits)

    def graph_conv(self, number: int) -> Callable[..., nn.Module]:
        """What makes the graph convolution of block `number` (from 0) out of `channels`, `norm` and `name`."""
        raise NotImplementedError

    def setup(self):
        self.data_bn = make_norm(self.folded, self.batch_norm_group_size)()
        self.blocks = [self._block(number) for number in range(len(WIDTHS))]
        self.fc = nn.Dense(
            self.num_classes,
            kernel_init=nn.initializers.normal((2.0 / self.num_classes) ** 0.5),
            bias_init=linear_uniform(self.feature_width),
        )

    @nn.nowrap
    def _block(self, number: int) -> Block:
        return Block(
            self.base_channels * WIDTHS[number],
            STRIDES[number],
            number > 0,
            self.graph_conv(number),
            functools.partial(type(self).temporal_conv, frames_axis=self.frames_axis),
            make_norm(self.folded, self.batch_norm_group_size),
            self.frames_axis,
        )

    @nn.nowrap
    def fold(self, variables: Mapping) -> dict:
        """Variables of this model -> those of `self.clone(folded=True)`, the same function without batch norms."""
        return fold_backbone(self._block, variables)

    @property
    def frames_axis(self) -> int:
        """Order of frames and joints inside, as in `layers.TemporalConv`."""
        return -2

    @property
    def feature_width(self) -> int:
        """Channels of the features."""
        return WIDTHS[-1] * self.base_channels

    def features(self, x: jax.Array, train: bool) -> jax.Array:
        """Clips `[N, M, T, V, C]` -> features before pooling `[N, M, T / 4, V, 4 * base_channels]`."""
        return self.trunk(self.embed(x, train), train)

    def embed(self, x: jax.Array, train: bool) -> jax.Array:
        """Clips `[N, M, T, V, C]` -> `[C, N, M, T, V]`, normalised for each body and joint."""
        return normalise_joints(self.data_bn, x, train).astype(self.dtype or x.dtype)

    def trunk(self, x: jax.Array, train: bool) -> jax.Array:
        """What `embed` made of some bodies -> their features."""
        if self.frames_axis == -1:
            x = x.swapaxes(-1, -2)
        for block in self.blocks:
            x = block(x, train)
        if self.frames_axis == -1:
            x = x.swapaxes(-1, -2)
        return x.transpose(1, 2, 3, 4, 0)

    def head(self, features: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Features `[N, M, T', V, C']` -> logits `[N, num_classes]` and no auxiliary outputs."""
        del train  # the head behaves alike in both modes
        return self.fc(pooled(features)), {}

    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Clips `[N, M, T, V, C]` -> logits `[N, num_classes]` and auxiliary outputs."""
        return self.head(self.features(x, train), train)
