"""The estimator: detection, landmarks and tracking, frame by frame."""

import math
import os
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from mmcl_jax.poses import model_files, tracker
from mmcl_jax.poses.blazepose import detector, landmarks
from mmcl_jax.poses.blazepose.crops import Square
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
_LEAST_VISIBLE = 0.3  # mean visibility of a newcomer's trunk
_LEAST_INSIDE = 0.25  # share of the joints that must be in the picture
_WIDE = 1.5  # longer side over shorter side from which parts of the picture are searched, too
_NEWCOMERS = 1.0  # seconds between searches for newcomers
_SMALLEST = 16.0  # pixels of the square's side
_SAME_SQUARE = 0.5  # overlap of a detection with a followed person's square


class BlazePose:
    """Finds and follows the persons in pictures.

    Attributes:
      stages: seconds of `detect` and `landmarks`.
    """

    layout = LAYOUT

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
            return landmarks.decode(*self._landmarks(landmarks.network_input(picture, square)), square)

    def detect(self, picture: np.ndarray, parts: bool = False) -> list[Square]:
        """Squares around persons in a picture, the surest first; with `parts`, small persons in a wide one, too."""
        found: list[detector.Detection] = []
        for region in _regions(*picture.shape[1::-1], parts):
            with self.stages("detect"):
                outputs = self._detector(detector.network_input(picture, region))
                found += detector.decode(*outputs, region, _LEAST_DETECTION)
        found.sort(key=lambda detection: -detection.score)
        squares: list[Square] = []
        for detection in found:
            if detection.square.side >= _SMALLEST and not _is_one_of(detection.square, squares):
                squares.append(detection.square)
        return squares


class _Following:
    """The persons who are followed through the frames of one video."""

    def __init__(self, estimator: BlazePose, persons: Tracker, frame_rate: float, most: int):
        self._estimator, self._tracker, self._most = estimator, persons, most
        self._between = max(1, round(_NEWCOMERS * frame_rate))
        self._squares: dict[int, Square] = {}  # by person: where to look in the next frame
        self._searched = -self._between

    def persons(self, frame: Frame) -> tuple[Person, ...]:
        picture = frame.picture
        found: list[Landmarks] = []
        candidates: list[Candidate] = []

        def add(seen: Landmarks, number: int | None) -> None:
            found.append(seen)
            colour = tracker.colours(picture, seen.joints, _TRUNK)
            candidates.append(Candidate(seen.joints, seen.visibility, colour, number))

        for number, square in self._squares.items():
            seen = self._estimator.look(picture, square)
            if seen.presence >= _LEAST_PRESENCE and _is_inside(seen, picture):
                add(seen, number)
        if self._must_search(frame.number, len(candidates)):
            scan = frame.number - self._searched >= self._between
            if scan:
                self._searched = frame.number
            for square in self._estimator.detect(picture, parts=scan):
                if len(candidates) >= self._most or _is_one_of(square, [each.square for each in found]):
                    continue
                seen = self._estimator.look(picture, square)
                colour = tracker.colours(picture, seen.joints, _TRUNK)
                new = Candidate(seen.joints, seen.visibility, colour)
                if _is_person(seen, picture) and self._tracker.fresh(candidates, new):
                    add(seen, None)
        numbers = self._tracker.update(frame.number, candidates)
        named = [(number, seen) for number, seen in zip(numbers, found, strict=True) if number is not None]
        self._squares = {number: seen.square for number, seen in named}
        return tuple(
            Person(number, seen.joints, seen.visibility, seen.world) for number, seen in sorted(named, key=_number)
        )

    def _must_search(self, frame: int, num_seen: int) -> bool:
        """Whether the detector runs: nobody is seen, somebody was lost, or it is time to look for newcomers."""
        if num_seen >= self._most:
            return False
        lost = num_seen < len(self._squares) or (self._tracker.lost(frame - 1) and frame % 2 == 0)
        return bool(num_seen == 0 or lost or frame - self._searched >= self._between)


def _number(named: tuple[int, Landmarks]) -> int:
    return named[0]


def _regions(width: int, height: int, parts: bool) -> list[Square]:
    """The whole picture in a square; with `parts`, also overlapping squares that cover a long one."""
    longer, shorter = max(width, height), min(width, height)
    regions = [Square(width / 2, height / 2, longer)]
    if parts and longer >= _WIDE * shorter:
        count = math.ceil(1.5 * longer / shorter) - 1
        for place in np.linspace(shorter / 2, longer - shorter / 2, max(2, count)).tolist():
            x, y = (place, height / 2) if width >= height else (width / 2, place)
            regions.append(Square(x, y, shorter))
    return regions


def _is_one_of(square: Square, others: list[Square]) -> bool:
    """Whether a square is around the same person as one of the others."""
    if not others:
        return False
    overlaps = detector.overlap(np.array(square.box), np.array([other.box for other in others]))
    return bool((overlaps > _SAME_SQUARE).any())


def _is_inside(seen: Landmarks, picture: np.ndarray) -> bool:
    """Whether enough of a person is in the picture."""
    height, width = picture.shape[:2]
    inside = ((seen.joints >= 0) & (seen.joints < (width, height))).all(axis=1)
    return bool(inside.mean() >= _LEAST_INSIDE and seen.square.side >= _SMALLEST)


def _is_person(seen: Landmarks, picture: np.ndarray) -> bool:
    """Whether what was detected is a person."""
    visible = seen.visibility[list(_TRUNK)].mean()
    return seen.presence >= _LEAST_PRESENCE_OF_NEW and bool(visible >= _LEAST_VISIBLE) and _is_inside(seen, picture)
