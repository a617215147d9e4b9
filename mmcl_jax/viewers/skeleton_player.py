"""Moving skeletons on a web page: a clip in a few kilobytes of JSON, and the script and style that draw it.

`encode` and `layout` make the data that `SkeletonPlayer(root, clip, layout)` of `skeleton_player.js` takes. The player
has play, pause and scrub controls, turns three-dimensional clips by dragging, and shows several moments side by side.

Coordinates are stored as whole steps from an origin. The series of each coordinate stores differences between frames,
as variable-length integers (zigzag, seven bits per byte, low bits first; the eighth bit means that another byte
follows; as protobuf's sint32). A movement of a millimeter takes one byte.
"""

import base64
import pathlib

import numpy as np

from mmcl_jax.data import records

SCRIPT = pathlib.Path(__file__).with_name("skeleton_player.js")
STYLE = pathlib.Path(__file__).with_name("skeleton_player.css")
_STEPS = 2048  # over the extent of the clip without outliers
_OUTLIERS = 0.5  # percent at either end
_MOST_STEPS = 1 << 24  # from the origin; points further away are drawn there
_LEAST_FRAMES = 24  # kept even if `most_values` allows fewer
_HEADS, _FEET = ("head", "nose", "neck"), ("foot", "ankle", "knee")


def layout(info: records.DatasetInfo, up: tuple[int, int]) -> dict:
    """What the player needs to know about all clips: joints, bones, coordinates, upward axis (see `upward`)."""
    skeleton = info.skeleton_layout
    return {
        "joints": list(skeleton.joints),
        "bones": [list(bone) for bone in skeleton.bones],
        "coordinates": info.num_coordinates,
        "up": list(up),
        "metres": info.units == "metres",
    }


def upward(info: records.DatasetInfo, skeletons: list[np.ndarray]) -> tuple[int, int]:
    """Finds the direction (axis, sign) that leads from feet to heads, averaged over skeletons [M, T, V, C].

    In pictures y points down, in sensors' coordinates up. Records do not store it, but the names of their joints tell
    where heads and feet are. Without such names, the usual direction is assumed.
    """
    usual = (1, 1 if info.num_coordinates == 3 else -1)
    heads, feet = (_named(info, words) for words in (_HEADS, _FEET))
    if not (heads and feet and skeletons):
        return usual
    coordinates = [skeleton[..., : info.num_coordinates].astype(np.float64) for skeleton in skeletons]
    upright = [(joints[:, :, heads].mean(2) - joints[:, :, feet].mean(2)).mean((0, 1)) for joints in coordinates]
    mean = np.mean(upright, axis=0)
    axis = int(np.argmax(np.abs(mean)))
    return (axis, int(np.sign(mean[axis]))) if mean[axis] else usual


def _named(info: records.DatasetInfo, words: tuple[str, ...]) -> list[int]:
    """The joints whose names contain the first of `words` that any name contains."""
    joints = info.skeleton_layout.joints
    found = ([number for number, name in enumerate(joints) if word in name.lower()] for word in words)
    return next(filter(None, found), [])


def encode(skeleton: np.ndarray, info: records.DatasetInfo, most_values: int | None = None) -> dict:
    """Encodes a clip as JSON.

    Args:
      skeleton: float32 [M, T, V, C], finite.
      info: info of the records.
      most_values: number of coordinates at most; a longer clip keeps only every second frame, or every third, and so
        on.
    """
    num_bodies, num_frames, num_joints, _ = skeleton.shape
    per_frame = num_bodies * num_joints * info.num_coordinates
    frames = max(_LEAST_FRAMES, most_values // per_frame) if most_values else num_frames
    every = -(-num_frames // frames)
    shown = skeleton[:, ::every].astype(np.float64)
    joints = shown[..., : info.num_coordinates]
    present = np.asarray(joints.any(axis=(2, 3)))  # a body that is not tracked is all zeros
    found = np.broadcast_to(present[:, :, np.newaxis], joints.shape[:3])
    if info.num_coordinates < skeleton.shape[-1]:
        confidence = shown[..., info.num_coordinates].clip(0, 1)
        found = found & (confidence > 0) if confidence.any() else found
    seen = joints[found]
    low, high = np.percentile(seen, (_OUTLIERS, 100 - _OUTLIERS), axis=0)
    step = float(f"{max((high - low).max(), np.finfo(np.float32).tiny) / _STEPS:.6g}")
    origin = [float(f"{value:.6g}") for value in (low + high) / 2]
    steps = np.rint(((joints - np.array(origin)) / step).clip(-_MOST_STEPS, _MOST_STEPS)).astype(np.int64)
    steps[~present] = 0
    series = steps.transpose(0, 2, 3, 1)  # M, V, C, T: values that change little are neighbors
    stored = {
        "frames": shown.shape[1],
        "every": every,
        "bodies": num_bodies,
        "origin": origin,
        "step": step,
        "steps": _pack(np.diff(series, axis=-1, prepend=0)),
    }
    if not present.all():
        stored["lost"] = [np.flatnonzero(~frames).tolist() for frames in present]
    if info.num_coordinates < skeleton.shape[-1]:
        hundredths = np.rint(100 * confidence).astype(np.int64).transpose(0, 2, 1)  # M, V, T
        stored["confidence"] = _pack(np.diff(hundredths, axis=-1, prepend=0))
    return stored


def _pack(values: np.ndarray) -> str:
    """Encodes whole numbers as base64; small numbers are short."""
    values = values.ravel()
    zigzag = np.where(values < 0, -2 * values - 1, 2 * values)
    size = np.asarray(sum((zigzag >> bits > 0).astype(np.int64) for bits in (7, 14, 21, 28)) + 1)
    end = np.cumsum(size)
    packed = np.zeros(end[-1], np.uint8)
    for place in range(int(size.max())):
        rows = size > place
        more = np.where(size[rows] > place + 1, 0x80, 0)
        packed[end[rows] - size[rows] + place] = (zigzag[rows] >> 7 * place) & 0x7F | more
    return base64.b64encode(packed.tobytes()).decode("ascii")
