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

from mmcl_jax.models.blocks import TenBlocks, add_residual
from mmcl_jax.models.layers import Conv1x1, fan_out_normal


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
        return add_residual(y, x, self.norm, train)


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


class CTRGCN(TenBlocks):
    """CTR-GCN; `adjacency` is float32 `[3, V, V]`, one of `mmcl_jax.graphs.GRAPHS`."""

    def graph_conv(self, number: int) -> Callable[..., nn.Module]:
        del number  # the same in every block
        return functools.partial(GraphConv, adjacency=self.adjacency)
