"""Inception-v3, the image encoder that the paper trains beside the skeleton model."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl_jax.models.initializers import linear_uniform
from mmcl_jax.models.layers import BatchNorm


class Conv(NamedTuple):
    """One convolution of the tables below, with torchvision's name for it."""

    name: str
    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


MAX_POOL = "max_pool"
AVG_POOL = "avg_pool"


def _reduced(name: str, features: int) -> Conv:
    return Conv(name, features, (3, 3), stride=2, padding="VALID")


def _block_5(pool_features: int) -> tuple:
    """35x35 grid (torchvision's InceptionA)."""
    return (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))),
        (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)), Conv("branch3x3dbl_3", 96, (3, 3))),
        (AVG_POOL, Conv("branch_pool", pool_features)),
    )


def _block_6(inner: int) -> tuple:
    """17x17 grid, 7x7 convolutions factorized (torchvision's InceptionC)."""
    return (
        (Conv("branch1x1", 192),),
        (Conv("branch7x7_1", inner), Conv("branch7x7_2", inner, (1, 7)), Conv("branch7x7_3", 192, (7, 1))),
        (
            Conv("branch7x7dbl_1", inner),
            Conv("branch7x7dbl_2", inner, (7, 1)),
            Conv("branch7x7dbl_3", inner, (1, 7)),
            Conv("branch7x7dbl_4", inner, (7, 1)),
            Conv("branch7x7dbl_5", 192, (1, 7)),
        ),
        (AVG_POOL, Conv("branch_pool", 192)),
    )


# 8x8 grid (torchvision's InceptionE). A tuple inside a branch is a fork, whose outputs are concatenated.
_BLOCK_7 = (
    (Conv("branch1x1", 320),),
    (Conv("branch3x3_1", 384), (Conv("branch3x3_2a", 384, (1, 3)), Conv("branch3x3_2b", 384, (3, 1)))),
    (
        Conv("branch3x3dbl_1", 448),
        Conv("branch3x3dbl_2", 384, (3, 3)),
        (Conv("branch3x3dbl_3a", 384, (1, 3)), Conv("branch3x3dbl_3b", 384, (3, 1))),
    ),
    (AVG_POOL, Conv("branch_pool", 192)),
)

STEM = (
    Conv("Conv2d_1a_3x3", 32, (3, 3), stride=2, padding="VALID"),
    Conv("Conv2d_2a_3x3", 32, (3, 3), padding="VALID"),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    MAX_POOL,
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, (3, 3), padding="VALID"),
    MAX_POOL,
)

# Name of each block -> its branches, whose outputs are concatenated along the channels; in torchvision's order.
BLOCKS = {
    "Mixed_5b": _block_5(32),
    "Mixed_5c": _block_5(64),
    "Mixed_5d": _block_5(64),
    "Mixed_6a": (  # 35x35 -> 17x17 (torchvision's InceptionB)
        (_reduced("branch3x3", 384),),
        (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)), _reduced("branch3x3dbl_3", 96)),
        (MAX_POOL,),
    ),
    "Mixed_6b": _block_6(128),
    "Mixed_6c": _block_6(160),
    "Mixed_6d": _block_6(160),
    "Mixed_6e": _block_6(192),
    "Mixed_7a": (  # 17x17 -> 8x8 (torchvision's InceptionD)
        (Conv("branch3x3_1", 192), _reduced("branch3x3_2", 320)),
        (
            Conv("branch7x7x3_1", 192),
            Conv("branch7x7x3_2", 192, (1, 7)),
            Conv("branch7x7x3_3", 192, (7, 1)),
            _reduced("branch7x7x3_4", 192),
        ),
        (MAX_POOL,),
    ),
    "Mixed_7b": _BLOCK_7,
    "Mixed_7c": _BLOCK_7,
}


def convolutions(branch: tuple) -> list[Conv]:
    """Returns the convolutions of a branch in order, those of forks included."""
    found = []
    for step in branch:
        if isinstance(step, Conv):
            found.append(step)
        elif isinstance(step, tuple):
            found.extend(convolutions(step))
    return found


class ConvNormRelu(nn.Module):
    """Convolution without bias, batch norm (epsilon 1e-3), ReLU: `[N, H, W, C]` -> `[N, H', W', features]`."""

    spec: Conv
    group_size: int | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Conv(
            self.spec.features,
            self.spec.kernel,
            strides=self.spec.stride,
            padding=self.spec.padding,
            use_bias=False,
            kernel_init=torchvision_init,
            dtype=self.dtype,
            name="conv",
        )(x)
        return nn.relu(BatchNorm(group_size=self.group_size, epsilon=1e-3, name="bn")(x, train))


class Branches(nn.Module):
    """Branches over one input, concatenated along the channels: `[N, H, W, C]` -> `[N, H', W', C']`."""

    branches: tuple
    group_size: int | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        def conv(spec: Conv, y: jax.Array) -> jax.Array:
            return ConvNormRelu(spec, self.group_size, self.dtype, name=spec.name)(y, train)

        outputs = []
        for branch in self.branches:
            y = x
            for step in branch:
                if step == AVG_POOL:  # the zero padding counts in the mean, as in F.avg_pool2d
                    y = nn.avg_pool(y, (3, 3), strides=(1, 1), padding="SAME")
                elif step == MAX_POOL:
                    y = nn.max_pool(y, (3, 3), strides=(2, 2))
                elif isinstance(step, Conv):
                    y = conv(step, y)
                else:
                    y = jnp.concatenate([conv(spec, y) for spec in step], axis=-1)
            outputs.append(y)
        return jnp.concatenate(outputs, axis=-1)


class InceptionV3(nn.Module):
    """Inception-v3 (Szegedy et al. 2016) with the layers and names of torchvision's `inception_v3`.

    Input: ImageNet-normalized images `[N, H, W, 3]` float32, at least 75 pixels high and wide (the published input is
    299). Output: logits `[N, num_classes]` float32. The auxiliary head is not computed: the published MMCL
    discards its output. Dropout (rate 0.5, on the pooled features) acts when `train` is true and a `dropout`
    rng is given.

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
        x = images  # [N, H, W, C] throughout
        for step in STEM:
            if step == MAX_POOL:
                x = nn.max_pool(x, (3, 3), strides=(2, 2))
            else:
                x = ConvNormRelu(step, self.group_size, self.dtype, name=step.name)(x, train)
        for name, branches in BLOCKS.items():
            x = Branches(branches, self.group_size, self.dtype, name=name)(x, train)
        x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        x = nn.Dropout(0.5, deterministic=not (train and self.has_rng("dropout")))(x)
        bias_init = linear_uniform(x.shape[-1])
        return nn.Dense(self.num_classes, kernel_init=torchvision_init, bias_init=bias_init, name="fc")(x)


# torchvision draws from a normal of deviation 0.1 cut at +-2, at 20 deviations, which never happens in practice.
torchvision_init = nn.initializers.normal(0.1)
