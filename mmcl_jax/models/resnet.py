"""ResNet-34, the second image encoder whose published weights fit."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl_jax.models.initializers import linear_uniform
from mmcl_jax.models.layers import BatchNorm
from mmcl_jax.models.precision import at_least_float32

BLOCKS = (3, 4, 6, 3)  # in each stage; torchvision's layer1 to layer4
WIDTHS = (64, 128, 256, 512)


def downsamples(stage: int, block: int) -> bool:
    """Whether the residual of a block (both counted from 0) is a 1x1 convolution, which halves height and width."""
    return stage > 0 and block == 0


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a residual: `[N, H, W, C]` -> `[N, H', W', features]`, half the size if `downsample`."""

    features: int
    downsample: bool
    group_size: int | None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        stride = 2 if self.downsample else 1
        conv = functools.partial(_conv, dtype=self.dtype)
        y = conv(self.features, 3, stride, "conv1")(x)
        y = nn.relu(BatchNorm(self.group_size, name="bn1")(y, train))
        y = conv(self.features, 3, 1, "conv2")(y)
        y = BatchNorm(self.group_size, name="bn2")(y, train)
        if self.downsample:
            x = conv(self.features, 1, stride, "downsample")(x)
            x = BatchNorm(self.group_size, name="downsample_bn")(x, train)
        return nn.relu(x + y)


class ResNet34(nn.Module):
    """ResNet-34 (He et al. 2016) with the layers of torchvision's `resnet34`.

    Input: ImageNet-normalized images `[N, H, W, 3]` float32 of any size (the published input is 224). Output: logits
    `[N, num_classes]` float32.

    Attributes:
      num_classes: width of the last layer.
      group_size: clips in a batch-norm group in training (see `BatchNorm`); None means the whole batch.
      dtype: type of convolutions and activations; parameters and batch-norm statistics stay float32.
    """

    num_classes: int = 1000
    group_size: int | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        x = _conv(WIDTHS[0], 7, 2, "conv1", self.dtype)(images)  # [N, H, W, C] throughout
        x = nn.relu(BatchNorm(self.group_size, name="bn1")(x, train))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))  # pyright: ignore[reportArgumentType]
        for stage, (features, count) in enumerate(zip(WIDTHS, BLOCKS, strict=True)):
            for block in range(count):
                name = f"layer{stage + 1}_{block}"
                x = BasicBlock(features, downsamples(stage, block), self.group_size, self.dtype, name=name)(x, train)
        x = at_least_float32(x).mean(axis=(1, 2))
        init = linear_uniform(x.shape[-1])
        return nn.Dense(self.num_classes, kernel_init=init, bias_init=init, name="fc")(x)


def _conv(features: int, size: int, stride: int, name: str, dtype: jnp.dtype) -> nn.Conv:
    """A square convolution without bias, padded equally on all sides, which Flax's 'SAME' is not with a stride of 2."""
    return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=False,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),  # kaiming_normal_(mode='fan_out')
        dtype=dtype,
        name=name,
    )
