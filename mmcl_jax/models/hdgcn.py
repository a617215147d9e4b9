"""HD-GCN: graph convolutions on the layers of a joint hierarchy, and attention over the layers.

Lee et al., Hierarchically Decomposed Graph Convolutional Networks for Skeleton-Based Action Recognition, ICCV 2023.
Features are channel-major, `[C, N, M, T, V]`. A block has 18 small convolutions, for six layers with three subsets of
edges each, and six edge convolutions. Their parameters are stored stacked, so that each kind is one (batched) matrix
product and one batch norm; `mmcl_jax.pytorch.names` maps them to the published names.
"""

import functools
from collections.abc import Callable, Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.models.blocks import Norm, TenBlocks, add_residual
from mmcl_jax.models.fast.selection import largest, nearest
from mmcl_jax.models.initializers import fan_out_normal, linear_uniform
from mmcl_jax.models.layers import Conv1x1
from mmcl_jax.models.precision import at_least_float32

JOINT_NEIGHBORS = 5
LAYER_NEIGHBORS = 3


class GraphConv(nn.Module):
    """Hierarchically decomposed graph convolution, `[C_in, N, M, T, V]` -> `[channels, N, M, T, V]`.

    In each layer of the hierarchy, each of the three subsets of edges gives a quarter of the channels, and joints with
    similar features (`EdgeConv`) give the last quarter. That quarter is the same in every frame, so it is repeated over
    T at the very end; it and the attention are small and are computed in float32 or wider. The layers are added up,
    weighed by `LayerAttention` if there is attention. Batch norm, residual and ReLU follow.

    Attributes:
      channels: of the output, a multiple of 4.
      adjacency: float32 `[L, K, V, V]`, K = 3, where the topologies `PA` start.
      attention: whether layers are weighed.
      norm: makes a batch norm.
    """

    channels: int
    adjacency: np.ndarray
    attention: bool
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        layers, subsets = self.adjacency.shape[:2]
        width = self.channels // (subsets + 1)
        reduced = Conv1x1(layers * width, fan_out=width, name="reduce")(x)
        reduced = nn.relu(self.norm(name="reduce_bn")(reduced, train)).reshape(layers, width, *x.shape[1:])
        mean = at_least_float32(reduced).mean(axis=4)
        similar = EdgeConv(JOINT_NEIGHBORS, self.norm, name="edge")(mean, train)  # [L, width, N, M, V]
        linked = self._linked(reduced, train)  # [L, K * width, N, M, T, V]
        if self.attention:
            most = jnp.concatenate([at_least_float32(largest(linked, 4)), similar], axis=1)
            weights = LayerAttention(self.channels, self.adjacency, self.norm, name="attention")(most, train)
            # Lists of layers: XLA for CPUs adds their items much faster than it sums over an array's first axis.
            linked = [
                y * w[: subsets * width, ..., None, None].astype(y.dtype) for y, w in zip(linked, weights, strict=True)
            ]
            similar = [y * w[subsets * width :, ..., None] for y, w in zip(similar, weights, strict=True)]
        linked, similar = _sum(linked), _sum(similar)
        similar = jnp.broadcast_to(similar[:, :, :, None].astype(x.dtype), (width, *linked.shape[1:]))
        return add_residual(jnp.concatenate([linked, similar]), x, self.norm, train)

    def _linked(self, x: jax.Array, train: bool) -> jax.Array:
        """Convolution and aggregation over the edges of each subset, `[L, I, N, M, T, V]` -> `[L, K * I, ...]`."""
        layers, width = x.shape[:2]
        adjacency = self.param("PA", lambda _key: jnp.asarray(self.adjacency))
        subsets = adjacency.shape[1]
        kernel = self.param("kernel", fan_out_normal(width), (layers, width, subsets, width))
        bias = self.param("bias", nn.initializers.zeros, (layers, subsets, width))
        # Channels first: neither product needs its operands transposed.
        values = jnp.einsum("liko,linmtv->lkonmtv", kernel.astype(x.dtype), x)
        y = jnp.einsum("lkonmtv,lkuv->lkonmtu", values, adjacency.astype(x.dtype))
        y = y + bias.astype(x.dtype)[..., None, None, None, None]
        return self.norm(name="linked_bn")(y.reshape(-1, *x.shape[2:]), train).reshape(layers, -1, *x.shape[2:])


def _sum(layers: Iterable[jax.Array]) -> jax.Array:
    return jnp.asarray(sum(layers))


class EdgeConv(nn.Module):
    """Edge convolution (Wang et al., DGCNN): each node's maximum over the nodes nearest to it in feature space.

    `[L, C, N, M, V]` -> `[L, C, N, M, V]`, for L sets of nodes with their own parameters. A node is among its nearest.

    Attributes:
      neighbors: how many nodes count as nearest; all if a set has fewer.
      norm: makes a batch norm.
    """

    neighbors: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        (layers, channels), nodes = x.shape[:2], x.shape[-1]
        kernel = self.param("kernel", fan_out_normal(channels), (layers, 2 * channels, channels))
        near = nearest(jax.lax.stop_gradient(x), min(self.neighbors, nodes))
        # The published kernel acts on (neighbor - node, node). Products first: they act on V nodes, not on V k pairs.
        of_neighbor = jnp.einsum("lio,linmv->lonmv", kernel[:, :channels], x)
        of_node = jnp.einsum("lio,linmv->lonmv", kernel[:, channels:] - kernel[:, :channels], x)
        y = jnp.einsum("lonmv,lnmukv->lonmuk", of_neighbor, near) + of_node[..., None]
        y = self.norm(name="bn")(y.reshape(layers * channels, *y.shape[2:]), train)
        return largest(nn.leaky_relu(y, 0.2), y.ndim - 1).reshape(x.shape)


class LayerAttention(nn.Module):
    """Attention-guided hierarchy aggregation (A-HA): how much each channel takes from each layer.

    Each layer is the mean of its joints, and an edge convolution relates the layers to each other. The largest features
    over the frames, `[L, channels, N, M, V]` -> weights in (0, 1), `[L, channels, N, M]`.

    Attributes:
      channels: of the features.
      adjacency: `[L, K, V, V]`; the diagonal of the first subset marks the joints of each layer.
      norm: makes a batch norm.
    """

    channels: int
    adjacency: np.ndarray
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width = self.channels // 4
        x = Conv1x1(width, name="reduce")(x.transpose(1, 2, 3, 0, 4))
        x = nn.relu(self.norm(name="reduce_bn")(x, train))
        members = jnp.einsum("lvv->lv", self.adjacency[:, 0])
        x = jnp.einsum("cnmlv,lv->cnml", x, members / members.sum(axis=1, keepdims=True))
        x = EdgeConv(LAYER_NEIGHBORS, self.norm, name="edge")(x[None], train)[0]
        init = linear_uniform(width)
        x = nn.Dense(self.channels, kernel_init=init, bias_init=init, name="expand")(x.transpose(1, 2, 3, 0))
        return nn.sigmoid(x).transpose(2, 3, 0, 1)


class HDGCN(TenBlocks):
    """HD-GCN; `adjacency` is float32 `[L, 3, V, V]`, `mmcl_jax.models.graphs.hierarchical_adjacency` of the layout."""

    def graph_conv(self, number: int) -> Callable[..., nn.Module]:
        """The first block only adds the layers up; the others weigh them."""
        return functools.partial(GraphConv, adjacency=self.adjacency, attention=number > 0)
