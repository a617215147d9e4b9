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
from mmcl_jax.models.layers import Conv1x1, channel_product, fan_out_normal, wide


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
        topologies = Topology(self.channels, self.adjacency, name="topology")(x)
        values = Conv1x1(subsets * self.channels, fan_out=self.channels, name="values")(x)
        return add_residual(aggregate(topologies, tuple(jnp.split(values, subsets))), x, self.norm, train)


class Topology(nn.Module):
    """A clip's own joint topology for every channel: the shared adjacency plus a refinement from the features.

    `[C_in, N, M, T, V]` -> K times `[channels, N, M, U, V]`, each the weight with which joint u receives from joint v.
    The relation branches see the temporal mean of the features: 1x1 convolutions commute with it.
    """

    channels: int
    adjacency: np.ndarray  # [K, V, V]

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        channels_in, subsets = x.shape[0], self.adjacency.shape[0]
        width = 8 if channels_in <= 9 else channels_in // 8
        kernel = self.param("relation_kernel", fan_out_normal(width), (channels_in, 2, subsets, width))
        bias = self.param("relation_bias", nn.initializers.zeros, (2, subsets, width))
        mean = wide(x).mean(axis=3)
        relation = jnp.einsum("ipkr,inmv->pkrnmv", kernel, mean) + bias[..., None, None, None]
        receiver, sender = relation
        distance = jnp.tanh(receiver[..., :, None] - sender[..., None, :]).astype(x.dtype)  # [K, R, N, M, U, V]

        kernel = self.param("lift_kernel", fan_out_normal(self.channels), (subsets, width, self.channels))
        bias = self.param("lift_bias", nn.initializers.zeros, (subsets, self.channels))
        # alpha scales the small kernel, not the large result: less work, and a more exact gradient for alpha.
        alpha = self.param("alpha", nn.initializers.zeros, (1,))
        shared = self.param("PA", lambda _key: jnp.asarray(self.adjacency))
        return tuple(_lift(kernel[k] * alpha, distance[k], bias[k] * alpha, shared[k]) for k in range(subsets))


@jax.custom_vjp
def _lift(kernel: jax.Array, distance: jax.Array, bias: jax.Array, shared: jax.Array) -> jax.Array:
    """A subset's topologies: `[R, C]`, `[R, N, M, U, V]`, `[C]`, `[U, V]` -> `[C, N, M, U, V]`.

    The gradients of bias and shared adjacency are sums over the largest arrays of the model; they are computed as one
    more row and one more column of the products that the other two gradients are.
    """
    offset = bias[:, None, None] + shared
    return channel_product(kernel, distance) + offset.astype(distance.dtype)[:, None, None]


def _lift_forward(kernel, distance, bias, shared):
    return _lift(kernel, distance, bias, shared), (kernel, distance)


def _lift_backward(saved, gradient):
    kernel, distance = saved
    rank, channels = kernel.shape
    gradient = gradient.reshape(channels, -1)
    rows = distance.reshape(rank, -1)
    rows = jnp.concatenate([rows, jnp.ones_like(rows[:1])])
    of_kernel = jnp.matmul(rows, gradient.T, preferred_element_type=kernel.dtype)
    columns = jnp.concatenate([kernel, jnp.ones_like(kernel[:1])]).astype(gradient.dtype)
    of_distance = (columns @ gradient).reshape(rank + 1, *distance.shape[1:])
    of_shared = of_distance[rank].astype(kernel.dtype).sum(axis=(0, 1))
    return of_kernel[:rank], of_distance[:rank], of_kernel[rank], of_shared


_lift.defvjp(_lift_forward, _lift_backward)


@jax.custom_vjp
def aggregate(topologies: tuple[jax.Array, ...], values: tuple[jax.Array, ...]) -> jax.Array:
    """Every joint's sum over the joints that it receives from, and over the subsets.

    K times `[C, N, M, U, V]`, K times `[C, N, M, T, V]` -> `[C, N, M, T, U]`.
    """
    return sum(jnp.einsum("cnmuv,cnmtv->cnmtu", *subset) for subset in zip(topologies, values, strict=True))


def _aggregate_forward(topologies, values):
    return aggregate(topologies, values), (topologies, values)


def _aggregate_backward(saved, gradient):
    topologies, values = saved
    transposed = jax.lax.optimization_barrier(gradient.swapaxes(-1, -2))
    return (
        tuple(jnp.einsum("cnmut,cnmtv->cnmuv", transposed, subset) for subset in values),
        tuple(jnp.einsum("cnmtu,cnmuv->cnmtv", gradient, subset) for subset in topologies),
    )


aggregate.defvjp(_aggregate_forward, _aggregate_backward)


class CTRGCN(TenBlocks):
    """CTR-GCN; `adjacency` is float32 `[3, V, V]`, one of `mmcl_jax.graphs.GRAPHS`."""

    def graph_conv(self, number: int) -> Callable[..., nn.Module]:
        del number  # the same in every block
        return functools.partial(GraphConv, adjacency=self.adjacency)
