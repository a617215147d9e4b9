"""The type of tracked poses: collected from frames, to arrays and back."""

import numpy as np
import pytest

from mmcl_jax.poses.types import FramePoses, Person, Poses, Track, collect, from_dense

PICTURE = np.zeros((4, 4, 3), np.uint8)


def someone(number: int, value: float, world: bool = True) -> Person:
    joints = np.full((17, 2), value, np.float32)
    return Person(number, joints, np.ones(17, np.float32), np.full((17, 3), -value, np.float32) if world else None)


def test_frames_become_tracks_and_arrays():
    frames = [
        FramePoses(0, 0.0, (someone(3, 1),), PICTURE),
        FramePoses(1, 0.1, (), PICTURE),
        FramePoses(2, 0.2, (someone(3, 2), someone(5, 7)), PICTURE),
    ]
    poses = collect(frames, "coco", 10, (4, 4), "clip.mp4")
    assert poses.persons == (3, 5) and poses.num_frames == 3 and poses.frame_rate == 10.0
    assert poses.track(3).frames.tolist() == [0, 2] and poses.track(3).span == 3
    joints, confidence, world = poses.dense()
    assert joints.shape == (3, 2, 17, 2) and confidence.shape == (3, 2, 17) and world.shape == (3, 2, 17, 3)
    assert joints[:, 0, 4, 0].tolist() == [1, 0, 2] and joints[:, 1, 4, 0].tolist() == [0, 0, 7]
    assert confidence[:, 0, 0].tolist() == [1, 0, 1] and world[2, 1, 0, 0] == -7
    only, _, _ = poses.dense([5])
    np.testing.assert_array_equal(only[:, 0], joints[:, 1])
    again = from_dense(joints, confidence, "coco", frame_rate=10.0)
    np.testing.assert_array_equal(again.dense()[0], joints)
    assert [track.frames.tolist() for track in again.tracks] == [[0, 2], [2]]


def test_nobody_at_all():
    poses = collect([FramePoses(0, 0.0, (), PICTURE)], "body13", None, None)
    joints, confidence, world = poses.dense()
    assert joints.shape == (1, 0, 13, 2) and confidence.shape == (1, 0, 13) and world is None


def test_world_coordinates_only_if_all_frames_have_them():
    frames = [FramePoses(0, 0.0, (someone(0, 1),), PICTURE), FramePoses(1, 0.1, (someone(0, 1, False),), PICTURE)]
    assert collect(frames, "coco", 10, None).dense()[2] is None


def test_what_does_not_fit_is_refused():
    joints, confidence = np.zeros((2, 17, 2), np.float32), np.ones((2, 17), np.float32)
    for frames in ([0, 1, 2], [1, 1], [1, 0]):
        with pytest.raises(ValueError, match="track"):
            Track(0, np.array(frames), joints, confidence)
    track = Track(0, np.array([0, 1]), joints, confidence)
    for changes in ({"num_frames": 1}, {"layout": "body25"}, {"units": "inches"}, {"tracks": (track, track)}):
        with pytest.raises(ValueError, match=r"person|units"):
            Poses(**{"tracks": (track,), "num_frames": 2, "layout": "coco", **changes})
