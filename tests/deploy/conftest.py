"""Small models, their clips and what `predict` says of them, once for all tests of this folder."""

import functools
from collections.abc import Callable

import numpy as np
import pytest

from mmcl_jax import trained_model
from mmcl_jax.runtime.backend import HASTY
from mmcl_jax.trained_model import TrainedModel
from tests.deploy import models
from tests.helpers.shallow import make_shallow


@pytest.fixture(scope="session")
def predicted() -> Callable[[models.Case], tuple[TrainedModel, list[np.ndarray], np.ndarray]]:
    """A function of a case: its model, clips, and their probabilities `[N, K]` as `predict` computes them."""

    @functools.cache
    def predict(case: models.Case) -> tuple[TrainedModel, list[np.ndarray], np.ndarray]:
        with pytest.MonkeyPatch.context() as patch:
            make_shallow(patch.setitem, models.STAGES)
            patch.setattr(trained_model, "gpu_compiler_options", lambda: HASTY)  # compiling takes most of the time
            model, clips = models.make_model(case), models.make_clips(case)
            expected = np.stack([prediction.probabilities for prediction in model.predict(clips)])
        assert expected.max() < 0.99 and np.ptp(expected, axis=0).max() > 1e-2, expected  # clips and classes differ
        return model, clips, expected

    return predict


@pytest.fixture(autouse=True)
def _two_blocks(monkeypatch):
    make_shallow(monkeypatch.setitem, models.STAGES)
