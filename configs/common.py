"""Every key of a run's configuration, and what the configs here share: `mmcl_jax.config`, by its name of old."""

from mmcl_jax.config import get_config, get_ntu_config, split_arguments, without_images_and_text

__all__ = ["get_config", "get_ntu_config", "split_arguments", "without_images_and_text"]
