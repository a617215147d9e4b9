"""Poses in the annotation pickles of mmaction2 and pyskl, read as plain data, and in NTU RGB+D's .skeleton files."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mmcl_jax.data import ntu_skeletons
from mmcl_jax.poses.files.arrays import from_array
from mmcl_jax.poses.files.forms import Meaning, picture_size
from mmcl_jax.poses.types import METRES, Poses, PosesError, from_dense
from mmcl_jax.runtime import plain_pickle
from mmcl_jax.runtime.errors import SourceFileError

NTU_RATE = 30.0


def read_pickle(path: pathlib.Path, meaning: Meaning) -> Iterator[tuple[str, Poses | PosesError]]:
    """Yields name and poses of each annotation of a pickle, or why it has none. Raises: PosesError."""
    try:
        contents = plain_pickle.load(path)
    except plain_pickle.PlainPickleError as error:
        raise PosesError(str(error)) from error
    if isinstance(contents, Mapping) and "keypoint" in contents:
        contents = [contents]
    stored = contents.get("annotations") if isinstance(contents, Mapping) else contents
    if isinstance(stored, np.ndarray):
        yield path.stem, from_array(stored, meaning, str(path))
        return
    if not isinstance(stored, list | tuple) or not stored:
        raise PosesError("no annotations in it; expected those of mmaction2 or pyskl, or an array")
    for place, each in enumerate(stored):
        name = each.get("frame_dir", each.get("filename")) if isinstance(each, Mapping) else None
        name = name if isinstance(name, str) and name else f"annotation {place}"
        try:
            yield name, annotation(each, meaning, f"{path}: {name}")
        except PosesError as error:
            yield name, error


@np.errstate(over="ignore", invalid="ignore")  # of damaged numbers, which are refused or not found
def annotation(stored: Any, meaning: Meaning, source: str) -> Poses:
    """The poses of an annotation: `keypoint` (M, T, V, C), `keypoint_score`, `img_shape`. Raises: PosesError."""
    keypoint = stored.get("keypoint") if isinstance(stored, Mapping) else None
    if not isinstance(keypoint, np.ndarray) or keypoint.ndim != 4 or keypoint.dtype.kind not in "fiu":
        raise PosesError("no keypoint of (persons, frames, joints, coordinates) in it")
    score = stored.get("keypoint_score")
    array = keypoint.astype(np.float64)
    if isinstance(score, np.ndarray):
        if score.shape != keypoint.shape[:3]:
            raise PosesError(f"keypoint_score of shape {score.shape}, but keypoint of {keypoint.shape}")
        array = np.concatenate([array, score[..., np.newaxis].astype(np.float64)], axis=-1)
    shape = stored.get("img_shape", stored.get("original_shape"))
    size = None
    if (
        isinstance(shape, tuple | list)
        and len(shape) in (2, 3)
        and all(isinstance(side, int | float) for side in shape)
    ):
        size = picture_size(shape[1], shape[0])
    scored = isinstance(score, np.ndarray) or None
    return from_array(array.swapaxes(0, 1), meaning, source, scored=scored, ordered=True, size=size)


def read_skeleton(path: pathlib.Path, meaning: Meaning) -> Poses:
    """The actors of one of NTU RGB+D's .skeleton files, denoised as in the published preprocessing.

    Raises: PosesError.
    """
    if meaning.layout not in (None, "ntu"):
        raise PosesError(f"--layout={meaning.layout}: a .skeleton file has NTU RGB+D's 25 joints")
    try:
        actors = ntu_skeletons.denoise(ntu_skeletons.read(path)).joints
    except SourceFileError as error:
        raise PosesError(str(error)) from error
    found = np.repeat(np.any(actors, axis=(2, 3))[..., np.newaxis], actors.shape[2], axis=2)
    rate = meaning.frame_rate or NTU_RATE
    return from_dense(actors, found.astype(np.float32), "ntu", units=METRES, frame_rate=rate, source=str(path))
