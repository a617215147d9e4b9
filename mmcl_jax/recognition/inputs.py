"""What the inputs of the command are: videos, poses, clips, records, and folders of these."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from mmcl_jax.data.layouts import joint_mapping, map_joints
from mmcl_jax.data.records import Records
from mmcl_jax.poses import files
from mmcl_jax.poses.types import PosesError
from mmcl_jax.poses.video import SUFFIXES
from mmcl_jax.trained_model import TrainedModel

VIDEO, POSES, CLIP, RECORDS = "video", "poses", "clip", "records"


@dataclasses.dataclass(frozen=True)
class Input:
    """An input and what it is: VIDEO, POSES, CLIP (an array of a model's own joints) or RECORDS."""

    path: pathlib.Path
    kind: str


def find_inputs(paths: Sequence[pathlib.Path], model: TrainedModel) -> tuple[list[Input], list[str]]:
    """What the paths are; of a folder that is none of these, the files in it that are.

    Returns: the inputs, and why each other path is none.
    """
    found, faults = [], []
    for path in paths:
        kind = _kind(path, model)
        inside = list(_in_folder(path, model)) if kind is None and path.is_dir() else []
        if kind is not None:
            found.append(Input(path, kind))
        elif inside:
            found += inside
        elif not path.exists():
            faults.append(f"{path}: no such file or folder")
        elif path.is_dir():
            faults.append(f"{path}: no video, pose file or clip in this folder")
        else:
            faults.append(
                f"{path}: neither a video ({', '.join(SUFFIXES)}), a pose file ({', '.join(files.SUFFIXES)}), a clip "
                "(.npy) nor records"
            )
    return found, faults


def _in_folder(folder: pathlib.Path, model: TrainedModel) -> Iterator[Input]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        kind = _kind(path, model)
        if kind is not None:
            yield Input(path, kind)
        elif path.is_dir() and not path.is_symlink():
            yield from _in_folder(path, model)


def _kind(path: pathlib.Path, model: TrainedModel) -> str | None:
    if not path.exists():
        return None
    if path.is_dir():
        if (path / "info.json").is_file():
            return RECORDS
        return POSES if files.is_folder_of_frames(path) else None
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return VIDEO
    if suffix == ".npy" and _is_clip(path, model):
        return CLIP
    return POSES if suffix in files.SUFFIXES else None


def _is_clip(path: pathlib.Path, model: TrainedModel) -> bool:
    """Whether an array has the joints and channels of the model."""
    try:
        shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
    except (OSError, ValueError, EOFError):
        return False
    return len(shape) in (3, 4) and shape[-2:] == model.description.info.joint_shape


def read_clips(item: Input, model: TrainedModel) -> Iterator[tuple[str, np.ndarray]]:
    """Name and array `[T, M, V, C]` of the clip, or of each clip of records, on the model's joints.

    Raises: RecordsError, PosesError, LayoutError if they cannot be read, or are not of the model's kind.
    """
    if item.kind == CLIP:
        try:
            yield str(item.path), np.load(item.path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise PosesError(f"{item.path}: no array that can be read ({error})") from error
        return
    records, wanted = Records(item.path), model.description.info
    own = records.info
    if own.channels != wanted.channels or own.units != wanted.units:
        raise PosesError(
            f"{item.path}: joints of {', '.join(own.channels)} in {own.units}, the model takes "
            f"{', '.join(wanted.channels)} in {wanted.units}"
        )
    mapping = None
    if own.skeleton_layout != model.layout:
        mapping = joint_mapping(own.skeleton_layout, model.layout)
    for row in range(len(records)):
        clip = records.skeleton(row).transpose(1, 0, 2, 3)
        if mapping is not None:
            clip = map_joints(clip, mapping, own.num_coordinates)
        yield f"{item.path}/{records.index['name'][row]}", clip
