"""Annotations of pyskl and mmaction2: what is in a file, checked, and its splits."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from data_prep.formats import ntu_clips, sources
from mmcl_jax.data import records
from mmcl_jax.runtime import plain_pickle
from mmcl_jax.runtime.errors import PreparationError

_LARGEST_PICTURE = 100_000
MOST_CLASSES = 10_000


@dataclasses.dataclass(frozen=True)
class Annotation:
    """A valid annotation.

    Attributes:
      name: of the clip.
      label: its class.
      keypoint: numbers [M, T, V, C].
      score: [M, T, V]; None: no scores.
      picture: (height, width) in pixels; None: unknown.
    """

    name: str
    label: int
    keypoint: np.ndarray
    score: np.ndarray | None
    picture: tuple[int, int] | None

    @property
    def format(self) -> tuple[int, int, bool]:
        num_joints, num_channels = self.keypoint.shape[2:]
        return num_joints, num_channels, self.score is not None and num_channels == 2

    @property
    def ntu_name(self) -> ntu_clips.ClipName | None:
        """The parts of the name if it is a name of NTU RGB+D; else None."""
        return ntu_clips.parse_name(pathlib.PurePosixPath(self.name).name)


def check(stored) -> Annotation:
    """Checks a stored annotation. Raises: SourceFileError, saying what is wrong."""
    if not isinstance(stored, dict):
        raise sources.SourceFileError(f"a {type(stored).__name__}, expected a dict of frame_dir, label, keypoint")
    label, keypoint, score = stored.get("label"), stored.get("keypoint"), stored.get("keypoint_score")
    if isinstance(label, bool) or not isinstance(label, int | np.integer):
        raise sources.SourceFileError(f"label {show(label)}, expected a whole number")
    if not 0 <= label < MOST_CLASSES:
        raise sources.SourceFileError(f"label {show(label)}, expected 0 to {MOST_CLASSES - 1}")
    if keypoint is None:
        raise sources.SourceFileError("no keypoint in it (Kinetics keeps them in other files, which are not read)")
    for key, array in (("keypoint", keypoint), ("keypoint_score", score)):
        if array is not None and not (isinstance(array, np.ndarray) and array.dtype.kind in "fiu"):
            raise sources.SourceFileError(f"{key} is {show(array)}, expected an array of numbers")
    if keypoint.ndim != 4 or 0 in keypoint.shape:
        raise sources.SourceFileError(
            f"keypoint of shape {keypoint.shape}, expected (bodies, frames, joints, channels)"
        )
    if score is not None and score.shape != keypoint.shape[:3]:
        raise sources.SourceFileError(f"keypoint_score of shape {score.shape}, but keypoint of {keypoint.shape}")
    frames = stored.get("total_frames", keypoint.shape[1])
    if not isinstance(frames, int | np.integer) or frames != keypoint.shape[1]:
        raise sources.SourceFileError(f"total_frames {show(frames)}, but keypoint has {keypoint.shape[1]}")
    return Annotation(name_of(stored), int(label), keypoint, score, _picture(stored))


def name_of(stored) -> str:
    """The clip name in a stored annotation. Raises: SourceFileError if it has none."""
    name = stored.get("frame_dir", stored.get("filename")) if isinstance(stored, dict) else None
    if not isinstance(name, str) or not name:
        raise sources.SourceFileError(f"frame_dir {show(name)}, expected the clip's name")
    return name


def _picture(stored: dict) -> tuple[int, int] | None:
    """(height, width) of the pictures; None if not stored. Raises: SourceFileError for anything else."""
    size = stored.get("img_shape", stored.get("original_shape"))
    if size is None:
        return None
    size = size.tolist() if isinstance(size, np.ndarray) else size
    sound = isinstance(size, list | tuple) and len(size) == 2
    if not sound or not all(_is_side(side) for side in size):
        raise sources.SourceFileError(f"img_shape {show(size)}, expected (height, width)")
    return int(size[0]), int(size[1])


def _is_side(side) -> bool:
    """Whether `side` is a number of pixels."""
    if isinstance(side, bool) or not isinstance(side, int | float | np.integer | np.floating):
        return False
    return 0 < side <= _LARGEST_PICTURE and side == int(side)


def show(value) -> str:
    """A value as a message shows it, however large it is."""
    if isinstance(value, np.ndarray | list | dict):
        return f"a {type(value).__name__}"
    try:
        return repr(value)[:60]
    except ValueError:  # Python does not write out numbers of thousands of digits
        return f"a {type(value).__name__} of thousands of digits"


@dataclasses.dataclass
class Source:
    """The contents of the files: stored annotations; clip names by split; splits that are set aside."""

    annotations: list
    splits: dict[str, set[str]]
    set_aside: list[records.SetAside]


def read(paths: Sequence[pathlib.Path]) -> Source:
    """Reads annotation files.

    Raises: PreparationError if a file does not hold annotations, or if one of several files has more than one split.
    """
    source = Source([], {}, [])
    seen: set[str] = set()
    for path in paths:
        if not path.is_file():
            raise PreparationError(f"{path}: no such file; give the .pkl file")
        try:
            contents = plain_pickle.load(path)
        except plain_pickle.PlainPickleError as error:
            raise PreparationError(f"{path}: {error}") from error
        if isinstance(contents, list):
            _add_list(source, path, contents, seen)
        elif len(paths) > 1:
            raise PreparationError(f"{path}: has all splits; give it as the only --source")
        else:
            _add_dict(source, path, contents)
    return source


def _add_dict(source: Source, path: pathlib.Path, contents) -> None:
    """Adds a file in the current form. Raises: PreparationError."""
    if not isinstance(contents, dict) or not isinstance(contents.get("annotations"), list | tuple):
        found = (
            f"a dict of {', '.join(key if isinstance(key, str) else show(key) for key in contents)[:200]}"
            if isinstance(contents, dict)
            else show(contents)
        )
        raise PreparationError(
            f"{path}: {found or 'nothing'}, expected a dict of annotations (a list) and split, or a list of annotations"
        )
    source.annotations.extend(contents["annotations"])
    stored = contents.get("split", {})
    if not isinstance(stored, dict):
        source.set_aside.append(records.SetAside("split", f"{show(stored)}, expected a dict of lists of names"))
        stored = {}
    for split, names in stored.items():
        try:
            names = set(names.tolist() if isinstance(names, np.ndarray) else names)
        except TypeError:
            names = {None}
        if not isinstance(split, str) or not all(isinstance(name, str) for name in names):
            shown = split if isinstance(split, str) else show(split)
            source.set_aside.append(records.SetAside(f"split {shown}", "expected a list of clip names"))
        else:
            source.splits[split] = names


def _add_list(source: Source, path: pathlib.Path, contents: list, seen: set[str]) -> None:
    """Adds a file in the earlier form, one split per file. A clip that an earlier file has is not added again."""
    names = set()
    for stored in contents:
        try:
            names.add(name_of(stored))
        except sources.SourceFileError:
            source.annotations.append(stored)
        else:
            if name_of(stored) not in seen:
                source.annotations.append(stored)
    seen |= names
    source.splits[path.stem] = names


def name_or_place(stored, place: int) -> str:
    """The clip name in a stored annotation or, if it has none, its place."""
    try:
        return name_of(stored)
    except sources.SourceFileError:
        return f"annotation {place}"
