"""Clips as the player reads them: decoded here as its script does it."""

import base64

import numpy as np
import pytest

from mmcl_jax.data import records
from mmcl_jax.data.layouts import Layout
from mmcl_jax.viewers import skeleton_player


def info(channels=("x", "y", "z"), layout="ntu") -> records.DatasetInfo:
    return records.DatasetInfo("made up", layout, "metres", ("one",), None, "none", channels)


def unpack(text: str, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers of `skeleton_player._pack`, summed up along the last axis."""
    values, value, shift = [], 0, 0
    for byte in base64.b64decode(text):
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            values.append(-(value + 1) // 2 if value % 2 else value // 2)
            value = shift = 0
    return np.array(values).reshape(shape).cumsum(axis=-1)


def decode(clip: dict, num_joints: int, num_coordinates: int) -> np.ndarray:
    """[M, T, V, C], zero where a body is lost."""
    steps = unpack(clip["steps"], (clip["bodies"], num_joints, num_coordinates, clip["frames"]))
    joints = np.array(clip["origin"]) + clip["step"] * steps.transpose(0, 3, 1, 2)
    for body, frames in enumerate(clip.get("lost", [])):
        joints[body, frames] = 0
    return joints


def person(num_bodies=1, num_frames=60, seed=0, num_joints=25, channels=3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    still = rng.uniform(-1, 1, (num_bodies, 1, num_joints, channels))
    return (still + np.cumsum(rng.normal(0, 0.004, (num_bodies, num_frames, num_joints, channels)), 1)).astype(
        np.float32
    )


def test_a_clip_comes_back_to_a_thousandth_of_its_size():
    skeleton = person(num_bodies=2)
    skeleton[1, 10:20] = 0
    clip = skeleton_player.encode(skeleton, info())
    assert clip["lost"] == [[], list(range(10, 20))]
    decoded = decode(clip, 25, 3)
    assert np.abs(decoded - skeleton).max() <= 0.5001 * clip["step"]
    assert clip["step"] <= 2.3 / 2000
    assert not decoded[1, 10:20].any()
    assert len(clip["steps"]) < 1.7 * skeleton.size


def test_far_outliers_cost_the_rest_no_accuracy():
    skeleton = person()
    skeleton[0, 30, 3] = 1e30
    skeleton[0, 31, 3] = -5000
    clip = skeleton_player.encode(skeleton, info())
    difference = np.abs(decode(clip, 25, 3) - skeleton)
    difference[0, 30, 3] = 0
    assert difference.max() <= 0.5001 * clip["step"] < 0.001


@pytest.mark.parametrize("value", [0.5, -1e-30, 3e38])
def test_a_clip_in_which_nothing_moves(value):
    skeleton = np.full((1, 3, 25, 3), value, np.float32)
    np.testing.assert_allclose(decode(skeleton_player.encode(skeleton, info()), 25, 3), skeleton, rtol=1e-5)


def test_long_clips_lose_frames():
    skeleton = person(num_frames=100)
    clip = skeleton_player.encode(skeleton, info(), most_values=40 * 75)
    assert (clip["every"], clip["frames"]) == (3, 34)
    assert np.abs(decode(clip, 25, 3) - skeleton[:, ::3]).max() <= 0.5001 * clip["step"]
    assert skeleton_player.encode(skeleton, info(), most_values=100 * 75)["every"] == 1
    assert skeleton_player.encode(skeleton, info(), most_values=1)["frames"] >= 20


def test_confidence_and_joints_that_were_not_found():
    skeleton = person(num_joints=17, channels=3)
    skeleton[..., 2] = np.linspace(0, 1, 60)[:, np.newaxis]
    skeleton[0, :, 4] = 0
    skeleton[..., :2] += 1000 * (skeleton[..., 2:] > 0)  # the rest is at the origin, far away
    clip = skeleton_player.encode(skeleton, info(("x", "y", "confidence"), "coco"))
    confidence = unpack(clip["confidence"], (1, 17, 60)) / 100
    np.testing.assert_allclose(confidence.transpose(0, 2, 1), skeleton[..., 2], atol=0.00501)
    assert clip["step"] < 2.3 / 2000
    assert min(clip["origin"]) > 900


@pytest.mark.parametrize(("axis", "sign"), [(0, -1), (1, -1), (1, 1), (2, 1)])
def test_which_way_is_up(axis, sign):
    skeleton = np.zeros((1, 5, 25, 3), np.float32)
    skeleton[..., 3, axis] = sign
    skeleton[..., 2, 0] = 9  # the neck does not count if there is a head
    assert skeleton_player.upward(info(), [skeleton, skeleton]) == (axis, sign)


def test_which_way_is_up_where_nothing_says_it():
    assert skeleton_player.upward(info(), []) == (1, 1)
    assert skeleton_player.upward(info(("x", "y")), []) == (1, -1)
    line = Layout.from_names("a, b", "b < a", "a")
    assert skeleton_player.upward(info(layout=line), [np.ones((1, 2, 2, 3))]) == (1, 1)


def test_layout():
    made = skeleton_player.layout(info(("x", "y", "z", "confidence")), (1, 1))
    assert made["coordinates"] == 3
    assert len(made["joints"]) == 25
    assert [20, 1] not in made["bones"]
    assert [1, 20] in made["bones"]
    assert made["metres"]
