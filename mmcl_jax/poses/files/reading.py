"""Reads any pose file or folder of pose files."""

import os
import pathlib
from collections.abc import Iterator

import numpy as np

from mmcl_jax.data.layouts import Layout
from mmcl_jax.poses.files import annotations, arrays, json_files, tables
from mmcl_jax.poses.files.forms import Meaning
from mmcl_jax.poses.types import Poses, PosesError

SUFFIXES = (".json", ".csv", ".tsv", ".npy", ".npz", ".pkl", ".pickle", ".skeleton")


def read_poses(
    path: str | os.PathLike,
    layout: str | Layout | None = None,
    *,
    coordinates: str | None = None,
    frame_rate: float | None = None,
    size: tuple[int, int] | None = None,
) -> Poses:
    """The tracked poses of one clip.

    Args:
      path: a pose file, or the folder of one video's OpenPose or ultralytics files.
      layout: name in `mmcl_jax.data.layouts.LAYOUTS`, or a layout; None: the file tells.
      coordinates: "pixels", "shares" or "metres"; None: the file tells.
      frame_rate: frames a second; None: what the format says, if it does.
      size: width and height of the picture in pixels; None: what the file says, if it does.

    Raises: PosesError, naming the file and the remedy, if it is no such file, holds several clips, or does not tell
      what its numbers mean.
    """
    clips = read_clips(path, layout, coordinates=coordinates, frame_rate=frame_rate, size=size)
    first = next(clips, None)
    if first is None:
        raise PosesError(f"{path}: no poses in it")
    if next(clips, None) is not None:
        raise PosesError(f"{path}: more than one clip in it; use read_clips")
    _, poses = first
    if isinstance(poses, PosesError):
        raise PosesError(f"{path}: {poses}") from poses
    return poses


def read_clips(
    path: str | os.PathLike,
    layout: str | Layout | None = None,
    *,
    coordinates: str | None = None,
    frame_rate: float | None = None,
    size: tuple[int, int] | None = None,
) -> Iterator[tuple[str, Poses | PosesError]]:
    """Yields name and poses of each clip in a file, or why a clip has none.

    Only pickles hold several clips. The arguments are those of `read_poses`.

    Raises: PosesError if the file itself cannot be read.
    """
    path = pathlib.Path(path)
    meaning = Meaning(layout, coordinates, frame_rate, size)
    try:
        if path.suffix.lower() in (".pkl", ".pickle") and path.is_file():
            yield from annotations.read_pickle(path, meaning)
        else:
            yield path.stem if path.is_file() else path.name, _read_one(path, meaning)
    except PosesError as error:
        if str(error).startswith(str(path)):
            raise
        raise PosesError(f"{path}: {error}") from error


def find_pose_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The pose files beneath a folder, sorted. A folder of OpenPose's or ultralytics' frames counts as one."""
    found = []
    for path in [folder, *sorted(folder.rglob("*"))]:
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.is_dir():
            if is_folder_of_frames(path) or path.suffix.lower() in SUFFIXES:  # the latter is refused when it is read
                found.append(path)
        elif path.suffix.lower() in SUFFIXES and path.parent not in found:
            found.append(path)
    return found


def is_folder_of_frames(folder: pathlib.Path) -> bool:
    """Whether a folder holds the files of one video, one for each frame, as OpenPose and ultralytics write them."""
    return json_files.is_openpose_folder(folder) or any(folder.glob("*_[0-9]*.txt"))


@np.errstate(over="ignore", invalid="ignore")  # of damaged numbers, which are refused or not found
def _read_one(path: pathlib.Path, meaning: Meaning) -> Poses:
    if path.is_dir():
        if json_files.is_openpose_folder(path):
            return json_files.read_openpose_folder(path, meaning)
        if any(path.glob("*.txt")):
            return tables.read_ultralytics(path, meaning)
        raise PosesError(
            "a folder without the files of one video (OpenPose's .json or ultralytics' .txt, one for each frame); give "
            "the pose files themselves"
        )
    if not path.is_file():
        raise PosesError("no such file or folder")
    suffix = path.suffix.lower()
    if suffix == ".json":
        return json_files.read(path, meaning)
    if suffix in (".csv", ".tsv"):
        return tables.read_csv(path, meaning)
    if suffix in (".npy", ".npz"):
        return arrays.read(path, meaning)
    if suffix == ".skeleton":
        return annotations.read_skeleton(path, meaning)
    raise PosesError(f"{suffix or 'no suffix'}: not one of the pose files {', '.join(SUFFIXES)}")
