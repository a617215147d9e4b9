"""Multi-modality co-learning for skeleton action recognition. The commands are here; the folders hold their parts."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from mmcl_jax.runtime.interrupts import quiet_start

if TYPE_CHECKING:
    from mmcl_jax.deploy.exported import load_exported
    from mmcl_jax.recognition.watch import watch
    from mmcl_jax.trained_model import Prediction, TrainedModel, load_model

__all__ = ["Prediction", "TrainedModel", "__version__", "load_exported", "load_model", "watch"]

quiet_start()

try:
    __version__ = importlib.metadata.version("mmcl_jax")
except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
    __version__ = "unknown"


def __getattr__(name: str) -> Any:
    """Imports what needs JAX at its first use, so that importing the package takes no time."""
    modules = {
        "load_exported": "mmcl_jax.deploy.exported",
        "watch": "mmcl_jax.recognition.watch",
        **dict.fromkeys(("Prediction", "TrainedModel", "load_model"), "mmcl_jax.trained_model"),
    }
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(modules[name]), name)
