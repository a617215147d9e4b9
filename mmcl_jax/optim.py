"""SGD with Nesterov momentum and the paper's stepwise schedule, as PyTorch computes them."""

from collections.abc import Callable, Sequence
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
