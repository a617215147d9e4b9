"""The models that a watcher asks: named ones, loaded ones, or the one in the box."""

import os
import pathlib
from collections.abc import Sequence

from mmcl_jax.bundle import BOX, boxed
from mmcl_jax.poses.types import PosesError
from mmcl_jax.recognition.recognizer import Models
from mmcl_jax.trained_model import TrainedModel, load_model

_Model = str | os.PathLike | TrainedModel


def load_models(models: _Model | Sequence[_Model] | None, weights: Sequence[float] | None = None) -> Models:
    """Loads models that vote; None: those that come with the package.

    Raises: PosesError and what `load_model` raises.
    """
    if models is None:
        models = boxed()
        if not models:
            raise PosesError(f"{BOX}: no model comes with this installation; name one with --model")
    elif isinstance(models, str | os.PathLike | TrainedModel):
        models = [models]
    elif not models:
        raise PosesError("no model is named; leave the models out for the one that comes with the package")
    loaded = [
        model
        if isinstance(model, TrainedModel)
        else load_model(model if isinstance(model, str) else pathlib.Path(model))
        for model in models
    ]
    return Models(loaded, weights)
