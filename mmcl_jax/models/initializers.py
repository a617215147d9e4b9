"""How PyTorch's layers and the published GCNs start."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

Initializer = nn.initializers.Initializer
Initializers = Callable[[int, int], tuple[Initializer, Initializer]]
"""Takes a layer's fan in and fan out; returns the initializers of its kernel and its bias."""


def fan_out_normal(fan_out: int) -> Initializer:
    """PyTorch's `kaiming_normal_(mode='fan_out')`, for stacked kernels, whose shape does not tell the fan."""
    return nn.initializers.normal((2.0 / fan_out) ** 0.5)


def linear_uniform(fan_in: int) -> Initializer:
    """PyTorch's default for the weights and biases of its layers: uniform within `1 / sqrt(fan_in)`."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def branch_normal(branches: int, channels_in: int, channels: int) -> Initializer:
    """CTR-GCN's `conv_branch_init`, for 1x1 convolutions whose results are added up."""
    return nn.initializers.normal((2.0 / (branches * channels_in * channels)) ** 0.5)


def classifier_normal(num_classes: int) -> Initializer:
    """What the published GCNs give the kernel of their last layer."""
    return nn.initializers.normal((2.0 / num_classes) ** 0.5)


def near_one(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Normal around 1 with a deviation of 0.02: scales of batch norms in CTR-GCN's temporal convolutions."""
    return 1.0 + 0.02 * jax.random.normal(key, shape)


def gcn_init(fan_in: int, fan_out: int) -> tuple[Initializer, Initializer]:
    """`Initializers` of convolutions as the published GCNs set them: `fan_out_normal` and zeros."""
    del fan_in
    return fan_out_normal(fan_out), nn.initializers.zeros


def default_init(fan_in: int, fan_out: int) -> tuple[Initializer, Initializer]:
    """`Initializers` of convolutions as PyTorch leaves them: `linear_uniform` twice."""
    del fan_out
    return linear_uniform(fan_in), linear_uniform(fan_in)
