"""Nodes of the test transform: raw clips `[N, T, M, V, C]` of any lengths to `[N, M, window, V, C]`.

They compute what `data.transforms` computes, in float32; the frames that are chosen are the same ones.
"""

import dataclasses

import numpy as np

from mmcl_jax.data.layouts import Layout
from mmcl_jax.data.transforms import TransformOptions
from mmcl_jax.deploy.camera_nodes import add_picture
from mmcl_jax.deploy.graph import Graph

_FIRST = np.array([1], np.int64)


@dataclasses.dataclass(frozen=True)
class _Clips:
    """Raw clips in a graph.

    Attributes:
      rows: float32 or, where a run stores clips so, float16 `[N * T * M, V, C]`.
      begins: int64 `[N, 1]`, the first row of each clip.
      places: int64 `[N, M]`, where a body is among the M of a frame; those that are present come first.
      frames: int64 `[N, 1]`.
      length: int64 `[1]`, T.
      bodies: int64 `[1]`, M.
      real: bool `[N, T]`, which frames exist.
      present: bool `[N, M]`, which of the sorted bodies exist.
    """

    rows: str
    begins: str
    places: str
    frames: str
    length: str
    bodies: np.ndarray
    real: str
    present: str


def add_test_transform(
    graph: Graph,
    skeleton: str,
    frames: str,
    options: TransformOptions,
    layout: Layout,
    coordinates: int,
    shape: tuple[int, int, int, int],
    half_storage: bool,
) -> tuple[str, str]:
    """Adds the test transform.

    Args:
      graph: that grows.
      skeleton: float32 `[N, T, M, V, C]`.
      frames: int32 `[N]`.
      options: of the transform.
      layout: of the joints.
      coordinates: how many channels are coordinates.
      shape: `[M, window, V, C]` of the raw clips after sampling.
      half_storage: whether clips are rounded to float16 first, as a run does that stores them so.

    Returns: clips, float32 `[N, M, window, V, C']`, and which bodies are present, bool `[N, M]`, the first ones.
    """
    clips = _read(graph, skeleton, frames, shape, options.absent_body, half_storage)
    origin = _origin(graph, clips, options, layout, coordinates, shape[3])
    if options.sampling == "view_normalised":
        x = _view_normalised(graph, clips, origin, options, shape[3])
    else:
        x = _crop_resize(graph, clips, origin, options)
    channels = shape[3]
    if options.camera.views != "none":
        x = add_picture(graph, x, clips.present, options.camera, layout, coordinates, shape)
        coordinates, channels = 2, 3
    return _stream(graph, x, options, layout, coordinates, channels), clips.present


def _stream(graph: Graph, x: str, options: TransformOptions, layout: Layout, coordinates: int, channels: int) -> str:
    """`transforms._stream`."""
    if options.stream in ("joint_bone", "bone", "bone_motion"):
        parents = graph.add("Gather", x, layout.parents.astype(np.int64), axis=3)
        vectors = graph.add("Sub", x, _coordinates_only(graph, parents, coordinates, channels))
        if options.stream == "joint_bone":
            positions = graph.add("Slice", x, np.array([0]), np.array([coordinates]), np.array([4]))
            return graph.add("Concat", positions, vectors, axis=4)
        x = vectors
    if options.stream in ("joint_motion", "bone_motion"):
        x = _motion(graph, x, coordinates, options.window, channels)
    return x


def _read(
    graph: Graph, skeleton: str, frames: str, shape: tuple[int, ...], absent_body: str, half_storage: bool
) -> _Clips:
    bodies, _, joints, channels = shape
    length = graph.size(skeleton, 1)
    frames = graph.add("Min", graph.cast(frames, np.int64), length)
    frames = graph.axes("Unsqueeze", graph.add("Max", frames, _FIRST), 1)
    real = graph.add("Less", _range(graph, length), frames)  # [N, T]
    moved = graph.add("ReduceMax", graph.add("Abs", skeleton), axes=[3, 4], keepdims=0)  # [N, T, M]
    moved = graph.add("Where", graph.axes("Unsqueeze", real, 2), moved, np.zeros(1, np.float32))
    exists = graph.cast(not_zero(graph, graph.add("ReduceMax", moved, axes=[1], keepdims=0)), np.int64)  # [N, M]
    count = graph.add("ReduceSum", exists, _FIRST, keepdims=1)
    numbers = np.arange(bodies)
    present = graph.add("Less", numbers, count)
    rank = graph.add("Sub", graph.add("Mul", exists, np.array([bodies])), numbers)
    _, places = graph.add("TopK", rank, np.array([bodies]), outputs=2, axis=1)
    if absent_body == "copy":
        places = graph.add("Where", present, places, graph.add("Gather", places, np.zeros(1, np.int64), axis=1))
    rows = graph.reshape(skeleton, -1, joints, channels)
    rows = graph.cast(rows, np.float16) if half_storage else rows
    size = graph.add("Mul", length, np.array([bodies]))
    begins = graph.axes("Unsqueeze", graph.add("Mul", _range(graph, graph.size(skeleton, 0)), size), 1)
    return _Clips(rows, begins, places, frames, length, np.array([bodies]), real, present)


def _origin(
    graph: Graph,
    clips: _Clips,
    options: TransformOptions,
    layout: Layout,
    coordinates: int,
    channels: int,
) -> str | None:
    """The center joint of the first body in the first frame, where a body has one: `[N, M, 1, 1, C]`."""
    if not options.centre and options.sampling != "view_normalised":
        return None
    first = graph.add("Gather", clips.places, np.zeros(1, np.int64), axis=1)
    frame = _gather(graph, clips.rows, graph.add("Add", clips.begins, first))  # [N, 1, V, C]
    joint = graph.add("Gather", frame, np.array([layout.centre]), axis=2)
    joint = graph.axes("Unsqueeze", _coordinates_only(graph, joint, coordinates, channels), 1)
    if options.absent_body == "copy":
        return joint
    return graph.add("Mul", joint, graph.axes("Unsqueeze", graph.cast(clips.present, np.float32), 2, 3, 4))


def _crop_resize(graph: Graph, clips: _Clips, origin: str | None, options: TransformOptions) -> str:
    """`transforms.crop_resize` of `transforms.centred_crop`."""
    window = options.window
    rest = graph.add("Mul", graph.cast(clips.frames, np.float32), np.array([1 - options.test_crop], np.float32))
    begin = graph.cast(graph.add("Floor", graph.add("Mul", rest, np.array([0.5], np.float32))), np.int64)
    length = graph.add("Sub", clips.frames, graph.add("Mul", begin, np.array([2])))
    scale = graph.add("Div", graph.cast(length, np.float32), np.array([window], np.float32))
    position = graph.add("Mul", (np.arange(window) + 0.5).astype(np.float32)[None], scale)
    position = graph.add("Max", graph.add("Sub", position, np.array([0.5], np.float32)), np.zeros(1, np.float32))
    last = graph.add("Sub", length, _FIRST)
    left = graph.add("Min", graph.cast(graph.add("Floor", position), np.int64), last)
    right = graph.add("Min", graph.add("Add", left, _FIRST), last)
    weight = graph.add("Sub", position, graph.cast(left, np.float32))
    weight = graph.axes("Unsqueeze", weight, 1, 3, 4)  # [N, 1, window, 1, 1]
    before, after = (_take(graph, clips, graph.add("Add", begin, side), origin) for side in (left, right))
    kept = graph.add("Sub", np.ones(1, np.float32), weight)
    return graph.add("Add", graph.add("Mul", before, kept), graph.add("Mul", after, weight))


def _view_normalised(graph: Graph, clips: _Clips, origin: str | None, options: TransformOptions, channels: int) -> str:
    """`transforms.normalise_range` of the frames `transforms.even_frames`."""
    window = options.window
    last = graph.add("Sub", clips.frames, _FIRST)
    # float64, as NumPy's linspace computes.
    step = graph.add("Div", graph.cast(last, np.float64), np.array([max(window - 1, 1)], np.float64))
    chosen = graph.cast(graph.add("Mul", np.arange(window, dtype=np.float64)[None], step), np.int64)
    if window > 1:
        chosen = graph.add("Where", np.arange(window)[None] == window - 1, last, chosen)
    x = _take(graph, clips, chosen, origin)
    every = graph.axes("Unsqueeze", _range(graph, clips.length), 0)
    body = _take(graph, clips, every, origin, only_first=True)  # [N, 1, T, V, C]
    real = graph.axes("Unsqueeze", clips.real, 1, 3, 4)
    infinity = np.array([np.inf], np.float32)
    lowest = graph.add("ReduceMin", graph.add("Where", real, body, infinity), axes=[1, 2, 3], keepdims=1)
    highest = graph.add("ReduceMax", graph.add("Where", real, body, -infinity), axes=[1, 2, 3], keepdims=1)
    one = np.ones(1, np.float32)
    extent = graph.add("Where", graph.add("Greater", highest, lowest), graph.add("Sub", highest, lowest), one)
    scaled = graph.add("Div", graph.add("Sub", x, lowest), extent)
    scaled = graph.add("Sub", graph.add("Mul", scaled, np.array([2], np.float32)), one)
    return scaled if channels == 3 else graph.add("Where", np.arange(channels) < 3, scaled, x)


def _motion(graph: Graph, x: str, coordinates: int, window: int, channels: int) -> str:
    """`transforms.motion`."""
    following = graph.add("Gather", x, np.minimum(np.arange(window) + 1, window - 1), axis=2)
    moved = graph.add("Sub", following, x)
    if coordinates == channels:
        return moved
    return graph.add("Where", np.arange(channels) < coordinates, moved, x)


def _take(graph: Graph, clips: _Clips, frames: str, origin: str | None, only_first: bool = False) -> str:
    """The frames `[N, W]` of every body, moved to the origin: `[N, M, W, V, C]`; or those of the first body."""
    places = clips.places
    if only_first:
        places = graph.add("Gather", places, np.zeros(1, np.int64), axis=1)
        origin = origin and graph.add("Gather", origin, np.zeros(1, np.int64), axis=1)
    frames = graph.add("Mul", frames, clips.bodies)
    rows = graph.add(
        "Add", graph.axes("Unsqueeze", graph.add("Add", frames, clips.begins), 1), graph.axes("Unsqueeze", places, 2)
    )
    x = _gather(graph, clips.rows, rows)
    return x if origin is None else graph.add("Sub", x, origin)


def _gather(graph: Graph, rows: str, index: str) -> str:
    """Rows in float32; of rows in float32 the cast is removed when the file is loaded."""
    return graph.cast(graph.add("Gather", rows, index, axis=0), np.float32)


def not_zero(graph: Graph, x: str) -> str:
    """Where float32 `x` is not zero: bool. NaN is not, so that a body with NaN is not taken for an absent one."""
    return graph.add("Not", graph.add("Equal", x, np.zeros(1, np.float32)))


def _coordinates_only(graph: Graph, x: str, coordinates: int, channels: int) -> str:
    """`x` with zeros in the channels `[..., C]` that are no coordinates."""
    return x if coordinates == channels else graph.add("Mul", x, (np.arange(channels) < coordinates).astype(np.float32))


def _range(graph: Graph, size: str) -> str:
    """0, 1, ... to `size` `[1]`, int64."""
    return graph.add("Range", np.array(0), graph.axes("Squeeze", size, 0), np.array(1))
