"""Poses in NumPy files: .npy, and .npz with one array of poses."""

import pathlib

import numpy as np

from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.poses.files.forms import Meaning, Seen, build, picture_size, split_channels
from mmcl_jax.poses.types import METRES, Poses, PosesError
from mmcl_jax.runtime.arrays import read_array, read_arrays

_NAMES = ("keypoints", "keypoint", "joints", "skeleton", "skeletons", "poses", "pose", "data", "x", "arr_0")
_SCORES = ("keypoint_score", "keypoint_scores", "scores", "confidence", "visibility")
_RATES = ("fps", "frame_rate")
_SLOWEST, _FASTEST = 0.01, 1000.0  # frames a second
_MOST_PERSONS = 20
_LARGEST = 1 << 32  # bytes


def read(path: pathlib.Path, meaning: Meaning) -> Poses:
    """The poses in a .npy or .npz file: `[T, V, C]`, `[T, M, V, C]`, `[M, T, V, C]` or `[C, T, V, M]`.

    Raises: PosesError.
    """
    try:
        with path.open("rb") as opened:
            is_archive = opened.read(2) == b"PK"
        stored = read_arrays(path, largest=_LARGEST) if is_archive else {_NAMES[0]: read_array(path)}
    except (OSError, ValueError) as error:
        raise PosesError(
            f"not a readable NumPy file of numbers ({error}); objects are not loaded, save plain arrays"
        ) from error
    return _from_npz(stored, meaning, str(path))


def _from_npz(stored: dict[str, np.ndarray], meaning: Meaning, source: str) -> Poses:
    name = next((name for name in _NAMES if name in stored), None)
    numeric = [key for key, array in stored.items() if array.ndim > 1 and array.dtype.kind in "fiu"]
    name = name or (numeric[0] if len(numeric) == 1 else None)
    if name is None:
        raise PosesError(
            f"arrays {', '.join(stored) or 'none'}: which one holds the poses is unknown; name it keypoints"
        )
    array = stored[name]
    scores = next((stored[key] for key in _SCORES if key in stored and stored[key].shape == array.shape[:-1]), None)
    if scores is not None and array.shape[-1] in (2, 3):
        array = np.concatenate([array, scores[..., np.newaxis]], axis=-1)
    size = None
    if {"width", "height"} <= stored.keys() and stored["width"].ndim == stored["height"].ndim == 0:
        size = picture_size(_number(stored, "width"), _number(stored, "height"))
    return from_array(array, meaning, source, scored=scores is not None or None, frame_rate=_rate(stored), size=size)


def _number(stored: dict[str, np.ndarray], key: str) -> float:
    """The number `key` of a file. Raises: PosesError."""
    if stored[key].dtype.kind not in "fiu":
        raise PosesError(f"{key} is {str(stored[key])[:40]!r}, expected a number")
    return float(stored[key])


def _rate(stored: dict[str, np.ndarray]) -> float | None:
    """The frame rate that a file states. Raises: PosesError."""
    key = next((key for key in _RATES if key in stored and stored[key].ndim == 0), None)
    if key is None:
        return None
    rate = _number(stored, key)
    if not _SLOWEST <= rate <= _FASTEST:
        raise PosesError(f"{key} is {rate:g}, expected {_SLOWEST:g} to {_FASTEST:g} frames a second")
    return rate


def from_array(
    array: np.ndarray, meaning: Meaning, source: str, *, scored: bool | None = None, ordered: bool = False, **about
) -> Poses:
    """Poses of an array over all frames.

    Args:
      array: `[T, V, C]`, `[T, M, V, C]`, `[M, T, V, C]`, `[C, T, V, M]`, or `[T, V * C]`.
      meaning: what the caller says.
      source: for messages.
      scored: whether the last number of each joint is a confidence; None: the numbers tell.
      ordered: the axes are `[T, M, V, C]`, however few frames there are.
      about: further arguments of `build`.

    Raises: PosesError.
    """
    if array.dtype.kind not in "fiu":
        raise PosesError(f"an array of {array.dtype}, expected numbers")
    if array.ndim == 5 and len(array) == 1:
        array = array[0]
    if array.ndim == 2:
        return from_rows(array.astype(np.float64), meaning, source, **about)
    if array.ndim == 3:
        array = array[:, np.newaxis]
    if array.ndim != 4 or 0 in array.shape:
        raise PosesError(
            f"an array of shape {array.shape}, expected frames x joints x coordinates, or frames x persons x joints x "
            "coordinates, of one clip"
        )
    array = array.astype(np.float64)
    coordinates, confidence = split_channels(array if ordered else _frames_first(array, meaning), meaning, scored)
    frames = [
        [
            Seen(coordinates[frame, person], None if confidence is None else confidence[frame, person], person)
            for person in range(coordinates.shape[1])
        ]
        for frame in range(len(coordinates))
    ]
    return build(frames, meaning, source, **about)


def _frames_first(array: np.ndarray, meaning: Meaning) -> np.ndarray:
    """`[T, M, V, C]` of an array of four axes in another order. Raises: PosesError."""
    known = {layout.num_joints for layout in LAYOUTS.values()} | {133, 136, *([meaning.num_joints or 0])}
    if array.shape[3] > 5 or (array.shape[0] in (2, 3, 4) and array.shape[2] in known and array.shape[3] < 3):
        if array.shape[0] in (2, 3, 4) and array.shape[3] <= _MOST_PERSONS:  # C, T, V, M, as pyskl's and ST-GCN's input
            return array.transpose(1, 3, 2, 0)
        raise PosesError(f"an array of shape {array.shape}, whose last axis is not the coordinates of a joint")
    if array.shape[1] > array.shape[0]:
        array = array.swapaxes(0, 1)  # persons first, as in pyskl's annotations
    if array.shape[1] > _MOST_PERSONS:
        raise PosesError(f"an array of {array.shape[1]} persons, more than {_MOST_PERSONS}; give one clip at a time")
    return array


def from_rows(rows: np.ndarray, meaning: Meaning, source: str, **about) -> Poses:
    """Poses of a table `[T, M * V * C]`: in each row person after person, joint after joint.

    Raises: PosesError if more than one layout fits.
    """
    layouts = {name: layout.num_joints for name, layout in LAYOUTS.items()}
    if meaning.layout is not None:
        layouts = {"the layout": meaning.num_joints or 0}
    fits = set()
    for num_joints in set(layouts.values()):
        for channels in (2, 3, 4):
            for persons in (1, 2):
                if persons * num_joints * channels == rows.shape[1]:
                    fits.add((persons, num_joints, channels))
    one_person = {fit for fit in fits if fit[0] == 1}
    fits = one_person if len(one_person) == 1 else fits
    if len(fits) != 1:
        listed = ", ".join(f"{p} x {v} joints x {c}" for p, v, c in sorted(fits)) or "none known"
        raise PosesError(
            f"{rows.shape[1]} numbers for each frame, which may be {listed}; name the joints with --layout"
        )
    persons, num_joints, channels = fits.pop()
    array = rows.reshape(len(rows), persons, num_joints, channels)
    names = [name for name, count in layouts.items() if count == num_joints]
    if channels == 3 and meaning.layout is None and len(names) > 1 and meaning.units != METRES:
        raise PosesError(
            f"{rows.shape[1]} numbers for each frame, which may be joints of {' or '.join(names)}; pass --layout"
        )
    return from_array(array, meaning, source, **about)
