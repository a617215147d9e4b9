"""Cameras of the Kinect v1: maps the joints of its skeletons to pixels.

Joints are in meters, x to the right of the picture, y up, z away from the camera. Focal lengths are the nominal ones of
the Kinect for Windows SDK 1.x (NUI_CAMERA_DEPTH_NOMINAL_FOCAL_LENGTH_IN_PIXELS and its counterpart for color). The
depth camera measures the joints; the color camera is 2.5 cm beside it, but is treated as if it were at the same place.
The error is 5 pixels at 2.5 m, less than the margin around a person.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera: height and width of its pictures, focal length and center (x, y) in pixels."""

    frame_size: tuple[int, int]
    focal_length: float
    center: tuple[float, float]

    def project(self, joints: np.ndarray) -> np.ndarray:
        """Projects joints [..., 3] to pixels [..., 2]; NaN for joints behind the camera."""
        x, y, depth = np.moveaxis(joints, -1, 0)
        depth = np.where(depth > 0, depth, np.nan)
        right, down = self.focal_length * x / depth, -self.focal_length * y / depth
        return np.stack([self.center[0] + right, self.center[1] + down], axis=-1)


DEPTH = Camera((240, 320), 285.63, (160.0, 120.0))
COLOR = Camera((480, 640), 531.15, (320.0, 240.0))
