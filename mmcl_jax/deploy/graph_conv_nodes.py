"""Nodes of the four graph convolutions, from the folded variables of their modules. Features are `[B, C, T, V]`."""

from collections.abc import Mapping

import numpy as np

from mmcl_jax.deploy.graph import Graph
from mmcl_jax.deploy.layer_nodes import add_residual, conv, per_channel
from mmcl_jax.models.hdgcn import JOINT_NEIGHBORS, LAYER_NEIGHBORS
from mmcl_jax.models.infogcn import HEADS

_NORM_EPSILON = 1e-5  # of Info-GCN's layer norm
_SLOPE = 0.2  # of the leaky ReLU in edge convolutions


def ctrgcn(graph: Graph, x: str, params: Mapping) -> str:
    """`folded.graph_convs.FramesLastGraphConv`, with the joints last."""
    topologies = _topologies(graph, x, params["topology"])
    values = [params[f"values_{k}"] for k in range(len(topologies))]
    received = [
        graph.add("MatMul", conv(graph, x, value["kernel"], value["bias"]), topology)
        for value, topology in zip(values, topologies, strict=True)
    ]
    return add_residual(graph, _sum(graph, received), x, params, params["bn"]["bias"])


def _topologies(graph: Graph, x: str, params: Mapping) -> list[str]:
    """K times `[B, C, V, U]`: how much joint u receives from joint v, in each channel.

    Every subset is one product. Its right side has two more rows than distances: the shared topology and ones, with
    which the left side, the kernel that lifts distances to channels, adds the bias.
    """
    kernel, shared = params["relation_kernel"], np.asarray(params["PA"]).swapaxes(1, 2)
    channels_in, _, subsets, width = kernel.shape
    joints = shared.shape[-1]
    mean = graph.add("ReduceMean", x, axes=[2], keepdims=0)
    weights = graph.weights(np.asarray(kernel).reshape(channels_in, -1).T[..., None])
    relation = graph.add("Conv", mean, weights, graph.weights(params["relation_bias"]).reshape(-1))
    receiver, sender = graph.add("Split", relation, outputs=2, axis=1)
    difference = graph.add("Sub", graph.axes("Unsqueeze", receiver, 2), graph.axes("Unsqueeze", sender, 3))
    distances = graph.add("Split", graph.add("Tanh", difference), outputs=subsets, axis=1)
    shape = graph.add("Concat", graph.size(x, 0), np.array([2, joints, joints], np.int64), axis=0)
    lift, bias = (np.asarray(params[name] * params["alpha"]) for name in ("lift_kernel", "lift_bias"))
    lifted = []
    for k in range(subsets):
        constant = graph.weights(np.stack([shared[k], np.ones_like(shared[k])])[None])
        rows = graph.add("Concat", distances[k], graph.add("Expand", constant, shape), axis=1)
        columns = graph.weights(np.concatenate([lift[k].T, np.ones_like(bias[k])[:, None], bias[k][:, None]], axis=1))
        product = graph.add("MatMul", columns, graph.reshape(rows, 0, width + 2, joints * joints))
        lifted.append(graph.reshape(product, 0, 0, joints, joints))
    return lifted


def ctrsgcn(graph: Graph, x: str, params: Mapping) -> str:
    """`ctrsgcn.GraphConv` with folded norms. Each subset is a convolution, which adds those before it."""
    adjacency, kernels = np.asarray(params["PA"]), np.asarray(params["kernel"])
    adjacency = adjacency / (np.linalg.norm(adjacency, axis=1, keepdims=True) + 1e-4)
    bias = np.asarray(params["bias"]).sum(axis=0) + params["bn"]["bias"]
    biases = [bias, *[None] * (len(kernels) - 1)]
    subsets = [
        conv(graph, graph.add("MatMul", x, graph.weights(matrix)), kernel, offset)
        for matrix, kernel, offset in zip(adjacency, kernels, biases, strict=True)
    ]
    return add_residual(graph, _sum(graph, subsets), x, params, None)


def infogcn(graph: Graph, x: str, params: Mapping) -> str:
    """`infogcn.GraphConv` with folded norms."""
    attention, shared = params["attention"], np.asarray(params["shared_topology"])
    joints = shared.shape[-1]
    channels_last = graph.transpose(x, 0, 2, 3, 1)
    norm = graph.add(
        "LayerNormalization",
        channels_last,
        graph.weights(attention["norm"]["scale"]),
        graph.weights(attention["norm"]["bias"]),
        epsilon=_NORM_EPSILON,
    )
    kernel, bias = (np.asarray(attention["queries_keys"][name]) for name in ("kernel", "bias"))
    width = kernel.shape[1] // (2 * HEADS)
    scale = np.where(np.arange(kernel.shape[1]) < HEADS * width, width**-0.5, 1.0)  # of the queries
    both = graph.add("Add", graph.add("MatMul", norm, graph.weights(kernel * scale)), graph.weights(bias * scale))
    queries, keys = graph.add("Split", both, outputs=2, axis=3)  # [B, T, V, HEADS * width]
    queries = graph.transpose(graph.reshape(queries, 0, 0, joints, HEADS, width), 0, 1, 3, 2, 4)
    keys = graph.transpose(graph.reshape(keys, 0, 0, joints, HEADS, width), 0, 1, 3, 4, 2)
    attended = graph.add("Softmax", graph.add("MatMul", queries, keys), axis=-1)  # [B, T, HEADS, U, V]
    topologies = graph.add("Split", graph.add("Mul", attended, graph.weights(shared)), outputs=HEADS, axis=2)
    bias = np.asarray(params["bias"]).sum(axis=0) + params["bn"]["bias"]
    heads = []
    for topology, matrix, offset in zip(
        topologies, np.asarray(params["kernel"]), [bias] + [None] * (HEADS - 1), strict=True
    ):
        gathered = graph.add("MatMul", graph.axes("Squeeze", topology, 2), channels_last)  # [B, T, U, C]
        # One axis moves: ONNX Runtime is slow where several do.
        heads.append(conv(graph, graph.transpose(gathered, 0, 3, 1, 2), matrix, offset))
    return add_residual(graph, _sum(graph, heads), x, params, None)


def hdgcn(graph: Graph, x: str, params: Mapping, members: np.ndarray) -> str:
    """`hdgcn.GraphConv` with folded norms; `members` `[L, V]`: 1 where a joint belongs to a layer.

    The biases are constant over frames and joints, so they are added to maxima and sums instead of all values.
    """
    adjacency, kernel, bias = (np.asarray(params[name]) for name in ("PA", "kernel", "bias"))
    layers, subsets, joints = adjacency.shape[:3]
    width = kernel.shape[1]
    linked_width = subsets * width
    reduced = graph.add("Relu", conv(graph, x, params["reduce"]["kernel"], params["reduce"]["bias"]))
    mean = graph.add("ReduceMean", reduced, axes=[2], keepdims=0)
    similar = _edge_conv(
        graph, graph.reshape(mean, 0, layers, width, joints), params["edge"], min(JOINT_NEIGHBORS, joints)
    )
    values = conv(graph, reduced, kernel.transpose(1, 0, 2, 3).reshape(width, -1), None, group=layers)
    matrices = graph.weights(adjacency.swapaxes(-1, -2).reshape(-1, joints, joints))
    linked = graph.add("MatMul", graph.reshape(values, 0, layers * subsets, -1, joints), matrices)
    linked = graph.reshape(linked, 0, layers, linked_width, -1, joints)
    bias = bias.reshape(layers, linked_width)
    scale, offset = np.asarray(params["bn"]["scale"]), np.asarray(params["bn"]["bias"])
    if "attention" in params:
        largest = graph.add("ReduceMax", linked, axes=[3], keepdims=0)  # [B, L, K * width, V]
        largest = graph.add("Add", largest, graph.weights(bias)[..., None])
        most = graph.add("Concat", largest, similar, axis=2)
        weights = _layer_attention(graph, most, params["attention"], members)  # [B, L, channels]
        weights = graph.add("Mul", weights, graph.weights(scale))
        split = np.array([linked_width, width], np.int64)
        of_linked, of_similar = graph.add("Split", weights, split, outputs=2, axis=2)
        linked = graph.add("Mul", linked, graph.axes("Unsqueeze", of_linked, 3, 4))
        linked = _sum_axis(graph, linked, 1)
        biases = _sum_axis(graph, graph.add("Mul", of_linked, graph.weights(bias)), 1)
        biases = graph.add("Add", biases, graph.weights(offset[:linked_width]))
        linked = graph.add("Add", linked, graph.axes("Unsqueeze", biases, 2, 3))
        similar = _sum_axis(graph, graph.add("Mul", similar, graph.axes("Unsqueeze", of_similar, 3)), 1)
    else:
        linked = graph.add("Mul", _sum_axis(graph, linked, 1), per_channel(graph, scale[:linked_width]))
        biases = bias.sum(axis=0) * scale[:linked_width] + offset[:linked_width]
        linked = graph.add("Add", linked, per_channel(graph, biases))
        similar = graph.add("Mul", _sum_axis(graph, similar, 1), graph.weights(scale[linked_width:])[:, None])
    similar = graph.add("Add", similar, graph.weights(offset[linked_width:])[:, None])  # [B, width, V]
    frames = graph.add("Concat", np.array([1, 1], np.int64), graph.size(x, 2), np.array([1], np.int64), axis=0)
    similar = graph.add("Expand", graph.axes("Unsqueeze", similar, 2), frames)
    return add_residual(graph, graph.add("Concat", linked, similar, axis=1), x, params, None)


def _layer_attention(graph: Graph, most: str, params: Mapping, members: np.ndarray) -> str:
    """`hdgcn.LayerAttention`: `[B, L, C, V]` -> weights `[B, L, C]`."""
    reduce, expand = params["reduce"], params["expand"]
    hidden = graph.add("MatMul", graph.weights(np.asarray(reduce["kernel"]).T), most)
    hidden = graph.add("Relu", graph.add("Add", hidden, graph.weights(reduce["bias"])[:, None]))  # [B, L, width, V]
    shares = members / members.sum(axis=1, keepdims=True)
    mean = graph.axes("Squeeze", graph.add("MatMul", hidden, graph.weights(shares)[..., None]), 3)  # [B, L, width]
    nodes = graph.axes("Unsqueeze", graph.transpose(mean, 0, 2, 1), 1)  # [B, 1, width, L]
    edges = _edge_conv(graph, nodes, params["edge"], min(LAYER_NEIGHBORS, len(members)))
    related = graph.transpose(graph.axes("Squeeze", edges, 1), 0, 2, 1)
    related = graph.add("MatMul", related, graph.weights(expand["kernel"]))
    return graph.add("Sigmoid", graph.add("Add", related, graph.weights(expand["bias"])))


def _edge_conv(graph: Graph, x: str, params: Mapping, neighbors: int) -> str:
    """`hdgcn.EdgeConv` of S sets of nodes with their own parameters: `[B, S, C, V]` -> `[B, S, C, V]`, V nodes.

    Bias, node and leaky ReLU do not change which neighbor is the largest, so they come after the maximum. Distances are
    float32: others would choose other neighbors.
    """
    kernel = np.asarray(params["kernel"])
    sets, channels = kernel.shape[0], kernel.shape[2]
    exact = x if graph.dtype == np.float32 else graph.cast(x, np.float32)
    products = graph.add("MatMul", graph.transpose(exact, 0, 1, 3, 2), exact)
    squares = graph.add("ReduceSum", graph.add("Mul", exact, exact), np.array([2], np.int64), keepdims=1)  # [B,S,1,V]
    nearness = graph.add(
        "Sub", graph.add("Mul", products, np.array([2], np.float32)), graph.transpose(squares, 0, 1, 3, 2)
    )
    nearness = graph.add("Sub", nearness, squares)
    _, index = graph.add("TopK", nearness, np.array([neighbors], np.int64), outputs=2, axis=-1)
    index = graph.reshape(index, 0, sets, 1, -1)
    index = graph.add("Expand", index, np.array([1, 1, channels, 1], np.int64))
    of_neighbor, of_node = kernel[:, :channels], kernel[:, channels:] - kernel[:, :channels]
    projected = graph.add("MatMul", graph.weights(of_neighbor.swapaxes(1, 2)), x)
    gathered = graph.add("GatherElements", projected, index, axis=3)  # [B, S, C, V * neighbors]
    gathered = graph.add("Reshape", gathered, np.array([0, 0, 0, -1, neighbors], np.int64))
    largest = graph.add("ReduceMax", gathered, axes=[4], keepdims=0)
    own = graph.add("MatMul", graph.weights(of_node.swapaxes(1, 2)), x)
    bias = graph.weights(params["bn"]["bias"]).reshape(sets, channels, 1)
    y = graph.add("Add", largest, graph.add("Add", own, bias))
    return graph.add("LeakyRelu", y, alpha=_SLOPE)


def _sum(graph: Graph, values: list[str]) -> str:
    total = values[0]
    for value in values[1:]:
        total = graph.add("Add", total, value)
    return total


def _sum_axis(graph: Graph, x: str, axis: int) -> str:
    return graph.add("ReduceSum", x, np.array([axis], np.int64), keepdims=0)
