"""The search for persons by a detector, here one that takes red rectangles for persons."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from data_prep.formats import sources
from data_prep.images import detection, person_crops

SIZE = (48, 64)


class RedDetector:
    """Finds red rectangles that do not touch in x: each is a person, and its blue gives the confidence."""

    def __init__(self):
        self.batches: list[list[tuple[int, ...]]] = []

    def detect(self, pictures):
        self.batches.append([picture.shape for picture in pictures])
        return [self._persons(picture.astype(int)) for picture in pictures]

    def _persons(self, picture):
        red = (picture[..., 0] > 150) & (picture[..., 1] < 90)
        columns = np.flatnonzero(np.diff(np.concatenate([[False], red.any(axis=0), [False]])))
        boxes, confidences = [], []
        for left, right in columns.reshape(-1, 2):
            rows = np.flatnonzero(red[:, left:right].any(axis=1))
            boxes.append((left, rows[0], right, rows[-1] + 1))
            confidences.append(picture[rows, left, 2].mean() / 255)
        return np.array(boxes, np.float32).reshape(-1, 4), np.array(confidences, np.float32)


def save_clip(folder: pathlib.Path, boxes: list[list[tuple]], size=SIZE) -> pathlib.Path:
    """A folder of pictures with red rectangles (left, top, right, bottom)."""
    folder.mkdir(parents=True)
    for number, persons in enumerate(boxes):
        picture = np.full((*size, 3), 40, np.uint8)
        for left, top, right, bottom in persons:
            picture[top:bottom, left:right] = (230, 20, 200)
        Image.fromarray(picture).save(folder / f"frame_{number}_rgb.png")
    return folder


def find(groups, batch_size=8, workers=2):
    detector = RedDetector()
    searches = list(detection.find_persons(groups, detector, batch_size, workers))
    return searches, detector.batches


def frames_and_boxes(search) -> list[tuple[int, tuple]]:
    return person_crops.sampled_frames(search.num_frames, search.boxes.get)


def test_persons_are_found_in_batches_over_clips(tmp_path):
    moving = [[(frame, 10, frame + 8, 30)] for frame in range(20)]
    paths = [save_clip(tmp_path / name, moving) for name in "abc"]
    ((first, second), (third,)), batches = find([[(paths[0], 1), (paths[1], 1)], [(paths[2], 1)]])
    assert [len(batch) for batch in batches] == [8, 2, 5]
    for search in (first, second, third):
        assert frames_and_boxes(search) == [(frame, (frame, 10, frame + 8, 30)) for frame in (2, 6, 10, 14, 18)]
        for (number, picture, box), frame in zip(search.moments(), (2, 6, 10, 14, 18), strict=True):
            assert number == frame
            assert box == (frame, 10, frame + 8, 30)
            assert (picture[10:30, frame : frame + 8, 0] > 200).all()


def test_one_person_is_the_largest_and_two_are_both(tmp_path):
    path = save_clip(tmp_path / "clip", [[(2, 10, 12, 40), (20, 15, 26, 30), (40, 20, 44, 24)]] * 5)
    ((alone, both),), _ = find([[(path, 1), (path, 2)]])
    assert {box for _, box in frames_and_boxes(alone)} == {(2, 10, 12, 40)}
    assert {box for _, box in frames_and_boxes(both)} == {(2, 10, 26, 40)}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [(range(5, 15), [5, 6, 10, 14, 14]), ([17], [17] * 5), ([9, 11], [9, 9, 9, 11, 11]), ([], None)],
)
def test_a_frame_without_a_person_gives_way_to_the_nearest_with(tmp_path, shown, expected):
    path = save_clip(tmp_path / "clip", [[(5, 5, 15, 25)] if frame in shown else [] for frame in range(20)])
    ((search,),), _ = find([[(path, 1)]])
    if expected is None:
        with pytest.raises(sources.SourceFileError, match="nobody in it: no person detected in any of its 20 frames"):
            search.moments()
        assert not search.pictures
    else:
        assert [frame for frame, _ in frames_and_boxes(search)] == expected
        assert len(search.moments()) == 5


def test_pictures_of_other_sizes_are_looked_at_apart(tmp_path):
    wide = save_clip(tmp_path / "wide", [[(5, 5, 15, 25)]] * 5)
    tall = save_clip(tmp_path / "tall", [[(5, 5, 15, 25)]] * 5, size=(64, 48))
    ((first, second),), batches = find([[(wide, 1), (tall, 1)]])
    assert batches == [[(48, 64, 3)] * 5, [(64, 48, 3)] * 5]
    assert frames_and_boxes(first) == frames_and_boxes(second)


def test_a_video_that_fails_costs_no_other(tmp_path):
    good = save_clip(tmp_path / "good", [[(5, 5, 15, 25)]] * 20)
    spoiled = save_clip(tmp_path / "spoiled", [[(5, 5, 15, 25)]] * 20)
    (spoiled / "frame_10_rgb.png").write_bytes(b"no picture")
    later = save_clip(tmp_path / "later", [[]] * 20)  # its sampled frames are sound and show nobody
    (later / "frame_11_rgb.png").write_bytes(b"no picture")
    empty = tmp_path / "empty"
    empty.mkdir()
    no_video = tmp_path / "video.avi"
    no_video.write_bytes(b"no video")
    paths = [spoiled, good, later, empty, no_video, tmp_path / "nowhere.avi"]
    (searches,), _ = find([[(path, 1) for path in paths]])
    reasons = {}
    for path, search in zip(paths, searches, strict=True):
        try:
            search.moments()
        except sources.SourceFileError as error:
            reasons[path.name] = str(error)
    assert reasons.keys() == {"spoiled", "later", "empty", "video.avi", "nowhere.avi"}
    assert "frame_10_rgb.png: not a PNG" in reasons["spoiled"]
    assert "frame_11_rgb.png: not a PNG" in reasons["later"]
    assert "no pictures" in reasons["empty"]
    assert "not a readable video" in reasons["video.avi"]
    assert "not a readable video" in reasons["nowhere.avi"]


def test_batches_are_the_same_whichever_groups_were_done_before(tmp_path):
    """So an interrupted run gives the detector the same batches as one that was not."""
    rng = np.random.default_rng(0)
    clips = [
        [[(5, 5, 15, 25)] if rng.random() < 0.5 else [] for _ in range(int(rng.integers(3, 20)))] for _ in range(5)
    ]
    paths = [(save_clip(tmp_path / str(number), clip), 1) for number, clip in enumerate(clips)]
    _, together = find([paths[:3], paths[3:]])
    _, first = find([paths[:3]], workers=1)
    _, second = find([paths[3:]], workers=4)
    assert together == first + second
