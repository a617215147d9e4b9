"""Windows over people's poses: when they begin and end, gaps, people hardly there, votes, unknown actions."""

import dataclasses
import re

import numpy as np
import pytest

from mmcl_jax.data.layouts import LAYOUTS, joint_mapping
from mmcl_jax.poses.types import METRES, SHARES, PosesError
from mmcl_jax.recognition.events import best
from mmcl_jax.recognition.frames import frames_of
from mmcl_jax.recognition.recognizer import Models, Recognizer, WindowOptions, _window
from mmcl_jax.recognition.watch import recognize_poses, watch
from tests.recognition import people

pytestmark = pytest.mark.usefixtures("shallow")
OPTIONS = WindowOptions(window=2.0, stride=1.0)


@pytest.fixture(scope="module")
def _shallow_models():
    return {}


@pytest.fixture
def model(_shallow_models):
    """One model for all tests of this file: it compiles once."""
    if "model" not in _shallow_models:
        _shallow_models["model"] = people.tiny_model()
    return _shallow_models["model"]


def _spans(events) -> list[tuple[int, float, float, bool]]:
    return [(event.person, event.start, event.end, event.whole) for event in events]


def test_windows_cover_a_person_from_the_first_frame_to_the_last(model):
    events = list(recognize_poses(people.poses((5, 39)), Models([model]), OPTIONS))
    assert _spans(events) == [(0, 0.5, 2.5, False), (0, 1.5, 3.5, False), (0, 2.0, 4.0, False), (0, 0.5, 4.0, True)]
    mean = np.mean([event.probabilities for event in events[:-1]], axis=0)
    np.testing.assert_allclose(events[-1].probabilities, mean, rtol=1e-6)
    assert events[0].to_json()["top"][0] == [events[0].action, round(float(events[0].probabilities.max()), 4)]


def test_a_window_is_what_the_model_says_of_its_frames(model):
    poses = people.poses((0, 39))
    first = next(iter(watch(poses, model, window=2.0, stride=1.0)))
    joints, confidence, _ = poses.dense()
    clip = np.concatenate([joints[:20, 0], confidence[:20, 0, :, None]], axis=-1)
    np.testing.assert_allclose(first.probabilities, model.predict(clip).probabilities, atol=1e-6)


def test_a_short_input_is_one_window(model):
    assert _spans(watch(people.poses((0, 11), num_frames=12), model)) == [(0, 0.0, 1.2, False), (0, 0.0, 1.2, True)]


def test_two_people_each_have_their_windows_and_one_hardly_there_has_none(model):
    events = list(recognize_poses(people.poses((0, 29), (10, 39), (50, 52)), Models([model]), OPTIONS))
    assert {event.person for event in events} == {0, 1}
    assert [event.person for event in events if event.whole] == [0, 1]
    alone = [event for event in recognize_poses(people.poses((0, 29)), Models([model]), OPTIONS)]
    np.testing.assert_allclose(
        next(event for event in events if event.whole and event.person == 0).probabilities,
        alone[-1].probabilities,
        atol=1e-6,
    )


def test_gaps_are_filled_evenly_and_a_window_that_is_mostly_gap_is_left_out(model):
    whole, gappy = people.poses((0, 39)), people.poses((0, 39), without=(3, 4, 5))
    persons = {frame.number: frame.persons[0] for frame in frames_of(gappy) if frame.persons}
    joints, _, world = _window(persons, 0, 19)
    np.testing.assert_allclose(joints, whole.tracks[0].joints[:20], atol=1e-3)  # who moves evenly
    assert world is None
    missing = people.poses((0, 59), without=tuple(range(12, 45)))
    spans = _spans(recognize_poses(missing, Models([model]), OPTIONS))
    assert (0, 0.0, 2.0, False) in spans and (0, 2.0, 4.0, False) not in spans


def test_frames_that_a_camera_left_out_are_no_absence(model):
    recognizer = Recognizer(
        Models([model]), LAYOUTS["coco"], "pixels", people.RATE, (640, 480), OPTIONS, source="camera", has_world=False
    )
    seen = [frame for frame in frames_of(people.poses((0, 59))) if frame.number % 3 == 0]
    spans = _spans([event for frame in seen for event in recognizer.add(frame)])
    assert (0, 0.0, 2.0, False) in spans and (0, 3.0, 5.0, False) in spans


def test_smoothing_changes_little_of_who_moves_evenly(model):
    plain, smooth = (list(watch(people.poses((0, 29)), model, smooth=choice))[-1] for choice in (False, True))
    assert plain.probabilities.tolist() != smooth.probabilities.tolist()
    np.testing.assert_allclose(plain.probabilities, smooth.probabilities, atol=0.1)


def test_models_vote_with_their_weights(model):
    other = people.tiny_model(1)
    poses = people.poses((0, 19))
    votes = [list(recognize_poses(poses, Models([each]), OPTIONS))[-1].probabilities for each in (model, other)]
    events = list(recognize_poses(poses, Models([model, other], [3, 1]), OPTIONS))
    np.testing.assert_allclose(events[-1].probabilities, 0.75 * votes[0] + 0.25 * votes[1], atol=1e-6)
    with pytest.raises(PosesError, match="different classes"):
        Models([model, people.tiny_model(2, ("walk", "run"))])
    for weights in ([1], [1, -1], [0, 0]):
        with pytest.raises(PosesError, match="weights"):
            Models([model, other], weights)


def test_less_probable_than_the_threshold_is_unknown():
    probabilities = np.array([0.2, 0.5, 0.3])
    assert best(probabilities, ("a", "b", "c"), 2, 0.5) == (("b", 0.5), ("c", 0.3))
    assert best(probabilities, ("a", "b", "c"), 2, 0.51) == ((None, 0.5), ("b", 0.5), ("c", 0.3))


def test_a_model_s_own_threshold_and_window_count(model):
    calibrated = people.tiny_model(threshold=0.999, window_seconds=2.0, frame_rate=people.RATE, temperature=1e6)
    events = list(watch(people.poses((0, 39)), calibrated))
    assert events[0].action is None and events[0].end == 2.0
    assert max(events[0].probabilities) < 0.5  # a high temperature is never sure
    assert next(watch(people.poses((0, 39)), calibrated, threshold=0.0)).action is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": METRES}, "takes joints in a picture, these poses are in meters"),
        ({"units": SHARES, "size": None}, "of a picture of unknown size; give its width and height"),
    ],
)
def test_poses_that_the_model_cannot_see_are_refused(model, changes, message):
    with pytest.raises(PosesError, match=re.escape(message)):
        list(watch(people.poses((0, 9), **changes), model))


def test_shares_of_the_picture_are_its_pixels(model):
    pixels = people.poses((0, 19))
    (track,) = pixels.tracks
    shared = dataclasses.replace(track, joints=track.joints / np.array([640, 480], np.float32))
    shares = dataclasses.replace(pixels, tracks=(shared,), units=SHARES)
    one, other = (list(watch(each, model))[-1].probabilities for each in (pixels, shares))
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("options", [{"window": 0}, {"stride": -1}, {"threshold": 2}, {"count": 0}])
def test_options_out_of_range(options):
    with pytest.raises(PosesError, match=r"expected"):
        WindowOptions(**options)


def test_layouts_are_mapped(model):
    events = list(watch(_as_blazepose(people.poses((0, 19))), model))
    assert events[-1].whole


def _as_blazepose(poses):
    mapping = joint_mapping(LAYOUTS["coco"], LAYOUTS["blazepose33"])
    (track,) = poses.tracks
    joints = np.einsum("uv,tvc->tuc", mapping, track.joints).astype(np.float32)
    moved = dataclasses.replace(track, joints=joints, confidence=np.ones(joints.shape[:2], np.float32))
    return dataclasses.replace(poses, tracks=(moved,), layout="blazepose33")
