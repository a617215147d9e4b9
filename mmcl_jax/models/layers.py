"""Blocks that several models share: batch normalisation with explicit groups, PyTorch's initialisers."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
    """Batch normalisation over every axis but the last, as PyTorch's `BatchNorm2d` computes it.

    Input `[N, ..., C]`, output of the same shape and type. Statistics are float32. Differences from
    `flax.linen.BatchNorm`: running variances take the unbiased estimate, and statistics can be taken over
    groups of clips, as two GPUs under PyTorch's `DataParallel` do (each group normalises itself; the
    running statistics follow the first group only).

    Attributes:
      group_size: clips a group, `N` must be a multiple of it; None means the whole batch.
      rows_per_clip: rows of axis 0 that belong to one clip (the bodies, where they are folded into it).
      momentum: the weight that the old running statistics keep (PyTorch's `1 - momentum`).
      epsilon: added to the variance.
      scale_init: initialiser of the scale.
    """

    group_size: int | None = None
    rows_per_clip: int = 1
    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param("scale", self.scale_init, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if not train:
            factor = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
            offset = bias - running_mean.value * factor
            return x * factor.astype(x.dtype) + offset.astype(x.dtype)

        groups = group_count(x.shape[0], self.group_size and self.group_size * self.rows_per_clip)
        grouped = x.reshape(groups, -1, channels).astype(jnp.float32)
        count = grouped.shape[1]
        mean = jnp.mean(grouped, axis=1)
        var = jnp.mean(jnp.square(grouped - mean[:, None]), axis=1)
        if not self.is_initializing():
            unbiased = var[0] * (count / max(count - 1, 1))
            running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean[0]
            running_var.value = self.momentum * running_var.value + (1 - self.momentum) * unbiased
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        offset = bias - mean * factor
        normalised = grouped * factor[:, None] + offset[:, None]
        return normalised.reshape(x.shape).astype(x.dtype)


def group_count(rows: int, group_size: int | None) -> int:
    """Returns the number of groups of `group_size` rows in `rows`; None is one group.

    Raises:
      ValueError: `rows` is not a multiple of `group_size`.
    """
    if group_size is None:
        return 1
    if rows % group_size:
        raise ValueError(f"group size {group_size} does not divide {rows} rows; choose one that divides the batch")
    return rows // group_size


# PyTorch's kaiming_normal_(mode='fan_out') on a convolution: variance 2 / (out channels * kernel area).
fan_out_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
