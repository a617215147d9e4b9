"""BlazePose's landmark network: what goes into it, and joints out of what comes from it."""

import dataclasses

import numpy as np

from mmcl_jax.poses.blazepose.crops import Square, crop, square_of, to_picture, turn

SIZE = 256  # pixels of the network's input
NUM_JOINTS = 33
_NUM_POINTS = 39  # the joints, two points for the next frame's square, and four that are not used
_HEATMAP_WINDOW = 7
_LEAST_HEAT = 0.5  # for a joint to be refined


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """A person as the network sees it.

    Attributes:
      presence: 0 to 1, that there is a person at all.
      joints: float32 `[33, 2]`, pixels of the picture.
      visibility: float32 `[33]`, 0 to 1.
      world: float32 `[33, 3]`, meters from the middle of the hips; x to the right and y downwards in the picture, z
        away from the camera.
      square: where to look for the person in the next frame.
    """

    presence: float
    joints: np.ndarray
    visibility: np.ndarray
    world: np.ndarray
    square: Square


def network_input(picture: np.ndarray, square: Square) -> np.ndarray:
    """float32 `[1, 256, 256, 3]` from 0 to 1: the square around a person, turned upright."""
    return (crop(picture, square, SIZE).astype(np.float32) / 255)[np.newaxis]


def decode(
    points: np.ndarray, presence: np.ndarray, heatmaps: np.ndarray, world: np.ndarray, square: Square
) -> Landmarks:
    """The person in what the network gives for a square.

    Args:
      points: float32 `[1, 195]`: 39 of x, y, z in pixels of the crop, and the logits of visibility and presence.
      presence: float32 `[1, 1]`.
      heatmaps: float32 `[1, 64, 64, 39]`, logits.
      world: float32 `[1, 117]`: 39 of x, y, z in meters, turned as the crop.
      square: that the network saw.
    """
    points = points.reshape(_NUM_POINTS, 5)
    places = _refine(points[:, :2] / SIZE, heatmaps[0])
    visibility = _sigmoid(points[:NUM_JOINTS, 3])
    metric = world.reshape(_NUM_POINTS, 3)[:NUM_JOINTS].copy()
    metric[:, :2] = turn(metric[:, :2], square.angle)
    pixels = to_picture(places, square)
    return Landmarks(
        float(presence.reshape(())),
        pixels[:NUM_JOINTS],
        visibility,
        metric,
        square_of(pixels[NUM_JOINTS], pixels[NUM_JOINTS + 1]),
    )


def _refine(places: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """Moves points `[39, 2]` (shares of the side) to the center of heat around them, where there is enough of it."""
    height, width, _ = heatmaps.shape
    reach = (_HEATMAP_WINDOW - 1) // 2
    refined = places.copy()
    for number, (x, y) in enumerate(places):
        column, row = int(x * width), int(y * height)
        if not (0 <= column < width and 0 <= row < height):
            continue
        top, left = max(0, row - reach), max(0, column - reach)
        heat = _sigmoid(heatmaps[top : row + reach + 1, left : column + reach + 1, number])
        if heat.max() < _LEAST_HEAT:
            continue
        total = heat.sum()
        refined[number] = (
            (heat.sum(axis=0) @ (left + np.arange(heat.shape[1]))) / total / width,
            (heat.sum(axis=1) @ (top + np.arange(heat.shape[0]))) / total / height,
        )
    return refined


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
