"""The losses of the MMCL paper: classification, contrast of skeleton and image (eq. 4-6), refinement (eq. 9).

And those of Info-GCN: cross entropy with label smoothing, and two terms that shape its latent vectors.
"""

import jax
import jax.numpy as jnp
import optax

from mmcl_jax.models.groups import group_count
from mmcl_jax.runtime.errors import ConfigError

CONTRASTIVE = ("released", "paper")


def cross_entropy(
    logits: jax.Array, labels: jax.Array, *, weights: jax.Array | None = None, smoothing: float = 0.0
) -> jax.Array:
    """Mean cross entropy of logits `[N, K]` and labels, int `[N]`: L_cls and, on refined scores, L_R (eq. 9).

    Args:
      logits: of each clip.
      labels: of each clip.
      weights: float `[N]`, what each clip counts, 1 on average; None: all the same.
      smoothing: share of each target that all K classes get in equal parts.
    """
    if smoothing:
        return smoothed_cross_entropy(logits, labels, smoothing, weights)
    return _mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels), weights)


def cross_entropy_of_logits(
    logits: jax.Array,
    aux: dict[str, jax.Array],
    labels: jax.Array,
    *,
    weights: jax.Array | None = None,
    smoothing: float = 0.0,
) -> jax.Array:
    """`cross_entropy` as the `classification_loss` of a backbone, whose auxiliary outputs it does not need."""
    del aux
    return cross_entropy(logits, labels, weights=weights, smoothing=smoothing)


def smoothed_cross_entropy(
    logits: jax.Array, labels: jax.Array, smoothing: float, weights: jax.Array | None = None
) -> jax.Array:
    """Mean cross entropy of logits `[N, K]` with targets that give all K classes equal parts of `smoothing`.

    The rest of each target goes to the label, int `[N]`; with a smoothing of 0 this is `cross_entropy`. `weights`,
    float `[N]`, are what each clip counts.
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return _mean(optax.softmax_cross_entropy(logits, targets), weights)


def _mean(values: jax.Array, weights: jax.Array | None) -> jax.Array:
    return values.mean() if weights is None else (weights * values).mean()


def class_prior_distance(latent: jax.Array, prior: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean squared distance of the classes' mean latent vectors from their priors (Info-GCN's conditional MMD).

    Args:
      latent: latent vectors, `[N, D]`.
      prior: `[K, D]`, where the latent vectors of each class should be on average.
      labels: int `[N]`.

    Returns:
      A scalar: the mean over D and over the classes that occur in `labels`.
    """
    members = jax.nn.one_hot(labels, prior.shape[0], dtype=latent.dtype)
    counts = members.sum(axis=0)
    means = jnp.matmul(members.T, latent, precision="highest") / jnp.maximum(counts, 1)[:, None]
    distances = jnp.square(means - prior).mean(axis=1)
    present = counts > 0
    return jnp.where(present, distances, 0).sum() / present.sum()


def mean_norm(latent: jax.Array) -> jax.Array:
    """Euclidean norm of the mean of `[N, D]` latent vectors (Info-GCN's marginal MMD). Its gradient at 0 is 0."""
    return optax.safe_norm(latent.mean(axis=0), 0.0)


def contrastive(
    a: jax.Array, b: jax.Array, *, temperature: float, variant: str = "released", group_size: int | None = None
) -> jax.Array:
    """Symmetric contrastive loss between the features of two modalities (eq. 4).

    Args:
      a: `[N, D]` features of one modality.
      b: `[N, D]` features of the other; row i belongs to the same clip as `a[i]`.
      temperature: tau.
      variant: 'released': that of the released code (GRACE), whose negatives are the other clips in both modalities,
        compared to one modality; 'paper': eq. 6, whose negatives are across modalities in both directions. Both have
        the minus sign that eq. 5 lacks.
      group_size: clips that are contrasted with each other, a divisor of N; None means the whole batch.

    Returns:
      A scalar, the mean over clips and directions.

    Raises:
      ConfigError: the variant is unknown, or the group size does not divide N.
    """
    if variant not in CONTRASTIVE:
        raise ConfigError(f"contrastive variant {variant!r} is not one of {', '.join(CONTRASTIVE)}")
    groups = group_count(a.shape[0], group_size)
    loss = _released if variant == "released" else _paper
    grouped = (x.reshape(groups, -1, x.shape[-1]) for x in (_unit(a), _unit(b)))
    return jax.vmap(lambda a, b: loss(a, b, temperature))(*grouped).mean()


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _released(a: jax.Array, b: jax.Array, temperature: float) -> jax.Array:
    across = _similarity(a, b, temperature)
    return (_one_way(a, across, temperature) + _one_way(b, across.T, temperature)) / 2


def _one_way(a: jax.Array, across: jax.Array, temperature: float) -> jax.Array:
    same = jnp.eye(len(a), dtype=bool)
    within = jnp.where(same, -jnp.inf, _similarity(a, a, temperature))
    candidates = jax.nn.logsumexp(jnp.concatenate([across, within], axis=1), axis=1)
    return (candidates - jnp.diag(across)).mean()


def _paper(a: jax.Array, b: jax.Array, temperature: float) -> jax.Array:
    across = _similarity(a, b, temperature)
    same = jnp.eye(len(a), dtype=bool)
    # Row i: the positive pair, the other images against skeleton i, the other skeletons against image i.
    candidates = jnp.concatenate([across, jnp.where(same, -jnp.inf, across.T)], axis=1)
    return (jax.nn.logsumexp(candidates, axis=1) - jnp.diag(across)).mean()


def _similarity(a: jax.Array, b: jax.Array, temperature: float) -> jax.Array:
    return jnp.matmul(a, b.T, precision="highest") / temperature
