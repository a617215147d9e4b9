"""The features of a batch in which the bodies that are absent are computed only once.

An absent body is zero in every frame. Its embedding is then the same in all clips that are normalized together, in
training too, and so is everything that is computed of it until the features are pooled. So a backbone computes the
bodies that are present and, of each group of clips, one absent body for each number of a body within its clip. It
counts as often as it occurs, in batch norms and in pooling: the function, its statistics and its gradients are those of
the whole batch.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmcl_jax.models.groups import group_count
from mmcl_jax.models.layers import BatchNorm
from mmcl_jax.models.precision import at_least_float32


@dataclasses.dataclass(frozen=True)
class Packing:
    """How many bodies are computed, and where.

    Attributes:
      capacity: bodies of each group of clips that are computed, static. It must hold those that are present (at least
        one a clip) and M - 1 absent ones; see `mmcl_jax.data.capacities`.
      mesh: devices that share them; None: one device.
    """

    capacity: int
    mesh: Mesh | None = None

    def spread(self, x: jax.Array) -> jax.Array:
        """Packed bodies `[C, groups, capacity, T, V]`, divided over the devices: whole groups, or else bodies."""
        if self.mesh is None or self.mesh.size == 1:
            return x
        spec = PartitionSpec(None, "data") if x.shape[1] % self.mesh.size == 0 else PartitionSpec(None, None, "data")
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))


def packed_features(backbone: Any, clips: jax.Array, bodies: jax.Array, train: bool, packing: Packing) -> jax.Array:
    """What `backbone.features` returns, the mean over frames and joints: `[N, M, 1, 1, C']`.

    Args:
      backbone: a `blocks.Backbone` that `weighs_bodies`.
      clips: `[N, M, T, V, C]`; absent bodies are zero.
      bodies: how many are present, int `[N]`.
      train: as in `backbone.features`.
      packing: how many are computed.
    """
    embedded = backbone.embed(clips, train)
    count, most = clips.shape[:2]
    groups = group_count(count, backbone.batch_norm_group_size)
    # The first body of a clip is always computed, so absent ones are those with numbers from 1 on.
    present = jnp.arange(most) < jnp.maximum(bodies, 1)[:, None]
    rows, weights, places = jax.vmap(lambda group: _pack(group, packing.capacity))(present.reshape(groups, -1, most))
    grouped = embedded.reshape(embedded.shape[0], groups, -1, *embedded.shape[3:])
    take = jax.vmap(lambda x, row: x.at[:, row].get(mode="promise_in_bounds"), in_axes=(1, 0), out_axes=1)
    with nn.intercept_methods(_weighing(weights)):
        features = backbone.trunk(packing.spread(take(grouped, rows)), train)
    pooled = at_least_float32(features).mean(axis=(2, 3))
    # A product in place of an index, whose gradient would be added up in any order on a GPU.
    chosen = jax.nn.one_hot(places.reshape(groups, -1), packing.capacity, dtype=pooled.dtype)
    unpacked = jnp.einsum("gbp,gpc->gbc", chosen, pooled, precision="highest")
    return unpacked.reshape(count, most, 1, 1, -1)


def _pack(present: jax.Array, capacity: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Which bodies of a group of clips are computed, where bool `[clips, M]` says which are present.

    Returns:
      Their rows among the `clips * M` bodies and how often each counts, `[capacity]` each; and the place of each body,
      or of the absent one that it equals, among them, `[clips, M]`.
    """
    most = present.shape[1]
    room = capacity - (most - 1)
    rows = jnp.argsort(~present.reshape(-1), stable=True)[:room]  # absent ones, which do not count, fill the room
    counts = jnp.arange(room) < present.sum()
    numbers = jnp.arange(1, most)
    absent_rows = jnp.argmin(present, axis=0)[1:] * most + numbers
    rank = jnp.cumsum(present.reshape(-1)).reshape(present.shape) - 1
    return (
        jnp.concatenate([rows, absent_rows]),
        jnp.concatenate([counts, (~present).sum(axis=0)[1:]]).astype(jnp.float32),
        jnp.where(present, rank, room - 1 + jnp.arange(most)),
    )


def _weighing(weights: jax.Array):
    """Gives every batch norm the `weights` of the bodies; see `flax.linen.intercept_methods`."""

    def call(method, arguments, keywords, context):
        if isinstance(context.module, BatchNorm):
            keywords = {**keywords, "weights": weights}
        return method(*arguments, **keywords)

    return call
