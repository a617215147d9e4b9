"""The estimator: detection, landmarks and tracking, frame by frame."""

import collections
import dataclasses
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mmcl_jax.poses import model_files, tracker
from mmcl_jax.poses.blazepose import detector, landmarks
from mmcl_jax.poses.blazepose.crops import Square
from mmcl_jax.poses.blazepose.detector import Detection
from mmcl_jax.poses.blazepose.landmarks import Landmarks
from mmcl_jax.poses.blazepose.network import Network
from mmcl_jax.poses.stages import Stages
from mmcl_jax.poses.tracker import MOST_PERSONS, Candidate, Tracker
from mmcl_jax.poses.types import FramePoses, Person
from mmcl_jax.poses.video import Frame

LAYOUT = "blazepose33"
_TRUNK = (11, 12, 23, 24)  # shoulders and hips
_LEAST_DETECTION = 0.2  # at the published 0.5, one of two persons is often missed
_LEAST_PRESENCE = 0.5
_LEAST_PRESENCE_OF_NEW = 0.7
_LEAST_VISIBLE = 0.5  # visibility of two joints of a newcomer's trunk
_LEAST_INSIDE = 0.25  # share of the joints that must be in the picture
_WIDE = 1.5  # longer side over shorter side from which parts of the picture are searched, too
_BETWEEN_CHECKS = 0.34  # seconds between detections while everybody is followed
_BETWEEN_SCANS = 1.0  # seconds between detections in parts of the picture, for small newcomers
_BETWEEN_DOUBTS = 2  # frames between detections while somebody is lost or doubtful
_SEARCHED = 2  # lost persons around whose last place the detector looks closely
_AROUND = 3.0  # side of that region, in sides of the person's square
_SMALLEST = 16.0  # pixels of the square's side
_SAME_PLACE = 0.4  # overlap of squares that may be of the same person
_SURELY_SAME = 0.75  # overlap of squares that are of the same person
_SAME_MIDDLE = 0.15  # distance of the middles of the hips, in sides of the larger square, within which they are too
_AGREES = 0.5  # overlap of a detection with the square of a person who is followed well
_TURNED = 0.8  # radians between a detection and a person who is not followed well
_UPSIDE_DOWN = 1.75  # radians from which a person is doubtful: most persons are upright or lie
_SURE = 0.5  # score of a detection that is trusted more than what was followed
_CONFIRMED = 3  # frames in which somebody is seen beside others before being reported
_CHECKS = 3  # failed checks after which a person who overlaps with another one is a mistake
_DOUBLE = 0.7  # overlap of the boxes, in shares of the smaller one


class BlazePose:
    """Finds and follows the persons in pictures.

    Attributes:
      stages: seconds of `detect` and `landmarks`.
    """

    layout = LAYOUT
    has_world = True

    def __init__(
        self,
        model: str | os.PathLike = "full",
        *,
        most_persons: int = MOST_PERSONS,
        threads: int | None = None,
        folder: pathlib.Path | None = None,
        stages: Stages | None = None,
    ):
        """Loads the networks.

        Args:
          model: "lite", "full" or "heavy", or the path of a landmark network.
          most_persons: that are followed at a time.
          threads: that compute; None: one for each core.
          folder: where the model files are; None: `model_files.cache_folder()`.
          stages: takes the times; None: a new one.

        Raises: PosesError if a file or LiteRT is missing.
        """
        num_anchors = len(detector.ANCHORS)
        self._detector = Network(
            model_files.find(model_files.DETECTOR, folder),
            detector.SIZE,
            ((1, num_anchors, 12), (1, num_anchors, 1)),
            threads,
        )
        shapes = ((1, 195), (1, 1), (1, 64, 64, 39), (1, 117))
        self._landmarks = Network(model_files.find(model, folder), landmarks.SIZE, shapes, threads)
        self._most = most_persons
        self.stages = stages or Stages()

    def track(self, frames: Iterable[Frame], frame_rate: float) -> Iterator[FramePoses]:
        """Yields the persons of each frame.

        Args:
          frames: in order. A frame with the same array as the one before it is not estimated again.
          frame_rate: frames a second.
        """
        following = _Following(self, Tracker(frame_rate, most=self._most), frame_rate, self._most)
        picture, persons = None, ()
        for frame in frames:
            if frame.picture is not picture:
                picture, persons = frame.picture, following.persons(frame)
            yield FramePoses(frame.number, frame.time, persons, frame.picture)

    def look(self, picture: np.ndarray, square: Square) -> Landmarks:
        """The person in a square of a picture, uint8 RGB `[H, W, 3]`."""
        with self.stages("landmarks"):
            points, presence, heatmaps, world = self._landmarks(landmarks.network_input(picture, square))
            return landmarks.decode(points, presence, heatmaps, world, square)

    def detect(self, picture: np.ndarray, parts: bool = False, near: Sequence[Square] = ()) -> list[Detection]:
        """Persons in a picture, the surest first.

        Args:
          picture: uint8 RGB `[H, W, 3]`.
          parts: look for small persons in parts of a wide picture, too.
          near: further regions to look at closely.
        """
        found: list[Detection] = []
        for region in (*_regions(picture.shape[1], picture.shape[0], parts), *near):
            with self.stages("detect"):
                boxes, logits = self._detector(detector.network_input(picture, region))
                found += detector.decode(boxes, logits, region, _LEAST_DETECTION)
        found.sort(key=lambda detection: -detection.score)
        distinct: list[Detection] = []
        for each in found:
            repeated = any(_is_same(each.square, other.square) for other in distinct)
            if each.square.side >= _SMALLEST and not repeated:
                distinct.append(each)
        return distinct


@dataclasses.dataclass
class _Followed:
    """A person in the current frame.

    Attributes:
      seen: the landmarks.
      number: of the person; None: newly detected.
      supported: whether a detection confirms it.
    """

    seen: Landmarks
    number: int | None
    supported: bool = False


class _Following:
    """The persons who are followed through the frames of one video."""

    def __init__(self, estimator: BlazePose, persons: Tracker, frame_rate: float, most: int):
        self._estimator, self._tracker, self._most = estimator, persons, most
        self._between_checks = max(1, round(_BETWEEN_CHECKS * frame_rate))
        self._between_scans = max(1, round(_BETWEEN_SCANS * frame_rate))
        self._squares: dict[int, Square] = {}  # by person: where to look in the next frame
        self._last: dict[int, Square] = {}  # by person, also of those who are lost
        self._times_seen: collections.Counter[int] = collections.Counter()
        self._failed: dict[int, int] = {}  # by person: checks that no detection confirmed
        self._checked, self._scanned = -self._between_checks, -self._between_scans

    def persons(self, frame: Frame) -> tuple[Person, ...]:
        picture = frame.picture
        followed = []
        for number, square in self._squares.items():
            seen = self._estimator.look(picture, _moved(square, self._tracker.motion(number)))
            if seen.presence >= _LEAST_PRESENCE and _is_inside(seen, picture):
                followed.append(_Followed(seen, number))
        if self._must_detect(frame.number, followed):
            followed = self._check(frame, followed)
        numbers = self._tracker.update(frame.number, [_candidate(each, picture) for each in followed])
        named = {number: each.seen for number, each in zip(numbers, followed, strict=True) if number is not None}
        self._squares = {number: seen.square for number, seen in named.items()}
        self._last |= self._squares
        return tuple(Person(number, seen.joints, seen.visibility, seen.world) for number, seen in sorted(named.items()))

    def _must_detect(self, frame: int, followed: list[_Followed]) -> bool:
        """Whether it is time for the detector: for a check, or because somebody is lost, doubtful or missing."""
        since = frame - self._checked
        lost = len(followed) < len(self._squares) or bool(self._tracker.lost(frame - 1))
        doubtful = any(abs(each.seen.square.angle) > _UPSIDE_DOWN for each in followed)
        return not followed or since >= (_BETWEEN_DOUBTS if lost or doubtful else self._between_checks)

    def _check(self, frame: Frame, followed: list[_Followed]) -> list[_Followed]:
        """Compares those who are followed with what is detected: corrects and drops mistakes, adds newcomers."""
        self._checked, scan = frame.number, frame.number - self._scanned >= self._between_scans
        if scan:
            self._scanned = frame.number
        seen = {each.number for each in followed}
        lost = {number for number in (*self._squares, *self._tracker.lost(frame.number - 1)) if number not in seen}
        near = [_around(self._last[number]) for number in sorted(lost)[-_SEARCHED:]]
        near = [region for region in near if region.side < max(frame.picture.shape)]  # others add nothing to the whole
        detections = self._estimator.detect(frame.picture, parts=scan, near=near)
        rest = _without_confirmed(detections, followed)
        for detection in rest:
            self._take(detection, frame.picture, followed)
        return self._without_mistakes(followed)

    def _take(self, detection: Detection, picture: np.ndarray, followed: list[_Followed]) -> None:
        """Corrects the person at the place of a detection, or adds a newcomer."""
        near = [each for each in followed if _shared(detection.square, each.seen.square) > _SAME_PLACE]
        wrong = [each for each in near if not each.supported]
        sure = detection.score >= _SURE
        certain = any(_is_same(detection.square, each.seen.square) for each in near)
        if (near and not sure) or (certain and not wrong) or (not near and len(followed) >= self._most):
            return
        seen = self._estimator.look(picture, detection.square)
        if not _is_person(seen, picture):
            return
        new = _Followed(seen, None, supported=True)
        boxes = [_box(each.seen) for each in followed if each.supported]
        if not sure and any(tracker.overlap(_box(seen), box) > _DOUBLE for box in boxes):
            return  # a part of somebody
        others = [_candidate(each, picture) for each in followed if each not in wrong]
        if not self._tracker.fresh(others, _candidate(new, picture)):
            return
        if wrong:
            closest = max(wrong, key=lambda each: _shared(detection.square, each.seen.square))
            closest.seen, closest.supported = seen, True
        elif len(followed) < self._most:
            followed.append(new)

    def _without_mistakes(self, followed: list[_Followed]) -> list[_Followed]:
        """Drops persons whom detections fail to confirm again and again, and who overlap with a confirmed one."""
        kept = []
        for each in followed:
            failed = 0 if each.supported else self._failed.get(-1 if each.number is None else each.number, 0) + 1
            boxes = [_box(other.seen) for other in followed if other.supported and other is not each]
            double = any(tracker.overlap(_box(each.seen), box) > _DOUBLE for box in boxes)
            if failed >= _CHECKS and double:
                continue
            if each.number is not None:
                self._failed[each.number] = failed
            kept.append(each)
        return kept


def _without_confirmed(detections: list[Detection], followed: list[_Followed]) -> list[Detection]:
    """Marks those who agree with a detection as supported; returns the detections that agree with nobody."""
    rest = []
    for detection in detections:
        agreeing = [each for each in followed if not each.supported and _agrees(detection.square, each.seen.square)]
        if agreeing:
            max(agreeing, key=lambda each: _shared(detection.square, each.seen.square)).supported = True
        else:
            rest.append(detection)
    return rest


def _candidate(each: _Followed, picture: np.ndarray) -> Candidate:
    colours = tracker.colours(picture, each.seen.joints, _TRUNK)
    return Candidate(each.seen.joints, each.seen.visibility, colours, each.number)


def _regions(width: int, height: int, parts: bool) -> list[Square]:
    """The whole picture in a square; with `parts`, also overlapping squares that cover a long one."""
    longer, shorter = max(width, height), min(width, height)
    regions = [Square(width / 2, height / 2, longer)]
    if parts and longer >= _WIDE * shorter:
        count = max(2, math.ceil(1.5 * longer / shorter) - 1)
        for place in np.linspace(shorter / 2, longer - shorter / 2, count).tolist():
            x, y = (place, height / 2) if width >= height else (width / 2, place)
            regions.append(Square(x, y, shorter))
    return regions


def _moved(square: Square, motion: np.ndarray) -> Square:
    return dataclasses.replace(square, x=square.x + float(motion[0]), y=square.y + float(motion[1]))


def _around(square: Square) -> Square:
    return Square(square.x, square.y, _AROUND * square.side)


def _agrees(detected: Square, followed: Square) -> bool:
    turned = (detected.angle - followed.angle + math.pi) % (2 * math.pi) - math.pi
    return _shared(detected, followed) > _AGREES and abs(turned) < _TURNED


def _is_same(one: Square, other: Square) -> bool:
    """Whether two squares are around the same person."""
    near = math.hypot(one.x - other.x, one.y - other.y) < _SAME_MIDDLE * max(one.side, other.side)
    return near or _shared(one, other) > _SURELY_SAME


def _shared(one: Square, other: Square) -> float:
    """Intersection over union of the upright squares."""
    return float(detector.overlap(np.array(one.box), np.array([other.box]))[0])


def _box(seen: Landmarks) -> np.ndarray:
    return np.concatenate([seen.joints.min(axis=0), seen.joints.max(axis=0)])


def _inside(joints: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Which joints `[V, 2]` are in the picture."""
    return np.all((joints >= 0) & (joints < (picture.shape[1], picture.shape[0])), axis=1)


def _is_inside(seen: Landmarks, picture: np.ndarray) -> bool:
    """Whether enough of a person is in the picture."""
    return bool(_inside(seen.joints, picture).mean() >= _LEAST_INSIDE and seen.square.side >= _SMALLEST)


def _is_person(seen: Landmarks, picture: np.ndarray) -> bool:
    """Whether what was detected is a person."""
    trunk = list(_TRUNK)
    visible = (seen.visibility[trunk] >= _LEAST_VISIBLE) & _inside(seen.joints[trunk], picture)
    return seen.presence >= _LEAST_PRESENCE_OF_NEW and visible.sum() >= 2 and _is_inside(seen, picture)
