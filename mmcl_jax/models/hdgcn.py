"""HD-GCN (Lee et al., ICCV 2023): graph convolutions on the layers of a joint hierarchy, attention over the layers.

Six layers times three subsets are 18 small convolutions in each block, and as many edge convolutions as layers. Their
parameters are stored stacked, so that each kind is one (batched) matrix product and one batch norm;
`mmcl_jax.pytorch.names` maps them to the published names.
"""

import functools
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.models.blocks import TenBlocks, add_residual, fold_down
from mmcl_jax.models.layers import Conv1x1, fan_out_normal, fold_conv, norm_affine, wide

JOINT_NEIGHBOURS = 5
LAYER_NEIGHBOURS = 3


class GraphConv(nn.Module):
    """Hierarchically decomposed graph convolution, `[C_in, N, M, T, V]` -> `[channels, N, M, T, V]`.

    Of each layer of the hierarchy, a quarter of the channels comes from each of its three subsets of edges, and a
    quarter from joints with similar features. These last channels are the same in every frame, so that they are
    repeated over T at the very end; they and the attention, which are small, are computed in float32 at least.
    """

    channels: int
    adjacency: np.ndarray  # [L, K, V, V]
    attention: bool
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        layers, subsets = self.adjacency.shape[:2]
        width = self.channels // (subsets + 1)
        reduced = Conv1x1(layers * width, fan_out=width, name="reduce")(x)
        reduced = nn.relu(self.norm(name="reduce_bn")(reduced, train)).reshape(layers, width, *x.shape[1:])
        mean = wide(reduced).mean(axis=4)
        similar = EdgeConv(JOINT_NEIGHBOURS, self.norm, name="edge")(mean, train)  # [L, width, N, M, V]
        linked = self._linked(reduced, train)  # [L, K * width, N, M, T, V]
        if self.attention:
            most = jnp.concatenate([wide(_largest(linked, 4)), similar], axis=1)
            weights = LayerAttention(self.channels, self.adjacency, self.norm, name="attention")(most, train)
            # Lists of layers: XLA for CPUs adds their items much faster than it sums over an array's first axis.
            linked = [
                y * w[: subsets * width, ..., None, None].astype(y.dtype) for y, w in zip(linked, weights, strict=True)
            ]
            similar = [y * w[subsets * width :, ..., None] for y, w in zip(similar, weights, strict=True)]
        linked, similar = sum(linked), sum(similar)
        similar = jnp.broadcast_to(similar[:, :, :, None].astype(x.dtype), (width, *linked.shape[1:]))
        return add_residual(jnp.concatenate([linked, similar]), x, self.norm, train)

    def _linked(self, x: jax.Array, train: bool) -> jax.Array:
        """Convolutions and aggregation over the edges of each subset, `[L, I, N, M, T, V]` -> `[L, K * I, ...]`."""
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

    @staticmethod
    def fold(params: Mapping, batch_stats: Mapping) -> dict:
        """The variables, `params`, of the same function with folded norms. `bn` stays: layers are weighed before it."""
        factor, offset = (part.reshape(params["bias"].shape) for part in norm_affine(params, batch_stats, "linked_bn"))
        scale, bias = norm_affine(params, batch_stats, "bn")
        attention = {}
        if "attention" in params:
            attention["attention"] = LayerAttention.fold(params["attention"], batch_stats["attention"])
        return {
            "PA": params["PA"],
            "reduce": fold_conv(params["reduce"], *norm_affine(params, batch_stats, "reduce_bn")),
            "edge": EdgeConv.fold(params["edge"], batch_stats["edge"]),
            "kernel": params["kernel"] * factor[:, None],
            "bias": params["bias"] * factor + offset,
            "bn": {"scale": scale, "bias": bias},
            **attention,
            **fold_down(params, batch_stats),
        }


class EdgeConv(nn.Module):
    """Edge convolution (Wang et al., DGCNN): each node's maximum over its nearest nodes in the space of the features.

    `[L, C, N, M, V]` -> `[L, C, N, M, V]`, for L sets of nodes with parameters of their own. A node is near itself.

    Attributes:
      neighbours: how many nodes are near (all, where there are fewer).
      norm: makes a batch norm.
    """

    neighbours: int
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        (layers, channels), nodes = x.shape[:2], x.shape[-1]
        kernel = self.param("kernel", fan_out_normal(channels), (layers, 2 * channels, channels))
        nearest = _nearest(jax.lax.stop_gradient(x), min(self.neighbours, nodes))
        # The published kernel acts on (neighbour - node, node). Products first: they act on V nodes, not V k pairs.
        of_neighbour = jnp.einsum("lio,linmv->lonmv", kernel[:, :channels], x)
        of_node = jnp.einsum("lio,linmv->lonmv", kernel[:, channels:] - kernel[:, :channels], x)
        y = jnp.einsum("lonmv,lnmukv->lonmuk", of_neighbour, nearest) + of_node[..., None]
        y = self.norm(name="bn")(y.reshape(layers * channels, *y.shape[2:]), train)
        return _largest(nn.leaky_relu(y, 0.2), y.ndim - 1).reshape(x.shape)

    @staticmethod
    def fold(params: Mapping, batch_stats: Mapping) -> dict:
        """The variables, `params`, of the same function with folded norms."""
        factor, offset = norm_affine(params, batch_stats, "bn")
        kernel = params["kernel"]
        return {"kernel": kernel * factor.reshape(kernel.shape[0], 1, kernel.shape[2]), "bn": {"bias": offset}}


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _largest(x: jax.Array, axis: int) -> jax.Array:
    """Maximum, whose gradient goes to one element (PyTorch's rule).

    `jnp.max` shares it among those that equal the maximum. XLA may compute `x` once for the maximum and once more for
    the comparison, in another order: then none is equal, and the gradient is 0 / 0.
    """
    return x.max(axis)


def _largest_forward(x: jax.Array, axis: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    index = jnp.argmax(x, axis, keepdims=True)
    return jnp.take_along_axis(x, index, axis).squeeze(axis), (x, index)


def _largest_backward(axis: int, saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    x, index = saved  # of x, only the shape is used
    chosen = jax.lax.broadcasted_iota(index.dtype, x.shape, axis) == index
    return (jnp.where(chosen, jnp.expand_dims(gradient, axis), 0),)


_largest.defvjp(_largest_forward, _largest_backward)


def _nearest(x: jax.Array, count: int) -> jax.Array:
    """`[L, C, N, M, V]` -> `[L, N, M, V, count, V]`, one-hot: the nodes nearest to each node.

    One-hot, because XLA scatters slowly on CPUs, which is the gradient of gathering.
    """
    squares = jnp.square(x).sum(axis=1)
    # A choice, not a value: rounded products, as accelerators take them by default, would choose other nodes.
    products = jnp.einsum("lcnmu,lcnmv->lnmuv", x, x, precision=jax.lax.Precision.HIGHEST)
    _, index = jax.lax.top_k(2 * products - squares[..., :, None] - squares[..., None, :], count)
    return jax.nn.one_hot(index, x.shape[-1], dtype=x.dtype)


class LayerAttention(nn.Module):
    """Attention-guided hierarchy aggregation: how much of each layer a channel takes.

    Features before aggregation, without frames, `[L, channels, N, M, V]` -> weights in (0, 1), `[L, channels, N, M]`.
    """

    channels: int
    adjacency: np.ndarray  # [L, K, V, V], whose first subset has the joints of each layer on its diagonal
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width = self.channels // 4
        x = Conv1x1(width, name="reduce")(x.transpose(1, 2, 3, 0, 4))
        x = nn.relu(self.norm(name="reduce_bn")(x, train))
        members = jnp.einsum("lvv->lv", self.adjacency[:, 0])
        x = jnp.einsum("cnmlv,lv->cnml", x, members / members.sum(axis=1, keepdims=True))
        x = EdgeConv(LAYER_NEIGHBOURS, self.norm, name="edge")(x[None], train)[0]
        init = _uniform(width**-0.5)
        x = nn.Dense(self.channels, kernel_init=init, bias_init=init, name="expand")(x.transpose(1, 2, 3, 0))
        return nn.sigmoid(x).transpose(2, 3, 0, 1)

    @staticmethod
    def fold(params: Mapping, batch_stats: Mapping) -> dict:
        """The variables, `params`, of the same function with folded norms."""
        return {
            "reduce": fold_conv(params["reduce"], *norm_affine(params, batch_stats, "reduce_bn")),
            "edge": EdgeConv.fold(params["edge"], batch_stats["edge"]),
            "expand": params["expand"],
        }


def _uniform(bound: float) -> nn.initializers.Initializer:
    """What PyTorch gives a convolution that nobody initialises."""
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


class HDGCN(TenBlocks):
    """HD-GCN; `adjacency` is float32 `[L, 3, V, V]`, `mmcl_jax.models.graphs.hierarchical_adjacency` of the layout."""

    def graph_conv(self, number: int) -> Callable[..., nn.Module]:
        """The first block adds the layers up; the others weigh them."""
        return functools.partial(GraphConv, adjacency=self.adjacency, attention=number > 0)
