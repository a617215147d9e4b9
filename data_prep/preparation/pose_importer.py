"""Turns annotations of poses into clips of records. Most of the annotations decide the layout and the dataset."""

import collections
from collections.abc import Iterator

import numpy as np

from data_prep.formats import annotations, division, ntu_clips, sources, splits
from data_prep.formats.annotations import Annotation, Source, name_or_place
from data_prep.preparation.pose_forms import Form, form_of, oddity
from mmcl_jax.data import ntu_skeletons, records
from mmcl_jax.poses.files.forms import FLAT, WHOLE_BODIES
from mmcl_jax.poses.types import SHARES
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.runtime.files import printable
from mmcl_jax.runtime.words import counted

_SHOWN = 5  # names in a message
_NOT_FOUND = 0.01  # scores up to this one are joints that were not found, as in pyskl's PreNormalize2D
_MOST_BODIES = 2
_NTU_PICTURE = (1080, 1920)
_CLASSES_OF_60 = 60  # the first classes of NTU RGB+D 120 are those of NTU RGB+D 60
_NO_FIELDS = {"subject": 0, "camera": 0, "setup": 0, "replication": 0}


class Importer:
    """Turns annotations into clips."""

    def __init__(
        self,
        source: Source,
        class_names: tuple[str, ...] | None = None,
        layout: str | None = None,
        coordinates: str = "pixels",
        size: tuple[int, int] | None = None,
    ):
        """Raises: PreparationError if no annotation has a known layout, or most contradict what they should be.

        Args:
          source: the contents of the files.
          class_names: by label; None: numbered.
          layout: a name in LAYOUTS; None: the one that the numbers of joints and channels tell.
          coordinates: one of COORDINATES.
          size: width and height of the pictures of annotations without `img_shape`.
        """
        self._source = source
        self._coordinates, self._size = coordinates, size
        division.check_splits(source)
        odd: collections.Counter[str] = collections.Counter()
        forms, labels, names, faults = collections.Counter(), set(), [], collections.Counter()
        like_ntu, one_body = 0, False  # annotations named and labeled as in NTU; whether any has a single body
        for stored in source.annotations:
            try:
                annotation = annotations.check(stored)
            except sources.SourceFileError as error:
                faults[str(error)] += 1
                continue
            forms[annotation.format] += 1
            form = form_of(annotation.format, layout, coordinates)
            odd[oddity(annotation, form, coordinates) or ""] += 1
            labels.add(annotation.label)
            names.append(annotation.name)
            ntu_name = annotation.ntu_name
            like_ntu += ntu_name is not None and ntu_name.action - 1 == annotation.label
            one_body |= len(annotation.keypoint) == 1
        known = [format for format, _ in forms.most_common() if form_of(format, layout, coordinates) is not None]
        if not known:
            seen = "; ".join(f"{count} times {fault}" for fault, count in faults.most_common(2))
            seen = f"{forms.most_common(1)[0][0][:2]} joints and channels" if forms else seen or "an empty list"
            asked = f", and --layout {layout}" if layout else ""
            raise PreparationError(
                f"no usable annotation among {len(source.annotations)} ({seen}); expected two coordinates of "
                f"{', '.join(map(str, FLAT))} or {min(WHOLE_BODIES)} joints, three of NTU's 25 or, with --layout, of "
                f"another known layout{asked}. For other joints, write the records with a layout of your own: "
                "docs/own-layout.md"
            )
        if odd.total() - odd[""] > odd.total() / 2:
            reason = next(reason for reason in odd if reason)
            raise PreparationError(f"{odd.total() - odd['']:,} of {odd.total():,} clips are not as expected: {reason}")
        self._format = known[0]
        form = form_of(self._format, layout, coordinates)
        assert form is not None  # it is one of `known`
        self._form = form
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
        stem, form = printable(stem), self._form
        if form.layout == "ntu" and form.coordinates == 3:
            done, units = "translated to joint 2 of the first frame; frames of nobody left out", "metres"
        elif form.coordinates == 3:
            done, units = f"as {form.layout}", "metres"
        else:
            done = "x = (x - w/2) / (w/2), y = (y - h/2) / (h/2), y downwards; joints that were not found are 0"
            units = "halves of the picture's width and height"
        return records.DatasetInfo(
            dataset="ntu" if self.is_ntu else f"pyskl_{stem}",
            layout=form.layout,
            units=units,
            class_names=self._classes,
            image_source=None,
            preprocessing=f"imported from {stem}: {done}; no images",
            channels=form.channels,
            protocols=self.protocols,
        )

    def clips(self) -> Iterator[records.Clip | records.SetAside]:
        """Yields clips in the order of the annotations, with a SetAside in place of each that cannot be used."""
        for place, stored in enumerate(self._source.annotations):
            try:
                yield self._clip(annotations.check(stored))
            except sources.SourceFileError as error:
                yield records.SetAside(name_or_place(stored, place), str(error))
        annotated = {name_or_place(stored, place) for place, stored in enumerate(self._source.annotations)}
        for split, names in sorted(self._source.splits.items()):
            for name in sorted(names - annotated):
                yield records.SetAside(name, f"in split {split}, but there is no annotation of it")

    def _clip(self, annotation: Annotation) -> records.Clip:
        """Reads one clip. Raises: SourceFileError."""
        if annotation.format != self._format:
            raise sources.SourceFileError(
                f"keypoint of {annotation.format[:2]} joints and channels{' with scores' * annotation.format[2]}, most "
                f"clips here have {self._format[:2]}{' with scores' * self._format[2]}"
            )
        reason = oddity(annotation, self._form, self._coordinates)
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
        if self._form.coordinates == 2:
            skeleton = self._pictured(annotation, bodies)
        elif self._form.layout == "ntu":
            skeleton = self._metric(annotation, bodies)
        else:
            skeleton = self._solid(annotation, bodies)
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
        return numbers[np.argsort(-_seen(annotation, self._form)[numbers], kind="stable")[:_MOST_BODIES]]

    def _metric(self, annotation: Annotation, bodies: np.ndarray) -> np.ndarray:
        """float32 [T, M, 25, 3] as `data_prep.ntu` stores it. Raises: SourceFileError."""
        joints = _to_float32(annotation.keypoint[bodies]).transpose(1, 0, 2, 3)
        anybody = joints.any(axis=(1, 2, 3))
        self.counts["frames"] += int((~anybody).sum())
        return ntu_skeletons.translate(joints[anybody])

    def _solid(self, annotation: Annotation, bodies: np.ndarray) -> np.ndarray:
        """float32 [T, M, V, C], in meters, as it is stored."""
        confidence = self._form.confidences(annotation)
        joints = annotation.keypoint[bodies, ..., : self._form.num_joints, :3]
        if confidence is not None:
            joints = np.concatenate([joints, confidence[bodies, ..., np.newaxis]], axis=-1)
        return _to_float32(joints).transpose(1, 0, 2, 3)

    def _pictured(self, annotation: Annotation, bodies: np.ndarray) -> np.ndarray:
        """float32 [T, M, V, C], in halves of the picture from its middle. Raises: SourceFileError."""
        size = self._size[::-1] if self._size is not None else None
        picture = annotation.picture or size or (_NTU_PICTURE if self.is_ntu else None)
        if picture is None and self._coordinates == SHARES:
            picture = (1, 1)  # whose pixels are shares of itself
        if picture is None:
            raise sources.SourceFileError(
                "no img_shape in it, of the pictures that its pixels refer to; pass --size, as --size 1920x1080"
            )
        half = np.array([picture[1], picture[0]], np.float32) / 2
        pixels = _to_float32(annotation.keypoint[bodies][..., : self._form.num_joints, :2])
        if self._coordinates == SHARES:
            pixels *= 2 * half
        with np.errstate(invalid="ignore"):  # of NaN, which is refused later if the joint was found
            coordinates = (pixels - half) / half
        confidence = self._form.confidences(annotation)
        if confidence is None:
            coordinates[~pixels.any(axis=-1)] = 0
            return coordinates.transpose(1, 0, 2, 3)
        score = _to_float32(confidence[bodies])
        coordinates[score <= _NOT_FOUND] = 0
        return np.concatenate([coordinates, score[..., np.newaxis]], axis=-1).transpose(1, 0, 2, 3)

    def report(self) -> list[str]:
        """Lines that say what was left out."""
        lines = []
        if self.counts["bodies"]:
            lines.append(f"{counted(self.counts['bodies'], 'body', 'bodies')} of zeros left out")
        if self.counts["crowded"]:
            lines.append(
                f"{counted(self.counts['crowded'], 'clip has', 'clips have')} more than {_MOST_BODIES} bodies; the "
                "two that are seen longest are used"
            )
        if self.counts["frames"]:
            lines.append(f"{counted(self.counts['frames'], 'frame')} without a body left out")
        for (train, test), count in splits.overlaps(self._source.splits).items():
            lines.append(
                f"NOTE: {counted(count, 'clip is', 'clips are')} in both {train} and {test}, and used for testing only"
            )
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


def _seen(annotation: Annotation, form: Form) -> np.ndarray:
    """For each body [M], in how many frames it is seen; weighted with the mean score, if there are scores."""
    score = form.confidences(annotation)
    score = annotation.score if score is None else score
    present = annotation.keypoint[..., :2].any(axis=(2, 3))
    return (present * (1.0 if score is None else np.nan_to_num(score.astype(np.float64)).mean(axis=2))).sum(axis=1)


def _to_float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # becomes infinite, which is refused later
        return array.astype(np.float32)
