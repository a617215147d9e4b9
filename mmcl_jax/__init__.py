"""Multi-modality co-learning for skeleton action recognition. The commands are here; the folders hold their parts."""

import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcl_jax.trained_model import Prediction, TrainedModel, load_model

__all__ = ["Prediction", "TrainedModel", "__version__", "load_model"]

try:
    __version__ = importlib.metadata.version("mmcl_jax")
except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
    __version__ = "unknown"


def __getattr__(name: str) -> Any:
    """Imports what needs JAX at its first use, so that importing the package takes no time."""
    if name not in ("Prediction", "TrainedModel", "load_model"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mmcl_jax import trained_model

    return getattr(trained_model, name)
