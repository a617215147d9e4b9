"""CTRS-GCN: the strong baseline published with CTR-GCN, with one joint topology for all clips and channels."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.models.blocks import TEMPORAL_KERNEL, Norm, TenBlocks, add_residual
from mmcl_jax.models.initializers import branch_normal
from mmcl_jax.models.layers import TemporalConv


class GraphConv(nn.Module):
    """Static graph convolution, `Z = sum over k of A_k X W_k`: `[C_in, N, M, T, V]` -> `[channels, N, M, T, V]`.

    Batch norm, residual and ReLU follow. `A_k[v, w]`, the learned parameter `PA`, is the weight with which joint w
    receives from joint v; its columns are scaled to unit length.

    Attributes:
      channels: of the output.
      adjacency: float32 `[K, V, V]`, where `PA` starts.
      norm: makes a batch norm.
    """

    channels: int
    adjacency: np.ndarray
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        subsets, channels_in = len(self.adjacency), x.shape[0]
        adjacency = self.param("PA", lambda _key: jnp.asarray(self.adjacency))
        adjacency = adjacency / (jnp.linalg.norm(adjacency, axis=1, keepdims=True) + 1e-4)
        init = branch_normal(subsets, channels_in, self.channels)
        kernel = self.param("kernel", init, (subsets, channels_in, self.channels))
        bias = self.param("bias", nn.initializers.zeros, (subsets, self.channels))
        # Joints first: the sum over the subsets is then part of one matrix product over the channels.
        received = jnp.stack([x @ adjacency[k].astype(x.dtype) for k in range(subsets)])
        z = jnp.einsum("kio,kinmtv->onmtv", kernel.astype(x.dtype), received)
        z = z + bias.sum(axis=0).astype(x.dtype)[:, None, None, None, None]
        return add_residual(z, x, self.norm, train)


class NormedTemporalConv(nn.Module):
    """One convolution over five frames, and batch norm: `[C, N, M, T, V]` -> `[channels, N, M, ceil(T / stride), V]`.

    Attributes:
      channels: of the output.
      stride: over frames.
      norm: makes a batch norm.
    """

    channels: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = TemporalConv(self.channels, TEMPORAL_KERNEL, self.stride, name="conv")(x)
        return self.norm(name="bn")(x, train)


class CTRSGCN(TenBlocks):
    """CTRS-GCN; `adjacency` is float32 `[3, V, V]`, three identities in the published code."""

    temporal_conv = NormedTemporalConv

    def graph_conv(self, number: int) -> Callable[..., nn.Module]:
        del number  # the same in every block
        return functools.partial(GraphConv, adjacency=self.adjacency)
