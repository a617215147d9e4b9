"""CTR-GCN (Chen et al., ICCV 2021): graph convolutions whose joint topology differs in every channel.

Parameters that act on the same input are stored stacked (three subsets, four temporal branches), so that each is
one matrix product; `mmcl_jax.pytorch.names` maps them to the published names.
"""

import functools
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.models.blocks import TenBlocks, add_residual, fold_down
from mmcl_jax.models.layers import (
    Conv1x1,
    channel_product,
    fan_out_normal,
    fold_conv,
    is_folded,
    norm_affine,
    wide,
)


class GraphConv(nn.Module):
    """Channel-wise topology refinement graph convolution (CTR-GC, its three subsets at once).

    `[C_in, N, M, T, V]` -> `[channels, N, M, T, V]`.

    Attributes:
      adjacency: `[K, V, V]`, where the shared topology starts.
      frames_axis: as in `layers.TemporalConv`. With -1 the products over the joints are much faster on CPUs, where
        frames fill vectors and 25 joints do not.
    """

    channels: int
    adjacency: np.ndarray
    norm: Callable[..., nn.Module]
    frames_axis: int = -2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        subsets = self.adjacency.shape[0]
        topologies = Topology(self.channels, self.adjacency, self.frames_axis, name="topology")(x)
        if is_folded(self.norm):
            values = [Conv1x1(self.channels, name=f"values_{k}")(x) for k in range(subsets)]
        else:
            values = jnp.split(Conv1x1(subsets * self.channels, fan_out=self.channels, name="values")(x), subsets)
        if self.frames_axis == -1:
            pairs = zip(topologies, values, strict=True)
            y = sum(jnp.einsum("cnmuv,cnmvt->cnmut", *subset) for subset in pairs)
        else:
            y = aggregate(topologies, tuple(values))
        return add_residual(y, x, self.norm, train)

    @staticmethod
    def fold(params: Mapping, batch_stats: Mapping) -> dict:
        """The variables, `params`, of the same function with folded norms."""
        factor, offset = norm_affine(params, batch_stats, "bn")
        subsets = params["topology"]["PA"].shape[0]
        kernels = jnp.split(params["values"]["kernel"], subsets, axis=1)
        biases = jnp.split(params["values"]["bias"], subsets)
        values = [
            fold_conv({"kernel": kernel, "bias": bias}, factor, 0.0)
            for kernel, bias in zip(kernels, biases, strict=True)
        ]
        return {
            "topology": params["topology"],
            **{f"values_{k}": value for k, value in enumerate(values)},
            "bn": {"bias": offset},
            **fold_down(params, batch_stats),
        }


class Topology(nn.Module):
    """A clip's own joint topology for every channel: the shared adjacency plus a refinement from the features.

    `[C_in, N, M, T, V]` -> K times `[channels, N, M, U, V]`, each the weight with which joint u receives from joint v.
    The relation branches see the temporal mean of the features: 1x1 convolutions commute with it.
    """

    channels: int
    adjacency: np.ndarray  # [K, V, V]
    frames_axis: int = -2

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        channels_in, subsets = x.shape[0], self.adjacency.shape[0]
        width = 8 if channels_in <= 9 else channels_in // 8
        kernel = self.param("relation_kernel", fan_out_normal(width), (channels_in, 2, subsets, width))
        bias = self.param("relation_bias", nn.initializers.zeros, (2, subsets, width))
        mean = wide(x).mean(axis=self.frames_axis)
        relation = jnp.einsum("ipkr,inmv->pkrnmv", kernel, mean) + bias[..., None, None, None]
        kernel = self.param("lift_kernel", fan_out_normal(self.channels), (subsets, width, self.channels))
        bias = self.param("lift_bias", nn.initializers.zeros, (subsets, self.channels))
        # alpha scales the small kernel, not the large result: less work, and a more exact gradient for alpha.
        alpha = self.param("alpha", nn.initializers.zeros, (1,))
        shared = self.param("PA", lambda _key: jnp.asarray(self.adjacency))
        if self.frames_axis == -1:
            return _lift_relations_last(kernel * alpha, relation, bias * alpha, shared, x.dtype)
        receiver, sender = relation
        distance = jnp.tanh(receiver[..., :, None] - sender[..., None, :]).astype(x.dtype)  # [K, R, N, M, U, V]
        return tuple(_lift(kernel[k] * alpha, distance[k], bias[k] * alpha, shared[k]) for k in range(subsets))


def _lift_relations_last(kernel, relation, bias, shared, dtype) -> tuple[jax.Array, ...]:
    """The topologies from relations `[2, K, R, N, M, V]`, without the gradients that `_lift` has.

    Relations of all subsets are one last axis: 25 joints there would leave half of every vector of tanh empty. Products
    are those of matrices: XLA for CPUs copies what a product over one clip and one body leaves in more axes.
    """
    (_, subsets, _, clips, bodies, joints), channels = relation.shape, kernel.shape[-1]
    receiver, sender = jnp.moveaxis(relation.reshape(2, -1, clips, bodies, joints), 1, -1)
    distance = jnp.tanh(receiver[:, :, :, None] - sender[:, :, None]).astype(dtype)  # [N, M, U, V, K * R]
    distances = jnp.split(distance.reshape(-1, distance.shape[-1]), subsets, axis=1)
    lifted = [jnp.tensordot(kernel[k].astype(dtype), distances[k], axes=(0, 1)) for k in range(subsets)]
    return tuple(
        lifted[k].reshape(channels, clips, bodies, joints, joints)
        + (bias[k][:, None, None] + shared[k]).astype(dtype)[:, None, None]
        for k in range(subsets)
    )


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
    """CTR-GCN; `adjacency` is float32 `[3, V, V]`, one of `mmcl_jax.models.graphs.GRAPHS`."""

    @property
    def frames_axis(self) -> int:
        """Frames last where the model is folded, for speed."""
        return -1 if self.folded else -2

    def graph_conv(self, number: int) -> Callable[..., nn.Module]:
        del number  # the same in every block
        return functools.partial(GraphConv, adjacency=self.adjacency, frames_axis=self.frames_axis)
