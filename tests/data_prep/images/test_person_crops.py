"""Frame sampling, boxes, crops and mosaics."""

import io

import numpy as np
import pytest
from PIL import Image

from data_prep.images import person_crops


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


def test_a_mosaic_says_where_it_comes_from():
    origin = person_crops.Origin((3, 9), ((0, 1, 20, 30), (5, 6, 7, 8)), (1080, 1920))
    picture = np.zeros((480, 480, 3), np.uint8)
    with Image.open(io.BytesIO(person_crops.encode_jpeg(picture, origin))) as opened:
        assert person_crops.read_origin(opened) == origin
    for comment in (b"a holiday", b"[]", b'{"frames": [1], "boxes": [], "size": [1, 1]}', b"[" * 100_000, b"\xff"):
        opened.info["comment"] = comment
        assert person_crops.read_origin(opened) is None
    with Image.open(io.BytesIO(person_crops.encode_jpeg(picture))) as opened:
        assert person_crops.read_origin(opened) is None


def test_joints_out_of_reach_and_persons_half_out_of_it_are_left_out():
    person = np.array([[100.0, 50.0], [140.0, 150.0], [120.0, 100.0], [np.nan, np.inf]])
    other = np.array([[300.0, 50.0], [310.0, 150.0], [np.nan, 0.0], [0.0, np.inf]])
    alone = person_crops.joints_to_box(person[:3], (240, 320), 0.1)
    assert person_crops.persons_to_box([person], (240, 320), 0.1) == alone
    assert person_crops.persons_to_box([person, other], (240, 320), 0.1) == alone
    assert person_crops.persons_to_box([person, other[:2]], (240, 320), 0.1)[2] == 320
    assert person_crops.persons_to_box([other], (240, 320), 0.1) is None
    assert person_crops.persons_to_box([], (240, 320), 0.1) is None


DETECTIONS = np.array([[10.2, 20.7, 50.1, 120.9], [100, 10, 160, 200], [200, 100, 230, 140], [-20, -30, -5, -1]])


@pytest.mark.parametrize(
    ("confidences", "num_persons", "expected"),
    [
        ([0.9, 0.9, 0.9, 0.9], 1, (100, 10, 160, 200)),
        ([0.9, 0.9, 0.9, 0.9], 2, (10, 10, 160, 200)),
        ([0.9, 0.3, 0.9, 0.9], 1, (10, 20, 51, 121)),  # so unsure of the largest that the second comes before it
        ([0.9, 0.3, 0.9, 0.9], 2, (10, 10, 160, 200)),
    ],
)
def test_the_main_persons_of_those_detected(confidences, num_persons, expected):
    box = person_crops.detections_to_box(DETECTIONS, np.array(confidences), (240, 320), num_persons)
    assert box == expected


def test_detections_at_the_border_and_none():
    nobody = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    assert person_crops.detections_to_box(*nobody, (240, 320), 2) is None
    assert person_crops.detections_to_box(DETECTIONS[3:], np.ones(1), (240, 320), 1) is None
    beyond = np.array([[-9.0, -9.0, 400.0, 100.0]])
    assert person_crops.detections_to_box(beyond, np.ones(1), (240, 320), 2) == (0, 0, 320, 100)
    assert person_crops.detections_to_box(DETECTIONS[2:3], np.ones(1), (240, 320), 2) == (200, 100, 230, 140)


@pytest.mark.parametrize("seed", range(30))
def test_searching_several_frames_at_once_ends_in_the_same_choice(seed):
    rng = np.random.default_rng(seed)
    num_frames = int(rng.integers(1, 120))
    shown = rng.random(num_frames) < rng.choice([0, 0.02, 0.2, 0.9, 1])
    box_in = [(0, 0, 1 + frame, 1) if there else None for frame, there in enumerate(shown)]
    known, rounds = {}, 0
    while search := person_crops.frames_to_search(num_frames, known):
        assert not known.keys() & set(search)
        known |= {frame: box_in[frame] for frame in search}
        rounds += 1
        if rounds == 1:
            assert search == sorted(set(person_crops.uniform_frame_indices(num_frames).tolist()))
    assert rounds <= 1 + np.ceil(np.log2(num_frames + 1))
    assert person_crops.sampled_frames(num_frames, known.get) == person_crops.sampled_frames(
        num_frames, box_in.__getitem__
    )
    if shown.all():
        assert rounds == 1
