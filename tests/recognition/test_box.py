"""The model that comes with the package: what it says of itself, and that only the pose counts."""

import numpy as np
import pytest

from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.recognition.models import BOX, load_models

_HEIGHTS = {"nose": -1.6, "shoulder": -1.4, "elbow": -1.1, "wrist": -0.85, "hip": -0.9, "knee": -0.45, "ankle": 0.0}


def squatting(frames: int = 36) -> np.ndarray:
    """Someone who goes down and up, seen a little from the side: `[T, 13, 3]` in pixels with confidence."""
    low = np.sin(np.linspace(0, np.pi, frames))
    joints = LAYOUTS["body13"].joints
    clip = np.zeros((frames, len(joints), 3), np.float32)
    for number, name in enumerate(joints):
        part = next(part for part in _HEIGHTS if part in name)
        side = 0.12 * (("left" in name) - ("right" in name))
        down = {"ankle": 0.0, "knee": 0.1}.get(part, 0.5)
        forward = {"knee": 0.3, "wrist": 0.3, "nose": 0.2, "shoulder": 0.15, "hip": -0.25}.get(part, 0.0)
        clip[:, number] = np.stack([side + forward * low, _HEIGHTS[part] + down * low, 0.9 + 0 * low], axis=-1)
    return clip * np.array([200, 200, 1], np.float32) + np.array([320, 400, 0], np.float32)


@pytest.fixture(scope="module")
def box():
    return load_models(None)


def test_the_box_says_what_it_is(box):
    (model,) = box.models
    described = model.description
    assert (described.info.units, described.info.channels) == ("pixels", ("x", "y", "confidence"))
    assert model.layout == LAYOUTS["body13"]
    assert (box.frame_rate, box.window) == (12.0, 3.0)
    assert 0 < box.threshold < 1
    assert {"walk", "sit down", "stand up", "squat"} <= set(model.class_names)
    assert sum(path.stat().st_size for path in BOX.rglob("*")) < 5e6
    assert "skeletons of UTD-MHAD" in next(BOX.glob("*/README.md")).read_text(encoding="utf-8")


def test_place_and_size_in_the_picture_do_not_count_and_the_movement_does(box):
    (model,) = box.models
    clip, twice = squatting(), np.tile(squatting(18), (2, 1, 1))
    elsewhere = twice * np.array([2.5, 2.5, 1], np.float32) + np.array([-100, 300, 0], np.float32)
    squats, other, down, up = model.predict([twice, elsewhere, clip[:18], clip[18:]])
    np.testing.assert_allclose(other.logits, squats.logits, atol=2e-3)
    assert [prediction.action for prediction in (squats, down, up)] == ["squat", "sit down", "stand up"]
