"""The image encoders that FAM can train beside a skeleton model."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn

from mmcl_jax.models.inception import InceptionV3
from mmcl_jax.models.small_cnn import SmallCNN


class ImageEncoder(NamedTuple):
    """An encoder class and the side, in pixels, of the square images that it is meant for."""

    module: Callable[..., nn.Module]
    image_size: int


# The contract: `module(group_size=None)` makes a Linen module with collections `params` and `batch_stats`; calling it
# as `(images, train)` takes ImageNet-normalised float32 `[N, image_size, image_size, 3]` to float32 `[N, D]`. An rng
# named `dropout` is optional. Adding an encoder is one file, one line here and one test.
IMAGE_ENCODERS = {
    "inception_v3": ImageEncoder(InceptionV3, image_size=299),
    "small_cnn": ImageEncoder(SmallCNN, image_size=96),
}
