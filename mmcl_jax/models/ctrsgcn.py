"""CTRS-GCN, the strong baseline that is published beside CTR-GCN: one joint topology for every clip and channel."""

import functools
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.models.blocks import TEMPORAL_KERNEL, TenBlocks, add_residual, fold_down
from mmcl_jax.models.layers import TemporalConv, fold_conv, norm_affine


class GraphConv(nn.Module):
    """Static graph convolution, its three subsets at once: `[C_in, N, M, T, V]` -> `[channels, N, M, T, V]`.

    The learned adjacency `PA[k, v, w]` says how joint w receives from joint v; its columns have unit length where it is
    used.
    """

    channels: int
    adjacency: np.ndarray  # [K, V, V]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        subsets, channels_in = self.adjacency.shape[0], x.shape[0]
        adjacency = self.param("PA", lambda _key: jnp.asarray(self.adjacency))
        adjacency = adjacency / (jnp.linalg.norm(adjacency, axis=1, keepdims=True) + 1e-4)
        init = nn.initializers.normal((2.0 / (self.channels * channels_in * subsets)) ** 0.5)
        kernel = self.param("kernel", init, (subsets, channels_in, self.channels))
        bias = self.param("bias", nn.initializers.zeros, (subsets, self.channels))
        # Joints first: the sum over the subsets is then part of one matrix product over the channels.
        received = jnp.stack([x @ adjacency[k].astype(x.dtype) for k in range(subsets)])
        y = jnp.einsum("kio,kinmtv->onmtv", kernel.astype(x.dtype), received)
        y = y + bias.sum(axis=0).astype(x.dtype)[:, None, None, None, None]
        return add_residual(y, x, self.norm, train)

    @staticmethod
    def fold(params: Mapping, batch_stats: Mapping) -> dict:
        """The variables, `params`, of the same function with folded norms."""
        factor, offset = norm_affine(params, batch_stats, "bn")
        return {
            "PA": params["PA"],
            **fold_conv(params, factor, 0.0),
            "bn": {"bias": offset},
            **fold_down(params, batch_stats),
        }


class NormedTemporalConv(nn.Module):
    """One convolution over frames, normalised: `[C, N, M, T, V]` -> `[channels, N, M, ceil(T / stride), V]`."""

    channels: int
    stride: int
    norm: Callable[..., nn.Module]
    frames_axis: int = -2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        convolution = TemporalConv(
            self.channels, TEMPORAL_KERNEL, self.stride, frames_axis=self.frames_axis, name="conv"
        )
        return self.norm(name="bn")(convolution(x), train)

    @staticmethod
    def fold(params: Mapping, batch_stats: Mapping) -> dict:
        """The variables, `params`, of the same function with folded norms."""
        return {"conv": fold_conv(params["conv"], *norm_affine(params, batch_stats, "bn"))}


class CTRSGCN(TenBlocks):
    """CTRS-GCN; `adjacency` is float32 `[3, V, V]`, published as three identities."""

    temporal_conv = NormedTemporalConv

    def graph_conv(self, number: int) -> Callable[..., nn.Module]:
        del number  # the same in every block
        return functools.partial(GraphConv, adjacency=self.adjacency)
