"""The temporal convolutions of the twins, and how their variables are folded."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl_jax.models.blocks import DILATIONS, TEMPORAL_KERNEL, Norm
from mmcl_jax.models.fast.frames import every_frame, max_pool_frames
from mmcl_jax.models.folded.layers import fold_conv, norm_affine
from mmcl_jax.models.layers import Conv1x1, TemporalConv


class MultiScaleTemporalConv(nn.Module):
    """`blocks.MultiScaleTemporalConv` with folded norms.

    The 1x1 convolution is two products: XLA would copy the slices of one kernel, and with a stride the second product
    needs fewer frames. The max pool keeps its norm: no product comes before it, and its factor can be negative.
    """

    channels: int
    stride: int
    norm: Norm

    frames_axis: ClassVar[int] = -2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width = self.channels // 4
        hidden = nn.relu(Conv1x1(self.channels - width, name="reduce_hidden")(x))
        pointwise = Conv1x1(width, name="reduce_pointwise")(every_frame(x, self.stride, self.frames_axis))
        dilated = [
            TemporalConv(
                width,
                TEMPORAL_KERNEL,
                self.stride,
                dilation,
                frames_axis=self.frames_axis,
                name=f"conv_dilation_{dilation}",
            )(hidden[i * width : (i + 1) * width])
            for i, dilation in enumerate(DILATIONS)
        ]
        largest = max_pool_frames(hidden[-width:], self.stride, self.frames_axis)
        return jnp.concatenate([*dilated, self.norm(name="out_bn")(largest, train), pointwise])


class FramesLastTemporalConv(MultiScaleTemporalConv):
    """The same for features with the frames last, `[C, N, M, V, T]`."""

    frames_axis: ClassVar[int] = -1


class RectifiedTemporalConv(nn.Module):
    """`infogcn.RectifiedTemporalConv` with folded norms."""

    channels: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.relu(MultiScaleTemporalConv(self.channels, self.stride, self.norm, name="convolution")(x, train))


def fold_multi_scale(params: Mapping, batch_stats: Mapping) -> dict[str, dict]:
    """Variables of `blocks.MultiScaleTemporalConv` -> those of `MultiScaleTemporalConv`."""
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


def fold_rectified(params: Mapping, batch_stats: Mapping) -> dict[str, dict]:
    """Variables of `infogcn.RectifiedTemporalConv` -> those of `RectifiedTemporalConv`."""
    return {"convolution": fold_multi_scale(params["convolution"], batch_stats["convolution"])}


def fold_normed(params: Mapping, batch_stats: Mapping) -> dict[str, dict]:
    """Variables of `ctrsgcn.NormedTemporalConv` -> those of the same module with a `FoldedNorm`."""
    return {"conv": fold_conv(params["conv"], *norm_affine(params, batch_stats, "bn"))}
