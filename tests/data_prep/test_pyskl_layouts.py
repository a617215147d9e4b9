"""Joints of many layouts, in pixels, in shares of the picture and in meters."""

import numpy as np
import pytest

from mmcl_jax.runtime.errors import PreparationError
from tests.helpers.ntu_formats import set_aside
from tests.helpers.pyskl_files import dataset, pose, prepare


def h36m(name: str, label: int = 0, **changes) -> dict:
    """A 3-D annotation as of Human3.6M: 17 joints in meters around the pelvis."""
    joints = np.random.default_rng(label).normal(0, 0.4, (1, 5, 17, 3)).astype(np.float32)
    return pose(name, label, keypoint=joints, keypoint_score=..., **changes)


def test_three_coordinates_are_not_two_and_a_confidence(tmp_path):
    whole = dataset([h36m("a"), h36m("b", 1)])
    with pytest.raises(PreparationError, match=r"2 of 2 clips .*third number is -.*no confidence; .*--layout h36m"):
        prepare(tmp_path, whole)
    opened = prepare(tmp_path, whole, layout="h36m")
    assert opened.info.channels == ("x", "y", "z") and opened.info.units == "metres"
    assert opened.info.skeleton_layout.joints[:2] == ("pelvis", "right hip")
    np.testing.assert_array_equal(opened.skeleton(0), whole["annotations"][0]["keypoint"])


def test_a_single_clip_of_three_coordinates_is_set_aside(tmp_path):
    third = np.random.default_rng(0).uniform(0, 1, (1, 5, 17, 3)) * (1000, 1000, 1)
    poses = [pose(f"v{number}", keypoint=third, keypoint_score=...) for number in range(3)]
    assert len(prepare(tmp_path, dataset([*poses, h36m("odd")]))) == 3
    assert "no confidence" in set_aside(tmp_path / "out")["odd"]


def test_a_layout_that_no_annotation_has(tmp_path):
    with pytest.raises(PreparationError, match=r"no usable annotation .*--layout h36m17\. .*docs/own-layout\.md"):
        prepare(tmp_path, dataset([pose("a")]), layout="h36m")


def test_shares_of_the_picture_are_not_pixels(tmp_path):
    in_pixels = [pose(f"v{number}", number) for number in range(4)]
    in_shares = [{**clip, "keypoint": clip["keypoint"].astype(np.float32) / (1920, 1080)} for clip in in_pixels]
    with pytest.raises(PreparationError, match=r"no coordinate exceeds .*1080 x 1920 pixels; .*--coordinates shares"):
        prepare(tmp_path, dataset(in_shares))
    opened = prepare(tmp_path, dataset(in_shares), coordinates="shares")
    (tmp_path / "pixels").mkdir()
    reference = prepare(tmp_path / "pixels", dataset(in_pixels))
    for row in range(4):
        np.testing.assert_allclose(opened.skeleton(row), reference.skeleton(row), atol=1e-5)
    with pytest.raises(PreparationError, match="no share of the picture; leave --coordinates shares out"):
        prepare(tmp_path, dataset(in_pixels), coordinates="shares", overwrite=True)
    mixed = prepare(tmp_path, dataset([*in_pixels[:3], in_shares[3]]), overwrite=True)
    assert len(mixed) == 3 and "no coordinate exceeds" in set_aside(tmp_path / "out")["v3"]


def flat(joints: int, channels: int = 2, **changes) -> list[dict]:
    """Two annotations of a number of joints in pixels, with scores of their own."""
    rng = np.random.default_rng(joints)
    keypoint = rng.uniform(0, 1080, (1, 5, joints, channels)).astype(np.float32)
    if channels == 4:
        keypoint[..., 2:] = rng.uniform(0.1, 1, keypoint[..., 2:].shape)
    score = rng.uniform(0.1, 1, (1, 5, joints)).astype(np.float32) if channels == 2 else ...
    return [pose(name, label, keypoint=keypoint, keypoint_score=score, **changes) for label, name in enumerate("ab")]


@pytest.mark.parametrize(
    ("joints", "channels", "layout", "kept"),
    [
        (13, 2, "body13", 13),
        (18, 2, "openpose18", 18),
        (25, 2, "body25", 25),
        (26, 2, "halpe26", 26),
        (33, 2, "blazepose33", 33),
        (33, 4, "blazepose33", 33),
        (133, 2, "coco", 17),
        (136, 2, "halpe26", 26),
    ],
)
def test_joints_of_pose_estimators(tmp_path, joints, channels, layout, kept):
    annotations = flat(joints, channels)
    opened = prepare(tmp_path, dataset(annotations))
    assert (opened.info.layout, opened.info.channels) == (layout, ("x", "y", "confidence"))
    (body,) = opened.skeleton(0)
    keypoint = annotations[0]["keypoint"][0, :, :kept]
    np.testing.assert_allclose(body[..., 0], keypoint[..., 0] / 960 - 1, atol=1e-6)
    expected = keypoint[..., 3] if channels == 4 else annotations[0]["keypoint_score"][0, :, :kept]
    np.testing.assert_array_equal(body[..., 2], expected)


def test_three_coordinates_of_other_layouts(tmp_path):
    rng = np.random.default_rng(0)
    for layout, joints, options in (("utd_mhad", 20, {}), ("blazepose33", 33, {"coordinates": "metres"})):
        keypoint = rng.normal(0, 0.5, (1, 5, joints, 3)).astype(np.float32)
        clips = [pose(name, label, keypoint=keypoint, keypoint_score=...) for label, name in enumerate("ab")]
        (tmp_path / layout).mkdir()
        opened = prepare(tmp_path / layout, dataset(clips), layout=layout, **options)
        assert (opened.info.layout, opened.info.units, opened.num_channels) == (layout, "metres", 3)
        np.testing.assert_array_equal(opened.skeleton(0), keypoint)


def test_pictures_of_a_size_that_only_the_caller_knows(tmp_path):
    clips = flat(17, img_shape=..., original_shape=...)
    with pytest.raises(PreparationError, match="no clip is left to write"):
        prepare(tmp_path, dataset(clips))
    opened = prepare(tmp_path, dataset(clips), size=(1920, 1080), overwrite=True)
    np.testing.assert_allclose(opened.skeleton(0)[0, ..., 0], clips[0]["keypoint"][0, ..., 0] / 960 - 1, atol=1e-6)
