"""Nodes of the layers that the backbones share. Features are `[B, C, T, V]`: bodies, channels, frames, joints.

ONNX Runtime computes a convolution, its bias and a ReLU after it as one, in an order of channels of its own. So layers
whose results meet only convolutions, pools and sums are convolutions of their own instead of parts of one.
"""

from collections.abc import Callable, Mapping

import numpy as np

from mmcl_jax.deploy.graph import Graph
from mmcl_jax.models.blocks import DILATIONS

GraphConvNodes = Callable[[Graph, str, Mapping], str]
"""Adds a graph convolution with the folded variables of its module: features -> features."""


def conv(
    graph: Graph,
    x: str,
    kernel: np.ndarray,
    bias: np.ndarray | None,
    stride: int = 1,
    dilation: int = 1,
    group: int = 1,
) -> str:
    """A convolution over frames, padded with zeros.

    Args:
      graph: that grows.
      x: features with `group * I` channels.
      kernel: `[I, O]`, or `[K, I, O]` for K frames; O counts the channels of all groups.
      bias: `[O]`, or None.
      stride, dilation: over frames.
      group: parts of the channels that are convolved each by itself.
    """
    kernel = np.asarray(kernel)
    kernel = kernel if kernel.ndim == 3 else kernel[None]
    size = kernel.shape[0]
    reach = dilation * (size - 1)
    inputs = [graph.weights(kernel.transpose(2, 1, 0)[..., None])]
    inputs += [] if bias is None else [graph.weights(bias)]
    return graph.add(
        "Conv",
        x,
        *inputs,
        kernel_shape=[size, 1],
        strides=[stride, 1],
        dilations=[dilation, 1],
        pads=[reach // 2, 0, reach - reach // 2, 0],
        group=group,
    )


def per_channel(graph: Graph, values: np.ndarray) -> np.ndarray:
    """`[C]` in the shape that broadcasts against features."""
    return graph.weights(values).reshape(-1, 1, 1)


def multi_scale(graph: Graph, x: str, params: Mapping, stride: int) -> str:
    """`folded.temporal_convs.MultiScaleTemporalConv`."""
    hidden = params["reduce_hidden"]
    width = hidden["bias"].size // 3
    parts = [slice(i * width, (i + 1) * width) for i in range(3)]
    narrow = [graph.add("Relu", conv(graph, x, hidden["kernel"][:, part], hidden["bias"][part])) for part in parts]
    dilated = [params[f"conv_dilation_{dilation}"] for dilation in DILATIONS]
    branches = [
        conv(graph, narrow[i], part["kernel"], part["bias"], stride, DILATIONS[i]) for i, part in enumerate(dilated)
    ]
    pooled = graph.add("MaxPool", narrow[2], kernel_shape=[3, 1], strides=[stride, 1], pads=[1, 0, 1, 0])
    norm, zeros = params["out_bn"], graph.weights(np.zeros(width))
    # The cheapest node for a factor and an offset of each channel.
    pooled = graph.add(
        "BatchNormalization",
        pooled,
        graph.weights(norm["scale"]),
        graph.weights(norm["bias"]),
        zeros,
        zeros + graph.dtype.type(1),
        epsilon=0.0,
    )
    pointwise = params["reduce_pointwise"]
    branches += [pooled, conv(graph, x, pointwise["kernel"], pointwise["bias"], stride)]
    return graph.add("Concat", *branches, axis=1)


def rectified_multi_scale(graph: Graph, x: str, params: Mapping, stride: int) -> str:
    """`folded.temporal_convs.RectifiedTemporalConv`."""
    return graph.add("Relu", multi_scale(graph, x, params["convolution"], stride))


def one_scale(graph: Graph, x: str, params: Mapping, stride: int) -> str:
    """`ctrsgcn.NormedTemporalConv`."""
    return conv(graph, x, params["conv"]["kernel"], params["conv"]["bias"], stride)


def add_residual(graph: Graph, y: str, x: str, params: Mapping, bias: np.ndarray | None) -> str:
    """`blocks.add_residual` where the factor of `bn` is in `y` already; `bias` `[C]`, None: in `y` too."""
    if "down" in params:
        down = params["down"]
        offset = down["bias"] if bias is None else down["bias"] + bias
        return graph.add("Relu", graph.add("Add", y, conv(graph, x, down["kernel"], offset)))
    if bias is not None:
        y = graph.add("Add", y, per_channel(graph, bias))
    return graph.add("Relu", graph.add("Add", y, x))


def block(
    graph: Graph,
    x: str,
    params: Mapping,
    stride: int,
    residual: bool,
    graph_conv: GraphConvNodes,
    temporal_conv: Callable[[Graph, str, Mapping, int], str],
) -> str:
    """`blocks.Block`: features `[B, C_in, T, V]` -> `[B, C, ceil(T / stride), V]`."""
    y = temporal_conv(graph, graph_conv(graph, x, params["gcn"]), params["tcn"], stride)
    if residual:
        if "residual" in params:
            x = conv(graph, x, params["residual"]["kernel"], params["residual"]["bias"], stride)
        y = graph.add("Add", y, x)
    return graph.add("Relu", y)
