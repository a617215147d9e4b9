"""Cleaning fills what is short, says what it did, and keeps the person who acts."""

import numpy as np
import pytest

from mmcl_jax.poses import cleaning
from mmcl_jax.poses.types import FramePoses, Person, Poses, Track


def track(person: int = 0, frames=range(30), speed: float = 2.0, size: float = 100.0, world: bool = False) -> Track:
    """A person of 13 joints who moves steadily to the right."""
    frames = np.array(list(frames))
    shape = np.random.default_rng(0).uniform(-size / 2, size / 2, (13, 2))
    shape[0], shape[1] = (-size / 2, -size / 2), (size / 2, size / 2)
    joints = (shape + np.array([speed, 0]) * frames[:, np.newaxis, np.newaxis]).astype(np.float32)
    metric = np.repeat(joints[..., :1], 3, axis=2) / 100 if world else None
    return Track(person, frames, joints, np.full((len(frames), 13), 0.8, np.float32), metric)


def poses(*tracks: Track, num_frames: int = 30, rate: float | None = 30.0) -> Poses:
    return Poses(tracks, num_frames, "body13", frame_rate=rate, source="clip.mp4")


def test_short_gaps_are_interpolated_and_said():
    whole = track(world=True)
    seen = np.delete(np.arange(30), [5, 6, 7])
    gappy = Track(0, seen, whole.joints[seen], whole.confidence[seen], whole.world[seen])
    cleaned = cleaning.fill_gaps(poses(gappy))
    (filled,) = cleaned.tracks
    assert filled.frames.tolist() == list(range(30))
    np.testing.assert_allclose(filled.joints, whole.joints, atol=1e-3)
    np.testing.assert_allclose(filled.world, whole.world, atol=1e-4)
    np.testing.assert_allclose(filled.confidence[5:8], 0.4)
    assert cleaned.notes == ("person 0: 3 frames interpolated",)


def test_long_gaps_are_left_and_said():
    """Half a second is 15 frames at 30 frames a second, 5 at 10."""
    seen = [*range(5), *range(15, 30)]
    gappy = track(frames=seen)
    assert cleaning.fill_gaps(poses(gappy)).tracks[0].span == 30
    assert len(cleaning.fill_gaps(poses(gappy)).tracks[0].frames) == 30
    left = cleaning.fill_gaps(poses(gappy, rate=10.0))
    assert left.tracks[0].frames.tolist() == seen
    assert left.notes == ("person 0: 1 gap of more than 0.5 s is left",)


def test_joints_that_were_not_found():
    whole = track()
    joints, confidence = whole.joints.copy(), whole.confidence.copy()
    for frames, joint in ((slice(3, 6), 2), (slice(5, 30), 4), (slice(0, 30), 6)):
        joints[frames, joint], confidence[frames, joint] = 0, 0
    cleaned = cleaning.fill_gaps(poses(Track(0, whole.frames, joints, confidence)))
    (filled,) = cleaned.tracks
    np.testing.assert_allclose(filled.joints[:, 2], whole.joints[:, 2], atol=1e-3)
    np.testing.assert_allclose(filled.joints[5:, 4], np.tile(whole.joints[4, 4], (25, 1)))
    assert filled.confidence[5:, 4].max() == 0
    found = confidence[0] > 0
    np.testing.assert_allclose(filled.joints[0, 6], whole.joints[0, found].mean(axis=0), rtol=1e-4)
    assert cleaned.notes == ("person 0: 3 joints interpolated",)


def test_who_is_hardly_seen_does_not_displace_who_acts():
    passer = track(7, range(2), size=300)
    actor = track(3)
    cleaned = cleaning.choose_persons(poses(passer, actor), 1)
    assert cleaned.persons == (3,)
    assert cleaned.notes == ("1 person who is hardly seen is left out",)


@pytest.mark.parametrize(
    ("other", "first"),
    [(track(1, size=30), 0), (track(1, speed=0), 0), (track(1, range(9)), 0), (track(1, speed=6), 1)],
)
def test_who_acts_most_comes_first(other, first):
    """The larger, the moving, the longer seen one."""
    assert cleaning.choose_persons(poses(track(), other)).persons == (first, 1 - first)


def test_more_persons_than_wanted_are_left_out_and_said():
    people = [track(number, speed=number) for number in range(4)]
    cleaned = cleaning.choose_persons(poses(*people), 2)
    assert cleaned.persons == (3, 2)
    assert "4 persons; the 2 who act most are kept (numbers 3, 2)" in cleaned.notes[0]
    assert cleaning.choose_persons(poses(*people), None).persons == (3, 2, 1, 0)


def test_nobody():
    nobody = poses()
    assert cleaning.clean(nobody, smooth=True) == nobody
    assert cleaning.to_clip(nobody).shape == (30, 0, 13, 3)


def test_smoothing_removes_noise_at_rest_and_follows_motion():
    rng = np.random.default_rng(0)
    still = track(speed=0, frames=range(60))
    noisy = Track(
        0, still.frames, still.joints + rng.normal(0, 0.2, still.joints.shape).astype(np.float32), still.confidence
    )
    calm = cleaning.smoothed(poses(noisy, num_frames=60)).tracks[0]
    assert np.abs(np.diff(calm.joints[20:], axis=0)).mean() < 0.4 * np.abs(np.diff(noisy.joints[20:], axis=0)).mean()
    moving = track(speed=5, frames=range(60), world=True)
    followed = cleaning.smoothed(poses(moving, num_frames=60)).tracks[0]
    assert np.abs(followed.joints[20:] - moving.joints[20:]).max() < 3
    assert followed.world.shape == moving.world.shape


def test_smoothing_frame_by_frame_is_the_same():
    rng = np.random.default_rng(0)
    noisy = track(world=True)
    noisy = Track(
        0, noisy.frames, noisy.joints + rng.normal(0, 1, noisy.joints.shape).astype(np.float32), noisy.confidence
    )
    seen = [frame for frame in range(30) if frame not in (10, 11)]
    gappy = Track(0, np.array(seen), noisy.joints[seen], noisy.confidence[seen])
    frames = []
    for frame in range(30):
        joints = noisy.joints[frame] if frame in seen else None
        persons = () if joints is None else (Person(0, joints, noisy.confidence[frame]),)
        frames.append(FramePoses(frame, frame / 30, persons, np.zeros((1, 1, 3), np.uint8)))
    (expected,) = cleaning.smoothed(poses(gappy)).tracks
    found = [frame.persons[0].joints for frame in cleaning.smooth_frames(frames) if frame.persons]
    np.testing.assert_allclose(found, expected.joints, atol=2.0)  # each frame has its own size of the person
    assert np.abs(np.diff(found, axis=0)).mean() < np.abs(np.diff(gappy.joints, axis=0)).mean()


def test_the_filter_starts_anew_after_a_gap():
    joints = track(frames=[*range(10), *range(25, 30)], speed=50)
    smooth = cleaning.smoothed(poses(joints)).tracks[0]
    np.testing.assert_array_equal(smooth.joints[10], joints.joints[10])


def test_a_clip_for_a_model():
    cleaned = cleaning.clean(poses(track(1, range(0, 30, 2)), track(2)), most_persons=2, smooth=True)
    clip = cleaning.to_clip(cleaned)
    assert clip.shape == (30, 2, 13, 3) and clip.dtype == np.float32
    assert (clip[:29, :, :, 2] > 0).all() and cleaned.persons == (2, 1)
