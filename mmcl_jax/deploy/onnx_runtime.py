"""Predicts with ONNX Runtime instead of XLA: the same clips, checks and answers, another program for the model."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from mmcl_jax.deploy.exported import ExportError
from mmcl_jax.deploy.manifest import SKELETON
from mmcl_jax.deploy.onnx_model import to_onnx
from mmcl_jax.trained_model import TrainedModel


class OnnxRuntimeModel(TrainedModel):
    """A trained model whose backbone runs in ONNX Runtime, on the CPU. Probabilities equal the model's to 1e-5.

    The test transform stays a program of XLA's. docs/performance.md has figures.
    """

    def __init__(self, model: TrainedModel):
        """Raises: ExportError if the package onnx or onnxruntime is absent."""
        super().__init__(model.description, model.variables, step=model.step, path=model.path)
        try:
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
        except ImportError as error:
            raise ExportError(
                "predicting with ONNX Runtime needs onnx and onnxruntime; pip install 'mmcl_jax[onnx]'"
            ) from error

    def _compile_logits(self, bodies: int, size: int) -> Callable[..., np.ndarray]:
        run = self._program(("session", bodies), functools.partial(self._session, bodies))
        return lambda clips, _counts: run(None, {SKELETON: clips})[0]

    def _session(self, bodies: int) -> Callable[..., Any]:
        """The program for any number of clips of `bodies` bodies; it sees by itself which of them are absent."""
        import onnxruntime

        described = dataclasses.replace(self.description, bodies=bodies)
        model = TrainedModel(described, self._fitted(bodies), step=self.step, path=self.path)
        program = to_onnx(model, features=True, logits=True).SerializeToString()
        return onnxruntime.InferenceSession(program, providers=["CPUExecutionProvider"]).run
