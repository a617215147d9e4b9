"""The image encoders that FAM can train beside a skeleton model."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn

from mmcl_jax.models.efficientnet import EfficientNetLite0
from mmcl_jax.models.inception import InceptionV3
from mmcl_jax.models.resnet import ResNet34
from mmcl_jax.models.small_cnn import SmallCNN

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]  # mean and deviation of RGB in [0, 1]

IMAGENET: Statistics = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# torchvision's trained Inception-v3 undoes ImageNet's statistics and expects pixels in [-1, 1].
UNIT: Statistics = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
# EfficientNet-Lite's: 127 and 128 of 255.
LITE: Statistics = (127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255)


class ImageEncoder(NamedTuple):
    """An encoder class, and the images that it expects.

    Attributes:
      module: the class.
      image_size: side of the square images, in pixels.
      torch_statistics: mean and deviation by which the published weights (`model.image_encoder_weights`) expect images
        to be normalized.
    """

    module: Callable[..., nn.Module]
    image_size: int
    torch_statistics: Statistics = IMAGENET

    def statistics(self, weights: str) -> Statistics:
        """Mean and deviation that normalize the images; `weights` is `model.image_encoder_weights`, '' for none."""
        return self.torch_statistics if weights else IMAGENET


# The contract: `module(group_size=None, dtype=float32)` returns a Linen module with the collections `params` and
# `batch_stats`. Called as `(images, train)`, it takes normalized images, float32 `[N, image_size, image_size, 3]`, to
# float32 `[N, D]`, computing in `dtype`. A random stream named `dropout` is optional. Adding an encoder takes one file,
# one line here and one test.
IMAGE_ENCODERS = {
    "efficientnet_lite0": ImageEncoder(EfficientNetLite0, 224, LITE),
    "inception_v3": ImageEncoder(InceptionV3, 299, UNIT),
    "resnet34": ImageEncoder(ResNet34, 224),
    "small_cnn": ImageEncoder(SmallCNN, 96),
}
