"""CTR-GCN: graph convolutions that refine the topology of the joints in every channel.

Chen et al., Channel-wise Topology Refinement Graph Convolution for Skeleton-Based Action Recognition, ICCV 2021;
section and equation numbers are those of the paper. Features are channel-major, `[C, N, M, T, V]`. Convolutions of the
same input are stored as one, so that they are one matrix product; `mmcl_jax.pytorch.names` maps them to the published
names.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.models.blocks import Norm, TenBlocks, add_residual
from mmcl_jax.models.fast.topologies import aggregate, lift
from mmcl_jax.models.initializers import fan_out_normal
from mmcl_jax.models.layers import Conv1x1
from mmcl_jax.models.precision import at_least_float32


class GraphConv(nn.Module):
    """Channel-wise topology refinement graph convolution (CTR-GC), the sum of one for each of K subsets of edges.

    Eq. 3: `Z = A(T(X), R(M(X), A))`, then batch norm, residual and ReLU. `[C_in, N, M, T, V]` ->
    `[channels, N, M, T, V]`.

    Attributes:
      channels: of the output.
      adjacency: float32 `[K, V, V]`, where the shared topologies A start.
      norm: makes a batch norm.
    """

    channels: int
    adjacency: np.ndarray
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        subsets = len(self.adjacency)
        topologies = Topology(self.channels, self.adjacency, name="topology")(x)
        values = Conv1x1(subsets * self.channels, fan_out=self.channels, name="values")(x)  # T(X) = X W, eq. 4
        z = aggregate(topologies, tuple(jnp.split(values, subsets)))  # z_c = R_c x_c, eq. 9
        return add_residual(z, x, self.norm, train)


class Topology(nn.Module):
    """Channel-wise topologies, eq. 5, 7 and 8: `R = A + alpha * Q`, where `q_ij = xi(tanh(psi(x_i) - phi(x_j)))`.

    `[C_in, N, M, T, V]` -> K times `[channels, N, M, U, V]`: the weight with which joint u receives from joint v.

    psi, phi and xi are 1x1 convolutions; psi and phi have `C_in / 8` channels (8 in the first block). Both act on the
    mean of the features over the frames; this equals the mean of their results over the frames. Their parameters are
    `relation_*`, those of xi are `lift_*`, and A is `PA`.
    """

    channels: int
    adjacency: np.ndarray

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        channels_in, subsets = x.shape[0], len(self.adjacency)
        width = 8 if channels_in <= 9 else channels_in // 8
        kernel = self.param("relation_kernel", fan_out_normal(width), (channels_in, 2, subsets, width))
        bias = self.param("relation_bias", nn.initializers.zeros, (2, subsets, width))
        mean = at_least_float32(x).mean(axis=-2)
        psi, phi = jnp.einsum("ipkr,inmv->pkrnmv", kernel, mean) + bias[..., None, None, None]
        correlation = jnp.tanh(psi[..., :, None] - phi[..., None, :]).astype(x.dtype)  # [K, R, N, M, U, V], eq. 5

        kernel = self.param("lift_kernel", fan_out_normal(self.channels), (subsets, width, self.channels))
        bias = self.param("lift_bias", nn.initializers.zeros, (subsets, self.channels))
        alpha = self.param("alpha", nn.initializers.zeros, (1,))
        shared = self.param("PA", lambda _key: jnp.asarray(self.adjacency))
        # alpha scales the small kernel of xi, not its large result: less work, and a more exact gradient of alpha.
        return tuple(lift(kernel[k] * alpha, correlation[k], bias[k] * alpha, shared[k]) for k in range(subsets))


class CTRGCN(TenBlocks):
    """CTR-GCN, section 3.4; `adjacency` is float32 `[3, V, V]`, one of `mmcl_jax.models.graphs.GRAPHS`."""

    def graph_conv(self, number: int) -> Callable[..., nn.Module]:
        del number  # the same in every block
        return functools.partial(GraphConv, adjacency=self.adjacency)
