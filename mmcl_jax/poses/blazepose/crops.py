"""Turned square crops of a picture, and the way back from the crop to the picture."""

import dataclasses
import math

import numpy as np
from PIL import Image

_MARGIN = 2  # pixels around a crop, for interpolation


@dataclasses.dataclass(frozen=True)
class Square:
    """A turned square in a picture.

    Attributes:
      x, y: its center, in pixels.
      side: in pixels.
      angle: in radians, clockwise as seen in the picture; 0: upright.
    """

    x: float
    y: float
    side: float
    angle: float = 0.0

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the upright square of the same center and side."""
        half = self.side / 2
        return self.x - half, self.y - half, self.x + half, self.y + half


def square_of(centre: np.ndarray, scale: np.ndarray, factor: float = 1.25) -> Square:
    """The square around a person, from the two points that BlazePose gives for it.

    Args:
      centre: (x, y) of the middle of the hips, in pixels.
      scale: (x, y) of a point above it, on the circle around the person.
      factor: enlarges the square.
    """
    x, y = (float(value) for value in centre)
    dx, dy = float(scale[0]) - x, float(scale[1]) - y
    # The point is above the center in an upright person: -pi/2 as y points downwards.
    angle = math.atan2(dy, dx) + math.pi / 2
    angle -= 2 * math.pi * math.floor((angle + math.pi) / (2 * math.pi))
    return Square(x, y, max(2 * math.hypot(dx, dy) * factor, 1.0), angle)


def crop(picture: np.ndarray, square: Square, size: int) -> np.ndarray:
    """The square of a picture, turned upright: uint8 `[size, size, 3]`. Outside of the picture it is black."""
    cos, sin = math.cos(square.angle), math.sin(square.angle)
    reach = square.side / 2 * (abs(cos) + abs(sin)) + _MARGIN
    height, width = picture.shape[:2]
    left, right = (int(np.clip(value, 0, width)) for value in (square.x - reach, math.ceil(square.x + reach)))
    top, bottom = (int(np.clip(value, 0, height)) for value in (square.y - reach, math.ceil(square.y + reach)))
    if right <= left or bottom <= top:
        return np.zeros((size, size, 3), np.uint8)
    part = Image.fromarray(picture[top:bottom, left:right])
    shrink = max(1, int(square.side / size))
    if shrink > 1:  # means of blocks of pixels, where interpolation would skip pixels
        part = part.reduce(shrink)
    step = square.side / size / shrink
    x, y = (square.x - left) / shrink, (square.y - top) / shrink
    # The pixel (u, v) of the crop is at center + turn * step * (u - size / 2, v - size / 2).
    a, b, d, e = step * cos, -step * sin, step * sin, step * cos
    half = size / 2
    matrix = (a, b, x - half * (a + b), d, e, y - half * (d + e))
    turned = part.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(turned)


def to_picture(points: np.ndarray, square: Square) -> np.ndarray:
    """Points `[..., 2]` in shares of the crop's side as pixels of the picture."""
    return turn((points - 0.5) * square.side, square.angle) + np.array([square.x, square.y], points.dtype)


def turn(points: np.ndarray, angle: float) -> np.ndarray:
    """Points `[..., 2]` turned about the origin by `angle`, clockwise as seen in a picture."""
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.array([[cos, sin], [-sin, cos]], points.dtype)
    return points @ matrix
