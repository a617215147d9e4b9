"""Writes a model as an ONNX file: for ONNX Runtime in any language, on phones and in browsers."""

import json
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np

from mmcl_jax.data.transforms import absent_stays_zero
from mmcl_jax.deploy.backbone_nodes import BLOCKS, add_backbone, check_backbone
from mmcl_jax.deploy.clip_nodes import add_test_transform, not_zero
from mmcl_jax.deploy.exported import ExportError
from mmcl_jax.deploy.graph import Graph
from mmcl_jax.deploy.manifest import FRAMES, PROBABILITIES, SKELETON, describe_export, write_folder
from mmcl_jax.predictor import Predictor
from mmcl_jax.runtime.backend import HASTY
from mmcl_jax.trained_model import TrainedModel, test_options

FILE = "model.onnx"
# Says to ONNX Runtime that quantization finds the model as it wants it; else it advises to prepare it first. The batch
# norms are folded already, and the shapes are known.
_PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")
LOGITS = "logits"
DTYPES = ("float32", "float16", "int8")


def export_onnx(model: TrainedModel, out: pathlib.Path, features: bool = False, dtype: str = "float32") -> None:
    """Writes the folder `out`: `model.onnx`, with the model's description as metadata, and `model.json`.

    Args:
      model: the model.
      out: a new folder.
      features: whether the input is transformed clips; otherwise the transform is inside.
      dtype: 'float32'; 'float16': weights and products; 'int8': weights, and products by dynamic quantization.

    Raises: ExportError, OSError.
    """
    contents = to_onnx(model, features, dtype).SerializeToString()
    write_folder(out, FILE, contents, describe_export(model, features, dtype))


def to_onnx(model: TrainedModel, features: bool = False, dtype: str = "float32", logits: bool = False) -> Any:
    """The `onnx.ModelProto`, checked. Arguments and errors are those of `export_onnx`.

    `logits`: the output is `logits`, as the model has them, not `probabilities`, and there is no metadata.
    """
    if dtype not in DTYPES:
        raise ExportError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ExportError("an ONNX export needs the package onnx; pip install 'mmcl_jax[onnx]'") from error
    description, data = model.description, model.description.config.data
    info, clip_shape = description.info, description.clip_shape
    backbone, skips_absent = description.backbone(), absent_stays_zero(data.absent_body, data.sampling)
    check_backbone(backbone)
    graph = Graph(np.float16 if dtype == "float16" else np.float32)
    if features:
        clips, present = SKELETON, _present(graph, SKELETON)
        inputs = [(SKELETON, np.float32, ["N", *clip_shape])]
    else:
        clips, present = add_test_transform(
            graph,
            SKELETON,
            FRAMES,
            test_options(description),
            info.skeleton_layout,
            info.num_coordinates,
            (description.bodies, data.window, *info.joint_shape),
            half_storage=data.storage == "float16",
        )
        shape = ["N", "T", description.bodies, *info.joint_shape]
        inputs = [(SKELETON, np.float32, shape), (FRAMES, np.int32, ["N"])]
    if skips_absent and description.bodies > 1:
        first = (np.arange(description.bodies) == 0)[None]
        present = graph.add("Or", present, first)  # of a clip without bodies one is computed, so that there is one
    else:
        present = None
    prepare = jax.jit(Predictor(backbone, skips_absent).prepare, static_argnums=1, compiler_options=HASTY)
    prepared = jax.tree.map(np.asarray, prepare(model.variables, clip_shape))
    temperature = 1.0 if logits else description.temperature
    last = add_backbone(graph, clips, present, clip_shape, backbone, prepared, temperature, logits)
    name = LOGITS if logits else PROBABILITIES
    graph.rename(last, name)
    outputs = [(name, np.float32, ["N", len(description.class_names)])]
    manifest = {} if logits else describe_export(model, features, dtype)
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in manifest.items()}
    made = graph.model(inputs, outputs, metadata)
    return _quantize(made) if dtype == "int8" else made


def _present(graph: Graph, clips: str) -> str:
    """Which bodies of transformed clips are not zero in every frame: bool `[N, M]`."""
    return not_zero(graph, graph.add("ReduceMax", graph.add("Abs", clips), axes=[2, 3, 4], keepdims=0))


def _quantize(model: Any) -> Any:
    """Dynamic quantization of the blocks: 8-bit weights, and activations that are quantized as they come."""
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise ExportError("--dtype=int8 needs the package onnxruntime; pip install 'mmcl_jax[onnx]'") from error
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / FILE
        onnx.helper.set_model_props(model, _properties(model) | dict((_PREPARED,)))
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["Conv", "MatMul"],
            nodes_to_quantize=[node.name for node in model.graph.node if node.name.startswith(BLOCKS)],
            weight_type=QuantType.QUInt8,
        )
        quantized = onnx.load(path)
    onnx.helper.set_model_props(quantized, dict(_properties(quantized).items() - {_PREPARED}))
    onnx.checker.check_model(quantized)
    return quantized


def _properties(model: Any) -> dict[str, str]:
    """The metadata of an ONNX model."""
    return {entry.key: entry.value for entry in model.metadata_props}
