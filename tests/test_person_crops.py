"""Frame sampling, boxes, crops and mosaics."""

import io

import numpy as np
import pytest
from PIL import Image

from data_prep import person_crops


@pytest.mark.parametrize(("num_frames", "expected"), [(100, [10, 30, 50, 70, 90]), (5, [0, 1, 2, 3, 4]), (1, [0] * 5)])
def test_frames_are_sampled_uniformly(num_frames, expected):
    assert person_crops.uniform_frame_indices(num_frames).tolist() == expected


def test_short_clip_repeats_frames_in_order():
    indices = person_crops.uniform_frame_indices(3)
    assert indices.tolist() == sorted(indices)
    assert set(indices) == {0, 1, 2}


def test_box_holds_the_joints_with_a_margin():
    joints = np.array([[[100.0, 50.0], [140.0, 150.0]], [[120.0, 60.0], [150.0, 90.0]]])  # two persons
    assert person_crops.joints_to_box(joints, (240, 320), margin=0.1) == (90, 40, 160, 160)


def test_box_is_clipped_to_the_frame():
    joints = np.array([[2.0, 100.0], [60.0, 239.0]])
    assert person_crops.joints_to_box(joints, (240, 320), margin=0.1) == (0, 86, 74, 240)


@pytest.mark.parametrize(
    "joints", [[[np.nan, 1.0], [5.0, 5.0]], [[-300.0, 10.0], [-10.0, 200.0]], [[5.0, 5.0], [5.0, 5.0]]]
)
def test_no_box_where_the_joints_are_not_in_the_frame(joints):
    assert person_crops.joints_to_box(np.array(joints), (240, 320), margin=0.1) is None


def test_box_of_a_mask():
    mask = np.zeros((240, 320), bool)
    assert person_crops.mask_to_box(mask) is None
    mask[30:50, 100] = True
    assert person_crops.mask_to_box(mask) == (100, 30, 101, 50)


def test_crop_has_the_published_size_and_shows_the_box():
    frame = np.zeros((240, 320, 3), np.uint8)
    frame[60:180, 100:140] = (200, 10, 30)
    crop = person_crops.crop_and_resize(frame, (100, 60, 140, 180))
    assert crop.shape == (480, 96, 3)
    assert (crop == (200, 10, 30)).all()


def test_mosaic_is_in_order_and_survives_jpeg():
    shades = (0, 60, 120, 180, 240)
    picture = person_crops.mosaic([np.full((480, 96, 3), shade, np.uint8) for shade in shades])
    assert picture.shape == (480, 480, 3)
    decoded = np.array(Image.open(io.BytesIO(person_crops.encode_jpeg(picture)))).astype(int)
    assert np.abs(decoded - picture).max() <= 4
