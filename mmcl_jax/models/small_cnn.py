"""A small image encoder for small machines: about 12 million multiply-adds for a 96x96 image."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl_jax.models.layers import BatchNorm
from mmcl_jax.models.precision import at_least_float32


class SmallCNN(nn.Module):
    """Five stages of strided 3x3 convolution, batch norm and ReLU, then mean pool and a dense layer.

    Input: normalized images `[N, H, W, 3]` float32 of any size (96 is usual). Output: features
    `[N, num_features]` float32.

    Attributes:
      num_features: width of the output.
      group_size: clips in a batch-norm group in training (see `BatchNorm`); None means the whole batch.
      stages: channels of each stage; each halves height and width.
      dtype: type of convolutions and activations; parameters and batch-norm statistics stay float32.
    """

    num_features: int = 256
    group_size: int | None = None
    stages: tuple[int, ...] = (16, 32, 64, 128, 256)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        init = nn.initializers.he_normal()
        x = images  # [N, H, W, C] throughout
        for i, features in enumerate(self.stages, start=1):
            x = nn.Conv(
                features, (3, 3), strides=2, use_bias=False, kernel_init=init, dtype=self.dtype, name=f"conv{i}"
            )(x)
            x = nn.relu(BatchNorm(group_size=self.group_size, name=f"bn{i}")(x, train))
        return nn.Dense(self.num_features, name="fc")(at_least_float32(x).mean(axis=(1, 2)))
