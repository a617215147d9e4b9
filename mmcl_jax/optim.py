"""Optimizers and schedules: SGD and the paper's stepwise one, as PyTorch computes them, and what may replace them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

Schedule = Callable[[Any], jax.Array]  # step -> learning rate


def stepwise_schedule(
    base_lr: float, warmup_epochs: int, drop_epochs: Sequence[int], drop_factor: float, steps_per_epoch: int
) -> Schedule:
    """The learning rate of each step: constant in an epoch, linear over the warm-up, dropped after `drop_epochs`.

    In epoch e (from 0) of the warm-up it is `base_lr * (e + 1) / warmup_epochs`; afterwards
    `base_lr * drop_factor ** (number of drop epochs <= e)`.
    """
    drops = jnp.asarray(tuple(drop_epochs), jnp.int32)

    def schedule(step: Any) -> jax.Array:
        epoch = step // steps_per_epoch
        warm = base_lr * (epoch + 1) / max(warmup_epochs, 1)
        dropped = base_lr * drop_factor ** (epoch >= drops).sum()
        return jnp.where(epoch < warmup_epochs, warm, dropped)

    return schedule


def sgd(schedule: Schedule, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """PyTorch's SGD with Nesterov momentum; the decay is added to every parameter's gradient before the momentum."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(schedule, momentum=momentum, nesterov=True))


def cosine_schedule(base_lr: float, warmup_epochs: int, num_epochs: int, steps_per_epoch: int) -> Schedule:
    """The learning rate of each step: linear over the warm-up, as `stepwise_schedule`, then half a cosine to 0.

    With t from 0 at the end of the warm-up to 1 at the end of `num_epochs` it is `base_lr * (1 + cos(pi t)) / 2`, for
    each step. It depends on `num_epochs`: a run that is prolonged follows another cosine from then on.
    """
    begin = warmup_epochs * steps_per_epoch
    length = max((num_epochs - warmup_epochs) * steps_per_epoch, 1)

    def schedule(step: Any) -> jax.Array:
        warm = base_lr * (step // steps_per_epoch + 1) / max(warmup_epochs, 1)
        done = jnp.clip((step - begin) / length, 0, 1)
        return jnp.where(step < begin, warm, base_lr * (1 + jnp.cos(jnp.pi * done)) / 2)

    return schedule


def adamw(schedule: Schedule, weight_decay: float) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter, ICLR 2019), betas 0.9 and 0.999; every parameter decays."""
    return optax.adamw(schedule, weight_decay=weight_decay)


def scaled_part(
    optimizer: optax.GradientTransformation, factor: float, belongs: Callable[[tuple[str, ...], Mapping], bool]
) -> optax.GradientTransformation:
    """`optimizer` with another learning rate, `factor` times its own, for a part of the parameters; 0 keeps them.

    Args:
      optimizer: of all parameters.
      factor: of the part's updates, the decay's included.
      belongs: function of a parameter's path and of all parameters: whether it is in the part.
    """

    def scale(updates: Any, params: Any) -> Any:
        def scaled(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
            return leaf * factor if belongs(tuple(key.key for key in path), params) else leaf

        return jax.tree_util.tree_map_with_path(scaled, updates)

    return optax.chain(optimizer, optax.stateless(scale))
