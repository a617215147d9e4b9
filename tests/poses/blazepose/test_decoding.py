"""What BlazePose's networks give becomes squares and joints in pixels, exactly undoing the crop."""

import math

import numpy as np
import pytest

from mmcl_jax.poses.blazepose import crops, detector, landmarks
from mmcl_jax.poses.blazepose.crops import Square

SQUARES = [Square(60, 50, 40), Square(60, 50, 80, 0.5), Square(20.5, 90, 55.5, -2.4), Square(0, 0, 60, math.pi / 2)]


def spotted(x: float, y: float, width: int = 128, height: int = 112) -> np.ndarray:
    """A picture with a soft bright spot at a point."""
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    spot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18)
    return np.repeat(spot[..., np.newaxis], 3, axis=2).astype(np.uint8)


def spot_of(picture: np.ndarray) -> np.ndarray:
    weights = picture[..., 0].astype(float) ** 2
    rows, columns = np.indices(weights.shape) + 0.5
    return np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()


@pytest.mark.parametrize("square", SQUARES)
@pytest.mark.parametrize("size", [32, 256])
def test_a_point_of_the_crop_is_found_again_in_the_picture(square, size):
    share = np.array([0.6, 0.7]) if square.x else np.array([0.75, 0.4])  # a square at the corner is half outside
    place = crops.to_picture(share, square)
    shown = crops.crop(spotted(*place), square, size)
    assert shown.shape == (size, size, 3) and shown.dtype == np.uint8
    np.testing.assert_allclose(spot_of(shown) / size, share, atol=0.6 / size + 0.002)


def test_outside_of_the_picture_is_black():
    picture = np.full((40, 60, 3), 200, np.uint8)
    assert crops.crop(picture, Square(-100, 20, 50), 16).max() == 0
    half = crops.crop(picture, Square(0, 20, 32), 32)
    assert half[:, :15].max() == 0 and half[:, 17:].min() > 190


def test_the_square_of_a_person():
    """Twice the distance from the hips, enlarged by a quarter; turned with the line to the head."""
    upright = crops.square_of(np.array([50, 60]), np.array([50, 20]))
    assert (upright.x, upright.y, upright.side, upright.angle) == (50, 60, 100, 0)
    lying = crops.square_of(np.array([50, 60]), np.array([90, 60]))  # the head on the right
    assert lying.angle == pytest.approx(math.pi / 2)
    assert abs(crops.square_of(np.array([50, 60]), np.array([50, 100])).angle) == pytest.approx(math.pi)
    # In the crop of a lying person the head is above the hips.
    head = crops.to_picture(np.array([0.5, 0.1]), lying)
    assert tuple(head) == pytest.approx((90, 60))


def test_anchors():
    """28 x 28 x 2 of 8 pixels, 14 x 14 x 2 of 16, 7 x 7 x 6 of 32, row by row."""
    assert detector.ANCHORS.shape == (2254, 2)
    first, second = detector.ANCHORS[:1568], detector.ANCHORS[1568:1960]
    np.testing.assert_allclose(first[:4] * 224, [[4, 4], [4, 4], [12, 4], [12, 4]], rtol=1e-6)
    np.testing.assert_allclose(second[-1] * 224, [216, 216], rtol=1e-6)
    np.testing.assert_allclose(detector.ANCHORS[1960:1966] * 224, [[16, 16]] * 6, rtol=1e-6)


def detected(persons: list[tuple[int, float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of the detector: (anchor, logit, offset of the hips in pixels), head 50 pixels above."""
    boxes, logits = np.zeros((1, 2254, 12), np.float32), np.full((1, 2254, 1), -20, np.float32)
    for anchor, logit, offset in persons:
        boxes[0, anchor] = [0, 0, 40, 40, offset, 10, offset, -40, 0, 0, 0, 0]
        logits[0, anchor] = logit
    return boxes, logits


def test_detections_are_mapped_from_the_region_to_the_picture():
    region = Square(100, 200, 448)  # two pixels of the picture for each of the input
    (found,) = detector.decode(*detected([(1600, 0.0, 6.0)]), region, 0.5)
    anchor = detector.ANCHORS[1600] * 224
    assert found.score == 0.5
    assert (found.square.x, found.square.y) == pytest.approx(
        (100 - 224 + 2 * (anchor[0] + 6), 200 - 224 + 2 * (anchor[1] + 10))
    )
    assert found.square.side == pytest.approx(2 * 2 * 50 * 1.25) and found.square.angle == pytest.approx(0)


def test_boxes_of_one_person_are_averaged_by_score():
    outputs = detected([(1600, 2.0, 0.0), (1601, 2.0, 8.0), (1900, 3.0, 0.0), (700, -3.0, 0.0)])
    found = detector.decode(*outputs, Square(112, 112, 224), 0.2)
    assert len(found) == 2 and found[0].score > found[1].score
    assert found[1].square.x == pytest.approx(detector.ANCHORS[1600, 0] * 224 + 4, abs=1e-3)
    assert detector.decode(*outputs, Square(112, 112, 224), 0.99) == []


def network_outputs() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    points = np.zeros((39, 5), np.float32)
    points[:, :2] = np.linspace((40, 60), (200, 220), 39)
    points[:33, 3] = 3.0
    points[33, :2], points[34, :2] = (128, 128), (128, 28)
    world = np.tile(np.float32([0.3, -0.2, 0.1]), (39, 1))
    heatmaps = np.full((1, 64, 64, 39), -50, np.float32)
    return points.reshape(1, 195), np.float32([[0.9]]), heatmaps, world.reshape(1, 117)


@pytest.mark.parametrize("square", SQUARES)
def test_landmarks_are_turned_back_and_give_the_next_square(square):
    points, presence, heatmaps, world = network_outputs()
    seen = landmarks.decode(points, presence, heatmaps, world, square)
    assert seen.presence == pytest.approx(0.9)
    np.testing.assert_allclose(seen.visibility, 1 / (1 + math.exp(-3)), rtol=1e-5)
    expected = crops.to_picture(points.reshape(39, 5)[:33, :2].astype(float) / 256, square)
    np.testing.assert_allclose(seen.joints, expected, atol=1e-3)
    # Hips in the middle and a circle of 100 pixels: the same center and angle, 2 * 100 * 1.25 of 256 as wide.
    assert (seen.square.x, seen.square.y) == pytest.approx((square.x, square.y), abs=1e-3)
    assert seen.square.side == pytest.approx(square.side * 250 / 256, rel=1e-4)
    assert math.cos(seen.square.angle - square.angle) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(np.linalg.norm(seen.world[:, :2], axis=1), math.hypot(0.3, 0.2), rtol=1e-5)
    np.testing.assert_allclose(seen.world[:, 2], 0.1, rtol=1e-6)
    if not square.angle:
        np.testing.assert_allclose(seen.world[0], [0.3, -0.2, 0.1], rtol=1e-6)


def test_heat_moves_a_landmark_and_weak_heat_does_not():
    points, presence, heatmaps, world = network_outputs()
    points.reshape(39, 5)[:2, :2] = 128
    heatmaps[0, 33, 34, 0], heatmaps[0, 33, 34, 1] = 5.0, -1.0
    seen = landmarks.decode(points, presence, heatmaps, world, Square(128, 128, 256))
    np.testing.assert_allclose(seen.joints[0], [34 * 4, 33 * 4], atol=0.01)
    np.testing.assert_allclose(seen.joints[1], [128, 128], atol=1e-4)


def test_extreme_logits_are_no_overflow():
    points, presence, heatmaps, world = network_outputs()
    points[:], heatmaps[:] = -1e30, -1e30
    assert landmarks.decode(points, presence, heatmaps, world, SQUARES[0]).visibility.max() < 1e-30
