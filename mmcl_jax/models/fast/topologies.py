"""CTR-GCN's two large products: the topologies of every channel, and the aggregation over joints."""

import jax
import jax.numpy as jnp

from mmcl_jax.models.fast.products import channel_product


@jax.custom_vjp
def lift(kernel: jax.Array, distance: jax.Array, bias: jax.Array, shared: jax.Array) -> jax.Array:
    """Topologies of one subset: `[R, C]`, `[R, N, M, U, V]`, `[C]`, `[U, V]` -> `[C, N, M, U, V]`.

    Plain form: `shared + jnp.einsum("rc,rnmuv->cnmuv", kernel, distance) + bias[:, None, None, None, None]`.

    Faster on CPUs: the gradients of `bias` and `shared` are sums over the largest arrays of the model. They are
    computed as one more row and one more column of the products that give the other two gradients.
    """
    offset = bias[:, None, None] + shared
    return channel_product(kernel, distance) + offset.astype(distance.dtype)[:, None, None]


def _lift_forward(kernel, distance, bias, shared):
    return lift(kernel, distance, bias, shared), (kernel, distance)


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


lift.defvjp(_lift_forward, _lift_backward)


def lift_all(
    kernel: jax.Array, relation: jax.Array, bias: jax.Array, shared: jax.Array, dtype: jnp.dtype
) -> tuple[jax.Array, ...]:
    """Topologies of all K subsets from their relations, for prediction: no gradient is defined specially.

    `[K, R, C]`, `[2, K, R, N, M, V]`, `[K, C]`, `[K, U, V]` -> K times `[C, N, M, U, V]` in `dtype`. Plain form of
    subset k: `lift(kernel[k], jnp.tanh(relation[0, k, ..., None] - relation[1, k, ..., None, :]), bias[k], shared[k])`.

    Faster on CPUs: the relations of all subsets become one last axis, because a last axis of 25 joints would leave half
    of every vector of `tanh` empty. The products are those of matrices: XLA copies the result of a product over one
    clip and one body if it has more axes.
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
def aggregate(topologies: tuple[jax.Array, ...], values: tuple[jax.Array, ...]) -> jax.Array:
    """Every joint's sum over the joints that it receives from, and over the subsets.

    K times `[C, N, M, U, V]`, K times `[C, N, M, T, V]` -> `[C, N, M, T, U]`. Plain form:
    `sum(jnp.einsum("cnmuv,cnmtv->cnmtu", r, x) for r, x in zip(topologies, values))`.

    Faster on CPUs: the gradient is transposed once for all subsets. The barrier keeps XLA from transposing it again in
    each product.
    """
    pairs = zip(topologies, values, strict=True)
    return jnp.asarray(sum(jnp.einsum("cnmuv,cnmtv->cnmtu", *pair) for pair in pairs))


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
