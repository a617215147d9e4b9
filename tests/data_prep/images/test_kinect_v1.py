"""Projection into the Kinect v1's pictures."""

import numpy as np

from data_prep.images import kinect_v1


def test_joints_fall_where_a_pinhole_camera_sees_them():
    joints = np.array([[0.0, 0.0, 2.0], [1.0, 1.0, 2.8563], [0.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    pixels = kinect_v1.DEPTH.project(joints)
    np.testing.assert_allclose(pixels[:2], [[160, 120], [260, 20]])
    assert np.isnan(pixels[2:]).all()
    np.testing.assert_allclose(kinect_v1.COLOR.project(np.array([0.5, -0.5, 5.3115])), [370, 290])


def test_both_cameras_see_about_the_same():
    """The angle from the center to the right border; the color camera's is a little wider."""
    depth, color = (camera.frame_size[1] / 2 / camera.focal_length for camera in (kinect_v1.DEPTH, kinect_v1.COLOR))
    assert 1 < color / depth < 1.1
