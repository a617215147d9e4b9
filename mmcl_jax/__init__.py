"""Multi-modality co-learning for skeleton action recognition. The commands are here; the folders hold their parts."""

import importlib.metadata

try:
    __version__ = importlib.metadata.version("mmcl_jax")
except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
    __version__ = "unknown"
