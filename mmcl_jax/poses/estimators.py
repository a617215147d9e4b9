"""The estimator that a name or a file of weights means."""

import os
import pathlib

from mmcl_jax.poses.estimate import Estimator


def load_estimator(model: str | os.PathLike = "full", threads: int | None = None) -> Estimator:
    """Loads an estimator.

    Args:
      model: "lite", "full" or "heavy", or a landmark network (.tflite): BlazePose. Weights of ultralytics (.pt):
        YOLO-pose.
      threads: with which BlazePose computes; None: one for each core.

    Raises: PosesError if a file or package is missing, or the file is no such model.
    """
    if pathlib.Path(model).suffix == ".pt":
        from mmcl_jax.poses.yolo import YoloPose

        return YoloPose(model)
    from mmcl_jax.poses.blazepose import BlazePose

    return BlazePose(model, threads=threads)
