"""Persons keep their numbers: in motion, through absences and crossings, and when the estimator mixes them up."""

import numpy as np
import pytest

from mmcl_jax.poses import tracker
from mmcl_jax.poses.tracker import Candidate, Tracker

BODY = np.random.default_rng(0).uniform((-40, -100), (40, 100), size=(17, 2))
RED, BLUE = np.array([0.8, 0.1, 0.1] * 2), np.array([0.1, 0.1, 0.8] * 2)


def person(x: float, colours=RED, y: float = 200.0, scale: float = 1.0, continues: int | None = None) -> Candidate:
    return Candidate(BODY * scale + (x, y), np.ones(17), np.asarray(colours), continues)


def test_a_person_keeps_the_number_while_moving():
    following = Tracker(30)
    assert {tuple(following.update(frame, [person(100 + 5 * frame)])) for frame in range(60)} == {(0,)}


def test_two_persons_are_told_apart_without_help_of_the_estimator():
    """As an estimator without tracking yields them: in any order."""
    following, rng = Tracker(30), np.random.default_rng(1)
    for frame in range(30):
        both = [(person(100 + 3 * frame), 0), (person(500 - 3 * frame, BLUE), 1)]
        order = [0, 1] if frame == 0 else rng.permutation(2).tolist()
        numbers = following.update(frame, [both[place][0] for place in order])
        assert numbers == [both[place][1] for place in order]


@pytest.mark.parametrize(("absent", "same"), [(10, True), (50, True), (70, False)])
def test_a_short_absence(absent, same):
    """Patience is two seconds at 30 frames a second."""
    following = Tracker(30, patience=2.0)
    following.update(0, [person(100)])
    for frame in range(1, absent):
        assert following.update(frame, []) == []
        assert following.lost(frame) == ([0] if frame <= 60 else [])
    assert following.update(absent, [person(120)]) == [0 if same else 1]


def test_somebody_far_away_or_of_another_size_is_somebody_else():
    for other in (person(600), person(100, scale=3)):
        following = Tracker(30)
        following.update(0, [person(100)])
        assert following.update(1, [other]) == [1]


def test_motion_leads_a_person_through_a_crossing():
    """Two persons in the same clothes walk past each other; the one behind is not seen for a while."""
    following = Tracker(30)
    for frame in range(80):
        left, right = person(100 + 5 * frame), person(500 - 5 * frame)
        hidden = abs(left.centre[0] - right.centre[0]) < 60
        numbers = following.update(frame, [left] if hidden else [left, right])
        assert numbers == ([0] if hidden else [0, 1])


def test_two_tracks_that_end_up_on_one_person_become_one():
    following = Tracker(30)
    following.update(0, [person(100), person(220, BLUE)])
    numbers = following.update(1, [person(102, continues=0), person(104, continues=1)])
    assert numbers == [0, None]
    assert following.lost(1) == [1]
    assert following.update(2, [person(104, continues=0), person(222, BLUE)]) == [0, 1]


def test_clothes_undo_an_exchange():
    """The estimator's squares were exchanged when two persons met: from then on red continues blue."""
    following = Tracker(30)
    following.update(0, [person(100), person(300, BLUE)])
    following.update(1, [person(180, continues=0), person(220, BLUE, continues=1)])  # in contact
    numbers = following.update(2, [person(100, RED, continues=1), person(300, BLUE, continues=0)])
    assert numbers == [0, 1]


def test_more_persons_than_wanted_are_dropped():
    following = Tracker(30, most=2)
    assert following.update(0, [person(100), person(300), person(500)]) == [0, 1, None]
    assert following.update(1, [person(500), person(300), person(100)]) == [None, 1, 0]


def test_colours_are_those_of_the_trunk():
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[20:40, 30:70] = (255, 0, 0)
    picture[40:60, 30:70] = (0, 0, 255)
    joints = np.array([[70, 20], [30, 20], [70, 60], [30, 60]], np.float32)
    np.testing.assert_allclose(tracker.colours(picture, joints, (0, 1, 2, 3)), [1, 0, 0, 0, 0, 1])
    joints[0] = np.nan  # and far outside
    assert np.isfinite(tracker.colours(picture, joints + 1000, (0, 1, 2, 3))).all()
