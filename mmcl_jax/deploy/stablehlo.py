"""Writes a model as StableHLO: one file for CPUs, CUDA and TPUs that JAX runs without this package's models."""

import pathlib

import jax
import numpy as np
from jax import export

from mmcl_jax.deploy.exported import STABLEHLO
from mmcl_jax.deploy.manifest import describe_export, write_folder
from mmcl_jax.deploy.program import features_program, raw_program
from mmcl_jax.trained_model import TrainedModel

PLATFORMS = ("cpu", "cuda", "tpu")


def export_stablehlo(model: TrainedModel, out: pathlib.Path, features: bool = False) -> None:
    """Writes the folder `out`: `model.stablehlo`, a serialized `jax.export.Exported`, and `model.json`.

    The numbers of clips and of frames are symbolic.

    Args:
      model: the model.
      out: a new folder.
      features: whether the input is transformed clips; otherwise the transform is inside.

    Raises: ExportError, OSError.
    """
    write_folder(out, STABLEHLO, serialize(model, features), describe_export(model, features, "float32"))


def serialize(model: TrainedModel, features: bool = False) -> bytes:
    """The program as `jax.export.deserialize` reads it."""
    clips, frames = export.symbolic_shape("N, T", constraints=("N >= 1", "T >= 1"))
    description = model.description
    if features:
        program = features_program(model)
        arguments = (jax.ShapeDtypeStruct((clips, *description.clip_shape), np.float32),)
    else:
        program = raw_program(model)
        shape = (clips, frames, description.bodies, *description.info.joint_shape)
        arguments = (jax.ShapeDtypeStruct(shape, np.float32), jax.ShapeDtypeStruct((clips,), np.int32))
    return bytes(export.export(jax.jit(program), platforms=PLATFORMS)(*arguments).serialize())
