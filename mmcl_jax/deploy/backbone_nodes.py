"""Nodes of a whole backbone: transformed clips `[N, M, T, V, C]` to probabilities, absent bodies left out."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmcl_jax.deploy import graph_conv_nodes, layer_nodes
from mmcl_jax.deploy.exported import ExportError
from mmcl_jax.deploy.graph import Graph
from mmcl_jax.deploy.layer_nodes import GraphConvNodes
from mmcl_jax.models.ctrgcn import CTRGCN
from mmcl_jax.models.ctrsgcn import CTRSGCN
from mmcl_jax.models.hdgcn import HDGCN
from mmcl_jax.models.infogcn import InfoGCN

BLOCKS = "blocks"  # what the names of their nodes begin with


def check_backbone(backbone: Any) -> None:
    """Raises ExportError for a backbone without nodes."""
    if type(backbone) not in NODES:
        known = ", ".join(kind.__name__ for kind in NODES)
        raise ExportError(
            f"{type(backbone).__name__} has no ONNX nodes, only {known} have; export --format=stablehlo instead"
        )


def add_backbone(
    graph: Graph,
    clips: str,
    present: str | None,
    clip_shape: tuple[int, int, int, int],
    backbone: Any,
    prepared: Mapping,
    temperature: float,
    logits: bool = False,
) -> str:
    """Adds a backbone and the softmax.

    Args:
      graph: that grows.
      clips: float32 `[N, M, T, V, C]`.
      present: bool `[N, M]`, which bodies are computed, at least one of all; None: all. The others get the features of
        an absent body.
      clip_shape: `[M, T, V, C]`.
      backbone: of a type in `NODES`.
      prepared: what `Predictor.prepare` returns for its variables.
      temperature: by which logits are divided.
      logits: whether the softmax is left out.

    Returns: probabilities or logits, float32 `[N, K]`.
    """
    nodes, params = NODES[type(backbone)], prepared["variables"]["params"]
    bodies, frames, joints, _ = clip_shape
    scale, bias = (
        np.asarray(params["data_bn"][name], np.float32).reshape(bodies, 1, joints, -1) for name in ("scale", "bias")
    )
    x = graph.add("Add", graph.add("Mul", nodes.embed(graph, clips, backbone, params), scale), bias)
    x = graph.reshape(x, -1, frames, joints, scale.shape[-1])
    rows = ""
    if present is not None:
        rows = graph.add("NonZero", graph.reshape(present, -1))  # [1, B]
        x = graph.add("Gather", x, graph.axes("Squeeze", rows, 0), axis=0)
    x = graph.transpose(x, 0, 3, 1, 2)
    x = graph.cast(x, graph.dtype) if graph.dtype != np.float32 else x
    graph.state_shape(x, "B", scale.shape[-1], frames, joints)
    features = _trunk(graph, x, nodes, backbone, params)  # [B, C']
    if present is not None:
        absent = np.asarray(prepared["absent"], np.float32)[None]
        every = graph.add("Expand", absent, graph.add("Concat", graph.size(clips, 0), np.array([1, 1]), axis=0))
        every = graph.reshape(every, -1, absent.shape[2])
        features = graph.add("ScatterND", every, graph.transpose(rows, 1, 0), features)
    features = graph.reshape(features, -1, bodies, backbone.feature_width)
    pooled = graph.add("ReduceMean", features, axes=[1], keepdims=0)
    scores = nodes.head(graph, pooled, params, temperature)
    return scores if logits else graph.add("Softmax", scores, axis=-1)


def _trunk(graph: Graph, x: str, nodes: "BackboneNodes", backbone: Any, params: Mapping) -> str:
    """Embedded bodies `[B, C, T, V]` in the graph's type -> the mean of their features, float32 `[B, C']`."""
    graph_conv = nodes.graph_conv(backbone)
    for number, (_, stride) in enumerate(backbone.stages):
        graph.part = f"{BLOCKS}_{number}"
        residual = nodes.first_residual or number > 0
        x = layer_nodes.block(graph, x, params[f"blocks_{number}"], stride, residual, graph_conv, nodes.temporal_conv)
    graph.part = "head"
    x = graph.cast(x, np.float32) if graph.dtype != np.float32 else x
    return graph.add("ReduceMean", x, axes=[2, 3], keepdims=0)


def _coordinates(graph: Graph, clips: str, backbone: Any, params: Mapping) -> str:
    """The input of CTR-GCN, CTRS-GCN and HD-GCN: the channels of the joints."""
    del graph, backbone, params
    return clips


def _relative_positions(graph: Graph, clips: str, backbone: Any, params: Mapping) -> str:
    """`infogcn.JointEmbedding`."""
    joint, position = params["embedding"]["joint"], params["embedding"]["position"]
    kernel, relative = np.asarray(joint["kernel"], np.float32), np.asarray(backbone.relative_positions, np.float32)
    coordinates, channels = backbone.coordinates, len(kernel)
    x = clips
    if coordinates < channels:
        x, rest = graph.add("Split", clips, np.array([coordinates, channels - coordinates]), outputs=2, axis=4)
        x = graph.add("Concat", graph.add("MatMul", relative, x), rest, axis=4)
    else:
        x = graph.add("MatMul", relative, x)
    return graph.add("Add", graph.add("MatMul", x, kernel), np.asarray(joint["bias"] + position, np.float32))


def _classifier(graph: Graph, pooled: str, params: Mapping, temperature: float) -> str:
    return _dense(graph, pooled, params["fc"], temperature)


def _latent_classifier(graph: Graph, pooled: str, params: Mapping, temperature: float) -> str:
    """Info-GCN's head: the mean of the latent vector is classified."""
    hidden = graph.add("Relu", _dense(graph, pooled, params["fc"]))
    return _dense(graph, _dense(graph, hidden, params["fc_mu"]), params["decoder"], temperature)


def _dense(graph: Graph, x: str, params: Mapping, divisor: float = 1.0) -> str:
    kernel, bias = (np.asarray(params[name], np.float32) / np.float32(divisor) for name in ("kernel", "bias"))
    return graph.add("Gemm", x, kernel, bias)


@dataclasses.dataclass(frozen=True)
class BackboneNodes:
    """What tells the backbones apart: how each adds its parts to a graph.

    Attributes:
      graph_conv: returns what adds the graph convolution of a block.
      temporal_conv: adds the temporal convolution of a block.
      embed: (graph, clips `[N, M, T, V, C]`, backbone, params) -> `[N, M, T, V, C'']`, before the first norm.
      head: (graph, pooled features `[N, C']`, params, temperature) -> logits over the temperature, `[N, K]`.
      first_residual: whether the first block adds its input to its output.
    """

    graph_conv: Callable[[Any], GraphConvNodes]
    temporal_conv: Callable[[Graph, str, Mapping, int], str]
    embed: Callable[[Graph, str, Any, Mapping], str] = _coordinates
    head: Callable[[Graph, str, Mapping, float], str] = _classifier
    first_residual: bool = False


def _hdgcn(backbone: Any) -> GraphConvNodes:
    members = np.einsum("lvv->lv", np.asarray(backbone.adjacency)[:, 0])
    return functools.partial(graph_conv_nodes.hdgcn, members=members)


NODES: dict[type, BackboneNodes] = {
    CTRGCN: BackboneNodes(lambda _backbone: graph_conv_nodes.ctrgcn, layer_nodes.multi_scale),
    CTRSGCN: BackboneNodes(lambda _backbone: graph_conv_nodes.ctrsgcn, layer_nodes.one_scale),
    HDGCN: BackboneNodes(_hdgcn, layer_nodes.multi_scale),
    InfoGCN: BackboneNodes(
        lambda _backbone: graph_conv_nodes.infogcn,
        layer_nodes.rectified_multi_scale,
        _relative_positions,
        _latent_classifier,
        first_residual=True,
    ),
}
