"""Cameras of the Kinect v1: where its skeleton's joints fall in the pictures.

Joints are in metres, x to the right of the picture, y up, z away from the camera. Focal lengths are the nominal ones
of the Kinect for Windows SDK 1.x (NUI_CAMERA_DEPTH_NOMINAL_FOCAL_LENGTH_IN_PIXELS and its counterpart for colour).
Joints are measured by the depth camera; the colour camera sits 2.5 cm beside it and is taken to be in its place: that
is 5 pixels at 2.5 m, less than the margin around a person.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera: height and width of its pictures, focal length and centre (x, y) in pixels."""

    frame_size: tuple[int, int]
    focal_length: float
    centre: tuple[float, float]

    def project(self, joints: np.ndarray) -> np.ndarray:
        """Joints [..., 3] as pixels [..., 2]; NaN where a joint is behind the camera."""
        x, y, depth = np.moveaxis(joints, -1, 0)
        depth = np.where(depth > 0, depth, np.nan)
        right, down = self.focal_length * x / depth, -self.focal_length * y / depth
        return np.stack([self.centre[0] + right, self.centre[1] + down], axis=-1)


DEPTH = Camera((240, 320), 285.63, (160.0, 120.0))
COLOUR = Camera((480, 640), 531.15, (320.0, 240.0))
