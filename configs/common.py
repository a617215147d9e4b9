"""The config keys and helpers of `mmcl_jax.config`, for the config files in this folder."""

from mmcl_jax.config import get_config, get_ntu_config, split_arguments, without_images_and_text

__all__ = ["get_config", "get_ntu_config", "split_arguments", "without_images_and_text"]
