"""What an exported model expects and answers: `model.json` beside its file, and metadata inside an ONNX file."""

import hashlib
import json
import pathlib
import tempfile
from typing import Any

import mmcl_jax
from mmcl_jax.deploy.exported import FORMAT, MANIFEST, ExportError
from mmcl_jax.description import Description
from mmcl_jax.trained_model import TrainedModel

SKELETON, FRAMES, PROBABILITIES = "skeleton", "frames", "probabilities"


def describe_export(model: TrainedModel, features: bool, dtype: str) -> dict[str, Any]:
    """The contents of `model.json`, but for the file's name and digest.

    Args:
      model: the model.
      features: whether its input is transformed clips.
      dtype: of the weights in the file, 'float32', 'float16' or 'int8'.
    """
    description = model.description
    info, layout = description.info, description.info.skeleton_layout
    return {
        "format": FORMAT,
        "mmcl_jax": mmcl_jax.__version__,
        "backbone": description.config.model.backbone,
        "step": model.step,
        "dtype": dtype,
        "class_names": list(description.class_names),
        "layout": {
            "name": info.layout,
            "joints": list(layout.joints),
            "bones": [list(bone) for bone in layout.bones],
            "center": layout.centre,
        },
        "channels": list(info.channels),
        "units": info.units,
        "bodies": description.bodies,
        "window": description.config.data.window,
        "stream": description.config.data.stream,
        "transform_inside": not features,
        "frame_rate": description.frame_rate,
        "window_seconds": description.window_seconds,
        "threshold": description.threshold,
        "temperature": description.temperature,
        "inputs": _features_input(description) if features else _raw_inputs(description),
        "outputs": [
            {
                "name": PROBABILITIES,
                "dtype": "float32",
                "shape": ["N", len(description.class_names)],
                "description": "of each class, in the order of class_names; a clip's sum is 1",
            }
        ],
    }


def _raw_inputs(description: Description) -> list[dict[str, Any]]:
    return [
        {
            "name": SKELETON,
            "dtype": "float32",
            "shape": ["N", "T", description.bodies, *description.info.joint_shape],
            "description": "raw clips: frames, bodies, joints of layout, channels, in units. Zeros beyond a clip's end "
            "and for absent bodies. T is at least the longest clip's number of frames",
        },
        {
            "name": FRAMES,
            "dtype": "int32",
            "shape": ["N"],
            "description": "how many frames each clip has, from 1 to T",
        },
    ]


def _features_input(description: Description) -> list[dict[str, Any]]:
    return [
        {
            "name": SKELETON,
            "dtype": "float32",
            "shape": ["N", *description.clip_shape],
            "description": "clips as the test transform returns them: bodies, frames of the window, joints, channels",
        }
    ]


def write_folder(out: pathlib.Path, file: str, contents: bytes, manifest: dict[str, Any]) -> None:
    """Writes the folder `out` with `file` and its `model.json`, whole or not at all. Raises: ExportError, OSError."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out}: not an empty folder; name another, or remove it")
    digest = hashlib.sha256(contents).hexdigest()
    text = json.dumps({**manifest, "file": file, "sha256": digest}, indent=1, ensure_ascii=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        partial = pathlib.Path(temporary) / "model"
        partial.mkdir()
        (partial / file).write_bytes(contents)
        (partial / MANIFEST).write_text(text + "\n", encoding="utf-8")
        partial.replace(out)
