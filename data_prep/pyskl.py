"""Imports the annotation pickles of pyskl (and mmaction2): 3D joints of the Kinect, or 2D joints of HRNet.

    python -m data_prep.pyskl --source ntu60_3danno.pkl --out DIR [--overwrite]
    python -m data_prep.pyskl --source ntu60_hrnet.pkl --out DIR
    python -m data_prep.pyskl --source gym_hrnet.pkl --class_names FILE --out DIR
    python -m data_prep.pyskl --source ntu60_xsub_train.pkl ntu60_xsub_val.pkl --out DIR

A file is a dict of `annotations` and `split`. In earlier versions it is a list: the annotations of one split, which the
file's name names. An annotation has `frame_dir`, `label`, `keypoint` (M, T, V, C), `total_frames`, and in 2D also
`keypoint_score` (M, T, V) and `img_shape` (height, width). Files are read as plain data; no code in them is run. They
must fit into memory.

Every split becomes a protocol (xsub_train and xsub_val: `xsub`; train1 and test1: `split1`; train and val: `split`). If
names and labels are those of NTU RGB+D, its own protocols work too, and so do configs such as `configs/ntu60.py:xsub`.
Other datasets have numbered classes, unless `--class_names` gives a file with one name per line; their subject, camera,
setup and replication are 0.

25 joints of three coordinates are NTU's, in meters. Frames without a body are left out, and joint 2 of the first frame
becomes the origin, as in `data_prep.ntu`. 17 joints of two coordinates are COCO's: x = (x - w/2) / (w/2),
y = (y - h/2) / (h/2), y downwards, with the score as confidence. A joint with a score of at most 0.01 was not found; it
is moved to the middle of the picture, as in pyskl. If a clip has more than two bodies, the two that are seen longest
are used (by the sum of their scores, if there are any).

What cannot be right is refused: a third coordinate that is no confidence, coordinates from 0 to 1 where `img_shape`
says pixels, a split none of whose names is a clip's. Options say what is meant: `--layout h36m` for the 17 joints of
Human3.6M in meters, `--coordinates shares` for shares of the picture, `--split 0.25` to divide the clips at random, or
`--split FILE` for a JSON file of lists of names.
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from data_prep.formats import ntu_clips, sources, splits
from data_prep.preparation import commands
from mmcl_jax.data import ntu_skeletons, records
from mmcl_jax.data.layouts import Layout
from mmcl_jax.runtime import plain_pickle
from mmcl_jax.runtime.errors import PreparationError, plain_errors
from mmcl_jax.runtime.files import printable

_FORMATS = {  # (V, C, whether there are scores) -> layout, channels
    (25, 3, False): ("ntu", ("x", "y", "z")),
    (17, 2, True): ("coco", ("x", "y", "confidence")),
    (17, 3, False): ("coco", ("x", "y", "confidence")),  # the score is the third coordinate
    (17, 2, False): ("coco", ("x", "y")),
}
_H36M = Layout.from_names(
    joints="""pelvis, right hip, right knee, right ankle, left hip, left knee, left ankle, belly, chest, neck, head,
    left shoulder, left elbow, left wrist, right shoulder, right elbow, right wrist""",
    bones="""right hip < pelvis, right knee < right hip, right ankle < right knee, left hip < pelvis,
    left knee < left hip, left ankle < left knee, belly < pelvis, chest < belly, neck < chest, head < neck,
    left shoulder < chest, left elbow < left shoulder, left wrist < left elbow, right shoulder < chest,
    right elbow < right shoulder, right wrist < right elbow""",
    centre="belly",
    pelvis="pelvis",
    chest="chest",
)
_LAYOUTS = {"ntu": (25, 3), "coco": (17, 2), "h36m": (17, 3)}  # what --layout says -> V and number of coordinates
COORDINATES = ("pixels", "shares")
_LARGEST_SCORE = 1.5  # those of heatmaps may exceed 1 a little
_LARGEST_SHARE = 2.0  # of the picture; a joint may be outside of it
_SMALLEST_PICTURE = 32  # pixels of a side, for which such coordinates could not be pixels
_LARGEST_PICTURE = 100_000
_SHOWN = 5  # names in a message
_NOT_FOUND = 0.01  # scores up to this one are joints that were not found, as in pyskl's PreNormalize2D
_MOST_BODIES = 2
_MOST_CLASSES = 10_000
_NTU_PICTURE = (1080, 1920)
_CLASSES_OF_60 = 60  # the first classes of NTU RGB+D 120 are those of NTU RGB+D 60
_NO_FIELDS = {"subject": 0, "camera": 0, "setup": 0, "replication": 0}


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
        raise sources.SourceFileError(f"label {_show(label)}, expected a whole number")
    if not 0 <= label < _MOST_CLASSES:
        raise sources.SourceFileError(f"label {_show(label)}, expected 0 to {_MOST_CLASSES - 1}")
    if keypoint is None:
        raise sources.SourceFileError("no keypoint in it (Kinetics keeps them in other files, which are not read)")
    for key, array in (("keypoint", keypoint), ("keypoint_score", score)):
        if array is not None and not (isinstance(array, np.ndarray) and array.dtype.kind in "fiu"):
            raise sources.SourceFileError(f"{key} is {_show(array)}, expected an array of numbers")
    if keypoint.ndim != 4 or 0 in keypoint.shape:
        raise sources.SourceFileError(
            f"keypoint of shape {keypoint.shape}, expected (bodies, frames, joints, channels)"
        )
    if score is not None and score.shape != keypoint.shape[:3]:
        raise sources.SourceFileError(f"keypoint_score of shape {score.shape}, but keypoint of {keypoint.shape}")
    frames = stored.get("total_frames", keypoint.shape[1])
    if not isinstance(frames, int | np.integer) or frames != keypoint.shape[1]:
        raise sources.SourceFileError(f"total_frames {_show(frames)}, but keypoint has {keypoint.shape[1]}")
    return Annotation(name_of(stored), int(label), keypoint, score, _picture(stored))


def name_of(stored) -> str:
    """The clip name in a stored annotation. Raises: SourceFileError if it has none."""
    name = stored.get("frame_dir", stored.get("filename")) if isinstance(stored, dict) else None
    if not isinstance(name, str) or not name:
        raise sources.SourceFileError(f"frame_dir {_show(name)}, expected the clip's name")
    return name


def _picture(stored: dict) -> tuple[int, int] | None:
    """(height, width) of the pictures; None if not stored. Raises: SourceFileError for anything else."""
    size = stored.get("img_shape", stored.get("original_shape"))
    if size is None:
        return None
    size = size.tolist() if isinstance(size, np.ndarray) else size
    sound = isinstance(size, list | tuple) and len(size) == 2
    if not sound or not all(_is_side(side) for side in size):
        raise sources.SourceFileError(f"img_shape {_show(size)}, expected (height, width)")
    return int(size[0]), int(size[1])


def _is_side(side) -> bool:
    """Whether `side` is a number of pixels."""
    if isinstance(side, bool) or not isinstance(side, int | float | np.integer | np.floating):
        return False
    return 0 < side <= _LARGEST_PICTURE and side == int(side)


def _show(value) -> str:
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
            f"a dict of {', '.join(key if isinstance(key, str) else _show(key) for key in contents)[:200]}"
            if isinstance(contents, dict)
            else _show(contents)
        )
        raise PreparationError(
            f"{path}: {found or 'nothing'}, expected a dict of annotations (a list) and split, or a list of annotations"
        )
    source.annotations.extend(contents["annotations"])
    stored = contents.get("split", {})
    if not isinstance(stored, dict):
        source.set_aside.append(records.SetAside("split", f"{_show(stored)}, expected a dict of lists of names"))
        stored = {}
    for split, names in stored.items():
        try:
            names = set(names.tolist() if isinstance(names, np.ndarray) else names)
        except TypeError:
            names = {None}
        if not isinstance(split, str) or not all(isinstance(name, str) for name in names):
            shown = split if isinstance(split, str) else _show(split)
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


def divide(source: Source, split: str) -> None:
    """Replaces the splits of `source` by what `--split` says.

    Args:
      source: changed.
      split: a share from 0 to 1, of the clips of each class, which test; they are drawn at random, always the same. Or
        a JSON file of lists of clip names, as {"train": [...], "test": [...]}.

    Raises: PreparationError.
    """
    try:
        share = float(split)
    except ValueError:
        source.splits = _read_splits(pathlib.Path(split))
        return
    if not 0 < share < 1:
        raise PreparationError(f"--split {split}: expected a share between 0 and 1, as 0.25, or a JSON file")
    by_label: dict[int, list[str]] = {}
    for stored in source.annotations:
        try:
            annotation = check(stored)
        except sources.SourceFileError:
            continue  # set aside later
        by_label.setdefault(annotation.label, []).append(annotation.name)
    test = set()
    for label, names in sorted(by_label.items()):
        names = sorted(set(names))
        number = min(len(names) - 1, max(1, round(share * len(names))))  # each class is in both parts, if it can be
        test |= {names[place] for place in np.random.default_rng(label).permutation(len(names))[:number]}
    everything = {name for names in by_label.values() for name in names}
    source.splits = {"train": everything - test, "test": test}


def _read_splits(path: pathlib.Path) -> dict[str, set[str]]:
    """Reads lists of clip names by split. Raises: PreparationError."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PreparationError(f"{path}: not a readable JSON file of lists of clip names ({error})") from error
    lists = stored.values() if isinstance(stored, dict) else ()
    if not lists or not all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in lists):
        raise PreparationError(f'{path}: expected lists of clip names by split, as {{"train": ["a"], "test": ["b"]}}')
    return {split: set(names) for split, names in stored.items()}


def _check_splits(source: Source) -> None:
    """Raises: PreparationError if none of the names of a split is a clip's."""
    annotated = {_name_or_place(stored, place) for place, stored in enumerate(source.annotations)}
    for split, names in sorted(source.splits.items()):
        if not names or names & annotated:
            continue
        name = min(names)
        hint = ""
        for shorter in (lambda name: pathlib.PurePosixPath(name).stem, lambda name: pathlib.PurePosixPath(name).name):
            by_short = {shorter(other): other for other in annotated}
            other = by_short.get(shorter(name))
            if other is not None:
                cut = name.replace(other, "") if other in name else other.replace(name, "")
                hint = f"; the names differ by {cut!r}" if cut not in (name, other) else ""
                break
        raise PreparationError(
            f"split {split}: none of its {len(names):,} names is a clip's: {name!r} in the split, "
            f"{min(annotated)!r} among the clips{hint}. Make them the same, or divide the clips with --split 0.25"
        )


class Importer:
    """Turns annotations into clips. Most of the annotations decide the layout and the dataset."""

    def __init__(
        self,
        source: Source,
        class_names: tuple[str, ...] | None = None,
        layout: str | None = None,
        coordinates: str = "pixels",
    ):
        """Raises: PreparationError if no annotation has a known layout, or most contradict what they should be.

        Args:
          source: the contents of the files.
          class_names: by label; None: numbered.
          layout: a key of _LAYOUTS; None: the one that the numbers of joints and channels tell.
          coordinates: of 2-D joints, one of COORDINATES.
        """
        self._source = source
        self._coordinates = coordinates
        _check_splits(source)
        odd: collections.Counter[str] = collections.Counter()
        forms, labels, names, faults = collections.Counter(), set(), [], collections.Counter()
        like_ntu, one_body = 0, False  # annotations named and labeled as in NTU; whether any has a single body
        for stored in source.annotations:
            try:
                annotation = check(stored)
            except sources.SourceFileError as error:
                faults[str(error)] += 1
                continue
            forms[annotation.format] += 1
            odd[_oddity(annotation, layout, coordinates) or ""] += 1
            labels.add(annotation.label)
            names.append(annotation.name)
            ntu_name = annotation.ntu_name
            like_ntu += ntu_name is not None and ntu_name.action - 1 == annotation.label
            one_body |= len(annotation.keypoint) == 1
        known = [form for form, _ in forms.most_common() if form in _FORMATS and _agrees(form, layout)]
        if not known:
            seen = "; ".join(f"{count} times {fault}" for fault, count in faults.most_common(2))
            seen = f"{forms.most_common(1)[0][0][:2]} joints and channels" if forms else seen or "an empty list"
            raise PreparationError(
                f"no usable annotation among {len(source.annotations)} ({seen}); expected 25 joints of three "
                "coordinates (NTU), 17 of two (COCO) or, with --layout h36m, 17 of three (Human3.6M)"
                f"{f', and --layout {layout}' if layout else ''}. For other joints, write the records with a layout of "
                "your own: docs/own-layout.md"
            )
        if odd.total() - odd[""] > odd.total() / 2:
            reason = next(reason for reason in odd if reason)
            raise PreparationError(f"{odd.total() - odd['']:,} of {odd.total():,} clips are not as expected: {reason}")
        self._form = known[0]
        self._layout = layout or _FORMATS[self._form][0]
        self.is_ntu = like_ntu > len(names) / 2
        self._keeps_unseen = one_body  # otherwise a second body of zeros is padding
        self._classes = (
            ntu_clips.ACTIONS if self.is_ntu else class_names or tuple(f"class {n}" for n in range(max(labels) + 1))
        )
        self._empty = sorted(set(range(len(self._classes))) - labels)
        self.folds = splits.number_folds(source.splits, names)
        of_60 = self.is_ntu and max(labels) < _CLASSES_OF_60
        self.num_classes = _CLASSES_OF_60 if of_60 else len(self._classes)
        self.protocols = splits.protocols(source.splits, self.folds, self.num_classes)
        self.counts: collections.Counter[str] = collections.Counter()

    def dataset_info(self, stem: str) -> records.DatasetInfo:
        """Describes the dataset; `stem` is the stem of the file name."""
        _, channels = _FORMATS[self._form]
        stem, layout = printable(stem), self._layout
        if layout == "h36m":
            return records.DatasetInfo(
                dataset=f"pyskl_{stem}",
                layout=_H36M,
                units="metres",
                class_names=self._classes,
                image_source=None,
                preprocessing=f"imported from pyskl's {stem} as Human3.6M's joints; no images",
                protocols=self.protocols,
            )
        done = (
            "translated to joint 2 of the first frame; frames of nobody left out"
            if layout == "ntu"
            else "x = (x - w/2) / (w/2), y = (y - h/2) / (h/2), y downwards; joints that were not found are 0"
        )
        return records.DatasetInfo(
            dataset="ntu" if self.is_ntu else f"pyskl_{stem}",
            layout=layout,
            units="metres" if layout == "ntu" else "halves of the picture's width and height",
            class_names=self._classes,
            image_source=None,
            preprocessing=f"imported from pyskl's {stem}: {done}; no images",
            channels=channels,
            protocols=self.protocols,
        )

    def clips(self) -> Iterator[records.Clip | records.SetAside]:
        """Yields clips in the order of the annotations, with a SetAside in place of each that cannot be used."""
        for place, stored in enumerate(self._source.annotations):
            try:
                yield self._clip(check(stored))
            except sources.SourceFileError as error:
                yield records.SetAside(_name_or_place(stored, place), str(error))
        annotated = {_name_or_place(stored, place) for place, stored in enumerate(self._source.annotations)}
        for split, names in sorted(self._source.splits.items()):
            for name in sorted(names - annotated):
                yield records.SetAside(name, f"in split {split}, but there is no annotation of it")

    def _clip(self, annotation: Annotation) -> records.Clip:
        """Reads one clip. Raises: SourceFileError."""
        if annotation.format != self._form:
            raise sources.SourceFileError(
                f"keypoint of {annotation.format[:2]} joints and channels{' with scores' * annotation.format[2]}, most "
                f"clips here have {self._form[:2]}{' with scores' * self._form[2]}"
            )
        reason = _oddity(annotation, self._layout, self._coordinates)
        if reason is not None:
            raise sources.SourceFileError(reason)
        name, fields = annotation.name, _NO_FIELDS
        if self.is_ntu:
            parsed = annotation.ntu_name
            if parsed is None or parsed.action - 1 != annotation.label:
                raise sources.SourceFileError(
                    f"label {annotation.label}, where most clips are named as NTU RGB+D's and action A001 is label 0"
                )
            name, fields = str(parsed), parsed.fields
        bodies = self._bodies(annotation)
        if self._layout == "h36m":
            skeleton = _to_float32(annotation.keypoint[bodies]).transpose(1, 0, 2, 3)
        else:
            skeleton = self._metric(annotation, bodies) if self._form[0] == 25 else self._pictured(annotation, bodies)
        return records.Clip(name, annotation.label, **fields, skeleton=skeleton, fold=self.folds[annotation.name])

    def _bodies(self, annotation: Annotation) -> np.ndarray:
        """The numbers of the bodies that are stored. Raises: SourceFileError if there are none."""
        present = annotation.keypoint.any(axis=(1, 2, 3))
        if not present.any():
            raise sources.SourceFileError("every joint of every frame is zero")
        if len(present) == _MOST_BODIES and present[0] and self._keeps_unseen:
            present[:] = True  # a second actor was expected but not tracked
        numbers = np.flatnonzero(present)
        self.counts["bodies"] += len(present) - len(numbers)
        self.counts["crowded"] += len(numbers) > _MOST_BODIES
        if len(numbers) <= _MOST_BODIES:
            return numbers
        return numbers[np.argsort(-_seen(annotation)[numbers], kind="stable")[:_MOST_BODIES]]

    def _metric(self, annotation: Annotation, bodies: np.ndarray) -> np.ndarray:
        """float32 [T, M, 25, 3] as `data_prep.ntu` stores it. Raises: SourceFileError."""
        joints = _to_float32(annotation.keypoint[bodies]).transpose(1, 0, 2, 3)
        anybody = joints.any(axis=(1, 2, 3))
        self.counts["frames"] += int((~anybody).sum())
        return ntu_skeletons.translate(joints[anybody])

    def _pictured(self, annotation: Annotation, bodies: np.ndarray) -> np.ndarray:
        """float32 [T, M, 17, C], in halves of the picture from its middle. Raises: SourceFileError."""
        picture = annotation.picture or (_NTU_PICTURE if self.is_ntu else None)
        if picture is None:
            raise sources.SourceFileError("no img_shape in it, of the pictures that its pixels refer to")
        half = np.array([picture[1], picture[0]], np.float32) / 2
        keypoint = _to_float32(annotation.keypoint[bodies])
        if self._coordinates == "shares":
            keypoint[..., :2] *= 2 * half
        pixels = keypoint[..., :2]
        with np.errstate(invalid="ignore"):  # of NaN, which is refused later if the joint was found
            coordinates = (pixels - half) / half
        if self._form == (17, 2, False):
            coordinates[~pixels.any(axis=-1)] = 0
            return coordinates.transpose(1, 0, 2, 3)
        score = _to_float32(annotation.score[bodies]) if self._form[2] else keypoint[..., 2]
        coordinates[score <= _NOT_FOUND] = 0
        return np.concatenate([coordinates, score[..., np.newaxis]], axis=-1).transpose(1, 0, 2, 3)

    def report(self) -> list[str]:
        """Lines that say what was left out."""
        lines = []
        if self.counts["bodies"]:
            lines.append(f"{self.counts['bodies']:,} bodies of zeros left out")
        if self.counts["crowded"]:
            lines.append(
                f"{self.counts['crowded']:,} clips have more than {_MOST_BODIES} bodies; the two that are "
                "seen longest are used"
            )
        if self.counts["frames"]:
            lines.append(f"{self.counts['frames']:,} frames without a body left out")
        for (train, test), count in splits.overlaps(self._source.splits).items():
            lines.append(f"NOTE: {count:,} clips are in both {train} and {test}; they are used for testing only")
        if not self.protocols and not self.is_ntu:
            lines.append(
                "NOTE: the source has no split, so the records have no protocol to train with; divide the clips with "
                "--split 0.25 (a quarter of them tests)"
            )
        if any(not (protocol.train and protocol.test) for protocol in self.protocols.values()):
            lines.append(
                "NOTE: a protocol has no clip to train or none to test with; divide the clips with --split 0.25 (a "
                "quarter of them tests), or give one file for each split"
            )
        if self._empty and not self.is_ntu:
            shown = ", ".join(map(str, self._empty[:_SHOWN])) + ", ..." * (len(self._empty) > _SHOWN)
            lines.append(
                f"NOTE: {len(self._empty):,} of {len(self._classes):,} classes have no clip ({shown}). Labels count "
                "from 0; if those in the file do not, number them anew"
            )
        return lines


def _agrees(form: tuple[int, int, bool], layout: str | None) -> bool:
    """Whether annotations of `form` can be of `layout` (None: any)."""
    num_joints, num_channels, _ = form
    if layout is None:
        return True
    expected, coordinates = _LAYOUTS[layout]
    return num_joints == expected and (num_channels == coordinates or layout == "coco")


def _oddity(annotation: Annotation, layout: str | None, coordinates: str) -> str | None:
    """What contradicts that an annotation's numbers are what `_FORMATS` takes them for; None: nothing."""
    if annotation.format not in _FORMATS or annotation.format[0] != _LAYOUTS["coco"][0] or layout == "h36m":
        return None
    keypoint = annotation.keypoint
    if annotation.format == (17, 3, False):
        third = keypoint[..., 2][np.isfinite(keypoint[..., 2])]
        odd = third[(third < 0) | (third > _LARGEST_SCORE)]
        if len(odd):
            return (
                f"17 joints whose third number is {odd[0]:g}, which is no confidence; if they are Human3.6M's in "
                "meters, pass --layout h36m"
            )
    largest = np.abs(keypoint[..., :2][np.isfinite(keypoint[..., :2])]).max(initial=0)
    picture = annotation.picture
    if coordinates == "shares":
        if largest > _LARGEST_SHARE:
            return f"a coordinate of {largest:g}, which is no share of the picture; leave --coordinates shares out"
    elif picture is not None and min(picture) >= _SMALLEST_PICTURE and 0 < largest <= _LARGEST_SHARE:
        return (
            f"no coordinate exceeds {largest:g}, where img_shape says {picture[0]} x {picture[1]} pixels; if they are "
            "shares of the picture, pass --coordinates shares"
        )
    return None


def _seen(annotation: Annotation) -> np.ndarray:
    """For each body [M], in how many frames it is seen; weighted with the mean score, if there are scores."""
    keypoint = annotation.keypoint
    score = annotation.score if annotation.score is not None else None
    if score is None and annotation.format == (17, 3, False):
        score = keypoint[..., 2]
    present = keypoint[..., :2].any(axis=(2, 3))
    return (present * (1.0 if score is None else np.nan_to_num(score.astype(np.float64)).mean(axis=2))).sum(axis=1)


def _to_float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # becomes infinite, which is refused later
        return array.astype(np.float32)


def _name_or_place(stored, place: int) -> str:
    try:
        return name_of(stored)
    except sources.SourceFileError:
        return f"annotation {place}"


def prepare(
    paths,
    out,
    *,
    class_names=None,
    layout: str | None = None,
    coordinates: str = "pixels",
    split: str | None = None,
    overwrite: bool = False,
) -> None:
    """Writes the records folder `out` from annotation files.

    Args:
      paths: one file with all splits, or several files of one split each.
      out: the records folder.
      class_names: file of class names, one per line, by label; not read for NTU RGB+D.
      layout: a key of _LAYOUTS; None: the one that the numbers of joints and channels tell.
      coordinates: of 2-D joints, one of COORDINATES.
      split: replaces the splits of the files, see `divide`.
      overwrite: replace existing records after the new ones are complete.

    Raises: PreparationError.
    """
    out = records.check_destination(out, overwrite)
    paths = [pathlib.Path(path) for path in paths]
    names = commands.read_class_names(pathlib.Path(class_names)) if class_names is not None else None
    source = read(paths)
    if split is not None:
        divide(source, split)
    importer = Importer(source, names, layout, coordinates)
    info = importer.dataset_info(paths[0].stem)
    records.write_records(
        out,
        info,
        importer.clips(),
        total=len(source.annotations),
        set_aside=source.set_aside,
        overwrite=overwrite,
    )
    for line in importer.report():
        print(line)
    for protocol in importer.protocols:
        commands.print_counts(out, protocol)
    for protocol, expected in ntu_clips.NUM_CLIPS.items() if importer.is_ntu else ():
        if protocol.startswith(f"ntu{importer.num_classes}"):
            commands.print_counts(out, protocol, expected)


def main(arguments: list[str] | None = None) -> None:
    parser = commands.argument_parser(
        __doc__, source="the .pkl file, or several .pkl files of one split each", nargs="+"
    )
    parser.add_argument("--class_names", help="a file of class names, one per line, in the order of the labels")
    parser.add_argument(
        "--layout", choices=_LAYOUTS, help="the joints (default: what the numbers of joints and channels tell)"
    )
    parser.add_argument(
        "--coordinates", choices=COORDINATES, default="pixels", help="of 2-D joints: pixels or shares of the picture"
    )
    parser.add_argument(
        "--split",
        help="in place of the source's own splits: the share of the clips that test, as 0.25, or a JSON file of lists "
        "of clip names",
    )
    parsed = parser.parse_args(arguments)
    with plain_errors():
        prepare(
            parsed.source,
            parsed.out,
            class_names=parsed.class_names,
            layout=parsed.layout,
            coordinates=parsed.coordinates,
            split=parsed.split,
            overwrite=parsed.overwrite,
        )


if __name__ == "__main__":
    main()
