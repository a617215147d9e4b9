"""Folders of pose files as annotations: Kinetics-skeleton's, which hold their labels, and folders of classes."""

import collections
import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from data_prep.formats.annotations import MOST_CLASSES, Source, show
from mmcl_jax.data import records
from mmcl_jax.poses.files import find_pose_files, read_clips
from mmcl_jax.poses.types import METRES, PIXELS, SHARES, Poses, PosesError
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.runtime.files import read_json
from mmcl_jax.runtime.progress import progress_bar

_NO_PICTURE = (1, 1)  # height and width of a picture whose pixels are shares of itself
_LABELS = "_label.json"  # end of the file beside a folder of Kinetics-skeleton


@dataclasses.dataclass(frozen=True)
class Contents:
    """What folders of pose files hold.

    Attributes:
      source: annotations and splits.
      class_names: by label.
      layout: of most clips.
      coordinates: of most clips: pixels or metres.
    """

    source: Source
    class_names: tuple[str, ...]
    layout: str
    coordinates: str


def read(
    folders: Sequence[pathlib.Path], layout: str | None, coordinates: str | None, size: tuple[int, int] | None
) -> Contents:
    """Reads the pose files beneath folders; the folder of several is the split of its clips.

    A file's label is its own (`label_index`), or its class is the name of the folder beneath the source.

    Args:
      folders: each one split, or one folder without splits.
      layout, coordinates, size: what the options say, see `mmcl_jax.poses.files.read_poses`.

    Raises: PreparationError if there are no pose files, or some have no class.
    """
    source, names = Source([], {}, []), {}
    kinds: collections.Counter[tuple[str, str]] = collections.Counter()
    classes = sorted({path.name for folder in folders for path in _class_folders(folder)})
    for folder in folders:
        found = set()
        for path in progress_bar(find_pose_files(folder), desc=f"reading {folder.name}", unit="file"):
            if path.name.endswith(_LABELS):
                continue
            name = path.relative_to(folder).with_suffix("").as_posix()
            try:
                clips = list(read_clips(path, layout, coordinates=coordinates, size=size))
                label = _own_label(path, folder, names)
                label = classes.index(path.relative_to(folder).parts[0]) if label is None else label
                for clip, poses in clips:
                    if isinstance(poses, PosesError):
                        raise poses
                    # Only pickles hold several clips, and each of them has a name.
                    whole = f"{name}/{clip}" if path.suffix in (".pkl", ".pickle") else name
                    source.annotations.append(_annotation(whole, label, poses))
                    kinds[str(poses.layout), METRES if poses.units == METRES else PIXELS] += 1
                    found.add(whole)
            except PosesError as error:
                source.set_aside.append(records.SetAside(name, str(error).removeprefix(f"{path}: ")))
            except ValueError:
                source.set_aside.append(records.SetAside(name, "no label in it, and no folder of a class around it"))
        if len(folders) > 1 or any(part in folder.name.lower() for part in ("train", "val", "test")):
            source.splits[folder.name] = found
    if not source.annotations:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in source.set_aside[:2]) or "no pose files"
        raise PreparationError(
            f"{', '.join(map(str, folders))}: nothing to import ({reasons}); expected Kinetics-skeleton's .json files, "
            "or a folder for each class with pose files"
        )
    if names:
        classes = [names.get(number, f"class {number}") for number in range(max(names) + 1)]
    (kind, _), *_ = kinds.most_common(1)
    return Contents(source, tuple(classes), *kind)


def _class_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _own_label(path: pathlib.Path, folder: pathlib.Path, names: dict[int, str]) -> int | None:
    """The label in a file of Kinetics-skeleton, or in the list beside its folder; None: there is none.

    The name of the class is added to `names`.
    """
    if path.suffix != ".json":
        return None
    entry = _labels(path).get("", {})
    if "label_index" not in entry:
        beside = folder.with_name(folder.name + _LABELS)
        entry = _labels(beside).get(path.stem, {}) if beside.is_file() else {}
    label = entry.get("label_index")
    if not isinstance(label, int) or isinstance(label, bool) or label < 0:
        return None
    if label >= MOST_CLASSES:
        raise PosesError(f"{path}: label_index {show(label)}, expected 0 to {MOST_CLASSES - 1}")
    name = str(entry.get("label", f"class {label}"))
    fault = records.name_fault(name)
    if fault is not None:
        raise PosesError(f"{path}: its label {name!r} cannot be the name of a class ({fault})")
    names.setdefault(label, name)
    return label


def _labels(path: pathlib.Path) -> dict[str, dict]:
    """The labels in a JSON file: of itself under "", or of others by name; empty if it has none."""
    try:
        contents = read_json(path)
    except (OSError, ValueError):
        return {}  # read_clips says what is wrong with it
    if not isinstance(contents, dict):
        return {}
    own = {key: value for key, value in contents.items() if key in ("label", "label_index")}
    return {"": own, **{key: value for key, value in contents.items() if isinstance(value, dict)}}


def _annotation(name: str, label: int, poses: Poses) -> dict:
    """Poses as an annotation of pyskl."""
    joints, confidence, _ = poses.dense()
    size = poses.size
    if poses.units == SHARES:
        joints = joints * np.array(size or _NO_PICTURE, np.float32)
    annotation = {
        "frame_dir": name,
        "label": label,
        "total_frames": poses.num_frames,
        "keypoint": joints.transpose(1, 0, 2, 3),
    }
    if poses.num_coordinates == 2:
        annotation["keypoint_score"] = confidence.transpose(1, 0, 2)
        if size is not None or poses.units == SHARES:
            annotation["img_shape"] = size[::-1] if size is not None else _NO_PICTURE
        elif poses.units != PIXELS:
            raise PosesError(f"two coordinates in {poses.units}, expected pixels or shares of the picture")
    return annotation
