"""The rest of a batch norm that a product took over, and how the product takes it over."""

from collections.abc import Mapping

import flax.linen as nn
import jax

from mmcl_jax.models.initializers import Initializer
from mmcl_jax.models.layers import EPSILON


class FoldedNorm(nn.Module):
    """What remains of a batch norm, channel-major: `[C, ...]` -> `[C, ...]`.

    Variables, both in `params` and both optional: the factor `scale` and the offset `bias`, `[C]`. Nothing is
    initialized here: the variables come from `folded.fold`.

    Attributes:
      scale_init: accepted because `BatchNorm` accepts it; not used.

    Raises:
      ValueError: in training, which needs the statistics that were folded.
    """

    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if train:
            raise ValueError("a model with folded batch norms cannot train; train the model that it was made from")
        per_channel = (-1, *[1] * (x.ndim - 1))
        if self.has_variable("params", "scale"):
            x = x * self.get_variable("params", "scale").reshape(per_channel)
        if self.has_variable("params", "bias"):
            x = x + self.get_variable("params", "bias").reshape(per_channel)
        return x


def norm_affine(params: Mapping, batch_stats: Mapping, name: str) -> tuple[jax.Array, jax.Array]:
    """Factor and offset, `[C]` each, of the batch norm `name` in evaluation."""
    params, stats = params[name], batch_stats[name]
    factor = params["scale"] * jax.lax.rsqrt(stats["var"] + EPSILON)
    return factor, params["bias"] - stats["mean"] * factor


def fold_conv(params: Mapping, factor: jax.Array, offset: jax.Array | float) -> dict[str, jax.Array]:
    """A convolution's kernel `[..., O]` and bias `[O]`, with factor and offset `[O]` of its batch norm in them."""
    return {"kernel": params["kernel"] * factor, "bias": params["bias"] * factor + offset}
