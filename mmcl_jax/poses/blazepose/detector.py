"""BlazePose's person detector: what goes into the network, and persons out of what comes from it."""

import dataclasses

import numpy as np

from mmcl_jax.poses.blazepose.crops import Square, crop, square_of

SIZE = 224  # pixels of the network's input
_STRIDES = ((8, 2), (16, 2), (32, 6))  # pixels between anchors, and anchors at each place
_OVERLAP = 0.3  # of boxes of the same person
_POINTS = 4  # key points of a person; the first two give its square
_LARGEST_LOGIT = 100.0


@dataclasses.dataclass(frozen=True)
class Detection:
    """A person that was detected.

    Attributes:
      score: 0 to 1.
      square: around the person, for the landmark network.
    """

    score: float
    square: Square


def anchors() -> np.ndarray:
    """float32 `[2254, 2]`: centers of the anchors, in shares of the input's side."""
    layers = []
    for stride, repeats in _STRIDES:
        places = (np.arange(SIZE // stride, dtype=np.float32) + 0.5) * stride / SIZE
        y, x = np.meshgrid(places, places, indexing="ij")
        layers.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), repeats, axis=0))
    return np.concatenate(layers)


ANCHORS = anchors()


def network_input(picture: np.ndarray, region: Square) -> np.ndarray:
    """float32 `[1, 224, 224, 3]` from -1 to 1: the region of a picture."""
    return (crop(picture, region, SIZE).astype(np.float32) / 127.5 - 1)[np.newaxis]


def decode(boxes: np.ndarray, logits: np.ndarray, region: Square, least_score: float) -> list[Detection]:
    """Persons in what the network gives, the surest first.

    Args:
      boxes: float32 `[1, 2254, 12]`: center and size of each box, then four points, relative to the anchor, in pixels.
      logits: float32 `[1, 2254, 1]`.
      region: the part of the picture that the network saw.
      least_score: detections of less are dropped.
    """
    scores = 1 / (1 + np.exp(-np.clip(logits[0, :, 0].astype(np.float64), -_LARGEST_LOGIT, _LARGEST_LOGIT)))
    sure = np.flatnonzero(scores >= least_score)
    raw, centres, scores = boxes[0, sure] / SIZE, ANCHORS[sure], scores[sure]
    middles, sizes = raw[:, :2] + centres, raw[:, 2:4]
    points = raw[:, 4:].reshape(-1, _POINTS, 2) + centres[:, np.newaxis]
    edges = np.concatenate([middles - sizes / 2, middles + sizes / 2], axis=1)
    found = []
    for score, group, weights in _groups(edges, scores):
        person = np.average(points[group], axis=0, weights=weights)
        place = np.array([region.x - region.side / 2, region.y - region.side / 2]) + person * region.side
        found.append(Detection(float(score), square_of(place[0], place[1])))
    return found


def _groups(edges: np.ndarray, scores: np.ndarray) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Weighted non-maximum suppression: the boxes of each person with their weights, and the best score."""
    left, groups = np.argsort(-scores, kind="stable"), []
    while len(left):
        overlaps = overlap(edges[left[0]], edges[left]) > _OVERLAP
        overlaps[0] = True  # a box without an area overlaps nothing
        group = left[overlaps]
        groups.append((float(scores[left[0]]), group, scores[group]))
        left = left[~overlaps]
    return groups


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of a box `[4]` (left, top, right, bottom) with each of `boxes` `[n, 4]`."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = [np.prod(np.clip(each[..., 2:] - each[..., :2], 0, None), axis=-1) for each in (box, boxes)]
    union = areas[0] + areas[1] - shared
    return np.divide(shared, union, out=np.zeros_like(union), where=union > 0)
