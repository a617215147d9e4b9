"""Nodes of the camera: clips for models that see pictures, as `data.camera` computes them in evaluation.

Clips are `[N, M, T, V, C]`, T the window; what is measured on the first body is `[N, 1, T, ...]`.
"""

import numpy as np

from mmcl_jax.data import camera
from mmcl_jax.data.camera import Body, CameraOptions
from mmcl_jax.data.layouts import Layout
from mmcl_jax.deploy.graph import Graph

_TINY = np.array([1e-6], np.float32)
_ZERO = np.zeros(1, np.float32)
_ONE = np.ones(1, np.float32)


def add_picture(
    graph: Graph,
    x: str,
    present: str,
    options: CameraOptions,
    layout: Layout,
    coordinates: int,
    shape: tuple[int, int, int, int],
) -> str:
    """Normalized 2-D joints with confidence, of 3-D joints through the camera of evaluation or of a picture's joints.

    Args:
      graph: that grows.
      x: clips `[N, M, T, V, C]`.
      present: bool `[N, M]`, which bodies exist.
      options: of the camera.
      layout: of the joints.
      coordinates: how many of the C channels are coordinates.
      shape: `[M, T, V, C]`.

    Returns: clips `[N, M, T, V, 3]`: x, y, confidence.
    """
    body, channels = Body.of(layout), shape[3]
    if coordinates == 3:
        x = _look(graph, _channels(graph, x, 0, 3), body, options, shape[1])
    elif channels == coordinates:
        x = _with_confidence(graph, x)
    return _normalize(graph, x, present, body, shape[1])


def _look(graph: Graph, x: str, body: Body, options: CameraOptions, frames: int) -> str:
    """`camera.look`."""
    first = _first_body(graph, x)
    trunk = _length(graph, graph.add("Sub", _middle(graph, first, body.shoulders), _middle(graph, first, body.hips)))
    count = graph.constant(np.array([[[frames]]]))
    median = graph.add("Max", _median(graph, graph.axes("Squeeze", trunk, 3, 4), count, frames), _TINY)
    scale = graph.add("Div", np.array([camera.TRUNK], np.float32), median)  # [N, 1, 1]
    x = graph.add("Mul", x, graph.axes("Unsqueeze", scale, 3, 4))
    hips = _middle(graph, _first_body(graph, x), body.hips)  # [N, 1, T, 1, 3]
    x = graph.add("Sub", x, graph.add("ReduceMean", hips, axes=[2], keepdims=1))
    # The axes of a camera, and its angles, are one matrix.
    angles = [np.deg2rad(np.float32(angle)) for angle in (options.test_yaw, options.test_pitch, 0.0)]
    matrix = np.asarray(camera.rotation(*angles), np.float32) @ np.diag([-1, -1, 1]).astype(np.float32)
    x = graph.add("MatMul", x, matrix.T.copy())
    depth = _channels(graph, x, 2, 3)
    nearest = graph.add(
        "ReduceMin", _middle(graph, _first_body(graph, depth), body.hips), axes=[2], keepdims=1
    )  # [N, 1, 1, 1, 1]
    distance = graph.add("Sub", np.array([camera.NEAREST], np.float32), nearest)
    distance = graph.add("Max", distance, np.array([options.test_distance], np.float32))
    depth = graph.add("Max", graph.add("Add", depth, distance), np.array([camera.NEAREST / 2], np.float32))
    return _with_confidence(graph, graph.add("Div", _channels(graph, x, 0, 2), depth))


def _normalize(graph: Graph, x: str, present: str, body: Body, frames: int) -> str:
    """`camera.normalise_picture`."""
    places, confidence = _channels(graph, x, 0, 2), _channels(graph, x, 2, 3)
    known = graph.add("Greater", confidence, _ZERO)  # [N, M, T, V, 1]
    first, first_known = _first_body(graph, places), graph.cast(_first_body(graph, known), np.float32)
    hips, shoulders = _middle(graph, first, body.hips), _middle(graph, first, body.shoulders)  # [N, 1, T, 1, 2]
    hips_known, shoulders_known = _both(graph, first_known, body.hips), _both(graph, first_known, body.shoulders)
    any_hips = graph.add("Greater", graph.add("ReduceMax", hips_known, axes=[2], keepdims=1), _ZERO)
    anchor = graph.add("Where", any_hips, hips, shoulders)
    counted = graph.add("Where", any_hips, hips_known, shoulders_known)
    total = graph.add("ReduceSum", graph.add("Mul", anchor, counted), np.array([2]), keepdims=1)
    number = graph.add("Max", graph.add("ReduceSum", counted, np.array([2]), keepdims=1), _ONE)
    origin = graph.add("Div", total, number)

    trunk = _length(graph, graph.add("Sub", shoulders, hips))
    trunk = graph.add("Mul", trunk, graph.add("Mul", hips_known, shoulders_known))
    parents = body.parents.astype(np.int64)
    bones = _length(graph, graph.add("Sub", first, graph.add("Gather", first, parents, axis=3)))
    bones = graph.add("Mul", bones, graph.add("Mul", first_known, graph.add("Gather", first_known, parents, axis=3)))
    legs = graph.add("Mul", bones, body.legs.astype(np.float32)[:, None])
    left, right = (graph.add("Gather", first, np.array([joint]), axis=3) for joint in body.shoulders)
    width = graph.add("Mul", _length(graph, graph.add("Sub", left, right)), shoulders_known)
    sizes = graph.add("Max", trunk, graph.add("ReduceMax", legs, axes=[3], keepdims=1), width)
    sizes = graph.axes("Squeeze", sizes, 3, 4)  # [N, 1, T]
    positive = graph.cast(graph.add("Greater", sizes, _ZERO), np.int64)
    median = _median(graph, sizes, graph.add("ReduceSum", positive, np.array([2]), keepdims=1), frames)
    size = graph.add("Where", graph.add("Greater", median, _TINY), median, _ONE)
    placed = graph.add("Div", graph.add("Sub", places, origin), graph.axes("Unsqueeze", size, 3, 4))
    seen = graph.add("And", known, graph.axes("Unsqueeze", present, 2, 3, 4))
    return graph.add("Where", seen, graph.add("Concat", placed, confidence, axis=4), _ZERO)


def _median(graph: Graph, values: str, count: str, frames: int) -> str:
    """The median of the `count` `[N, 1, 1]` largest of values `[N, 1, T]`, zero if it is 0: `[N, 1, 1]`."""
    falling, _ = graph.add("TopK", values, np.array([frames]), outputs=2, axis=2)
    two, one, least = np.array([2]), np.array([1]), np.array([0])
    upper = graph.add("Max", graph.add("Div", graph.add("Sub", count, one), two), least)
    lower = graph.add("Min", graph.add("Div", count, two), np.array([frames - 1]))
    both = [graph.add("GatherElements", falling, _for_each(graph, index, values), axis=2) for index in (upper, lower)]
    return graph.add("Mul", graph.add("Add", *both), np.array([0.5], np.float32))


def _for_each(graph: Graph, index: str, values: str) -> str:
    """`index` `[1 or N, 1, 1]` for each of the N values."""
    return graph.add("Expand", index, graph.add("Concat", graph.size(values, 0), np.array([1, 1]), axis=0))


def _first_body(graph: Graph, x: str) -> str:
    return graph.add("Gather", x, np.zeros(1, np.int64), axis=1)


def _channels(graph: Graph, x: str, begin: int, end: int) -> str:
    return graph.add("Slice", x, np.array([begin]), np.array([end]), np.array([4]))


def _middle(graph: Graph, x: str, joints: tuple[int, int]) -> str:
    """The middle of two joints, `[..., V, C]` -> `[..., 1, C]`."""
    left, right = (graph.add("Gather", x, np.array([joint]), axis=3) for joint in joints)
    return graph.add("Mul", graph.add("Add", left, right), np.array([0.5], np.float32))


def _both(graph: Graph, known: str, joints: tuple[int, int]) -> str:
    """1 where both joints are known, else 0: `[..., V, 1]` -> `[..., 1, 1]`."""
    left, right = (graph.add("Gather", known, np.array([joint]), axis=3) for joint in joints)
    return graph.add("Mul", left, right)


def _length(graph: Graph, vectors: str) -> str:
    """`[..., C]` -> `[..., 1]`."""
    return graph.add("ReduceL2", vectors, axes=[4], keepdims=1)


def _with_confidence(graph: Graph, x: str) -> str:
    """A confidence of 1 after x and y."""
    ones = graph.add("Add", graph.add("Mul", _channels(graph, x, 0, 1), _ZERO), _ONE)
    return graph.add("Concat", x, ones, axis=4)
