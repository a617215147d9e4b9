"""Finds persons in videos with a detector, in frames of several clips at a time.

The clips of a group decide what is in a batch; finished work does not. So a clip has the same boxes, bit for bit, in an
interrupted run.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from data_prep.formats import sources
from data_prep.images import person_crops, videos
from mmcl_jax.runtime.words import counted


class Detector(Protocol):
    """Finds persons: boxes [n, 4] (left, top, right, bottom in pixels) and confidences [n] for each picture."""

    def detect(self, pictures: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]: ...


@dataclasses.dataclass
class Search:
    """The search for the persons of a clip.

    Attributes:
      path: the video.
      num_persons: the number of persons in the box: 1, or 2 in two-person actions.
      fault: why they cannot be found; None so far.
      num_frames: the number of frames of the video.
      boxes: the box in each frame that was searched; None: nobody.
      pictures: the frames that show somebody and those to search next: uint8 RGB [H, W, 3].
    """

    path: pathlib.Path
    num_persons: int
    fault: str | None = None
    num_frames: int = 0
    boxes: dict[int, person_crops.Box | None] = dataclasses.field(default_factory=dict)
    pictures: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)

    def read(self) -> "Search":
        """Reads the frames to search next, if any are left."""
        try:
            self.num_frames = self.num_frames or videos.num_frames(self.path)
            wanted = person_crops.frames_to_search(self.num_frames, self.boxes)
            self.pictures.update(videos.read_frames(self.path, wanted))
        except sources.SourceFileError as error:
            self.fault, self.pictures = str(error), {}
        return self

    def moments(self) -> list[tuple[int, np.ndarray, person_crops.Box]]:
        """Frame, picture and box of each sampled moment of a finished search. Raises: SourceFileError."""
        if self.fault is not None:
            raise sources.SourceFileError(self.fault)
        frames = person_crops.sampled_frames(self.num_frames, self.boxes.__getitem__)
        if frames is None:
            raise sources.SourceFileError(
                f"nobody in it: no person detected in any of its {counted(self.num_frames, 'frame')}"
            )
        return [(frame, self.pictures[frame], box) for frame, box in frames]


def find_persons(
    groups: list[list[tuple[pathlib.Path, int]]], detector: Detector, batch_size: int, workers: int
) -> Iterator[list[Search]]:
    """Yields finished searches, group by group.

    Args:
      groups: groups of clips, each clip a video and its number of persons.
      detector: finds persons in pictures.
      batch_size: number of pictures of one size that the detector gets at a time.
      workers: threads that decode ahead of the detector.
    """
    searches = (Search(path, num_persons) for path, num_persons in itertools.chain.from_iterable(groups))
    begun = (search for _, search in sources.read_ahead(Search.read, searches, workers))
    for group in groups:
        together = list(itertools.islice(begun, len(group)))
        while unseen := [
            (search, frame) for search in together for frame in search.pictures if frame not in search.boxes
        ]:
            _look(unseen, detector, batch_size)
            for search in {id(search): search for search, _ in unseen}.values():
                search.read()
        yield together


def _look(unseen: list[tuple[Search, int]], detector: Detector, batch_size: int) -> None:
    """Runs the detector on some frames; only pictures that show somebody are kept."""
    by_size: dict[tuple[int, ...], list[tuple[Search, int]]] = {}
    for search, frame in unseen:
        by_size.setdefault(search.pictures[frame].shape, []).append((search, frame))
    for shape, alike in by_size.items():
        for start in range(0, len(alike), batch_size):
            batch = alike[start : start + batch_size]
            persons = detector.detect([search.pictures[frame] for search, frame in batch])
            for (search, frame), (boxes, confidences) in zip(batch, persons, strict=True):
                box = person_crops.detections_to_box(boxes, confidences, shape[:2], search.num_persons)
                search.boxes[frame] = box
                if box is None:
                    del search.pictures[frame]
