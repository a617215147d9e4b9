"""CTR-GCN's topologies and aggregation, against einsum."""

import jax.numpy as jnp
import numpy as np

from mmcl_jax.models.fast.topologies import aggregate, lift, lift_all
from tests.models.fast.comparison import assert_same, normal

SUBSETS, RANK, CHANNELS, CLIPS, BODIES, FRAMES, JOINTS = 3, 4, 6, 2, 2, 5, 7


def plain_lift(kernel, distance, bias, shared):
    return shared + jnp.einsum("rc,rnmuv->cnmuv", kernel, distance) + bias[:, None, None, None, None]


def test_lift():
    distance = normal(RANK, CLIPS, BODIES, JOINTS, JOINTS)
    assert_same(lift, plain_lift, normal(RANK, CHANNELS), distance, normal(CHANNELS), normal(JOINTS, JOINTS))


def test_lift_all():
    def plain(kernel, relation, bias, shared):
        distance = jnp.tanh(relation[0, ..., None] - relation[1, ..., None, :])
        return jnp.stack([plain_lift(kernel[k], distance[k], bias[k], shared[k]) for k in range(SUBSETS)])

    assert_same(
        lambda *arguments: jnp.stack(lift_all(*arguments, jnp.dtype(np.float64))),
        plain,
        normal(SUBSETS, RANK, CHANNELS),
        normal(2, SUBSETS, RANK, CLIPS, BODIES, JOINTS),
        normal(SUBSETS, CHANNELS),
        normal(SUBSETS, JOINTS, JOINTS),
    )


def test_aggregate():
    def plain(topologies, values):
        return jnp.einsum("kcnmuv,kcnmtv->cnmtu", jnp.stack(topologies), jnp.stack(values))

    topologies = tuple(normal(CHANNELS, CLIPS, BODIES, JOINTS, JOINTS, seed=k) for k in range(SUBSETS))
    values = tuple(normal(CHANNELS, CLIPS, BODIES, FRAMES, JOINTS, seed=k) for k in range(SUBSETS))
    assert_same(aggregate, plain, topologies, values)
