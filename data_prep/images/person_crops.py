"""Person crops: cuts the person out of five frames of a clip and puts the crops side by side. Pure functions.

As published, each crop is resized to 480 x 96 regardless of its aspect ratio, and five crops make a 480 x 480 mosaic.
Pictures are uint8 RGB [H, W, 3]. A box is (left, top, right, bottom) in whole pixels; right and bottom are excluded.
"""

import dataclasses
import io
import json
from collections.abc import Callable

import numpy as np
from PIL import Image

CROPS = 5
CROP_HEIGHT, CROP_WIDTH = 480, 96
_JPEG_QUALITY = 90

Box = tuple[int, int, int, int]


def uniform_frame_indices(num_frames: int, m: int = CROPS) -> np.ndarray:
    """The middle frames of `m` equal parts of a clip: int64 [m], ascending; repeated if the clip is shorter."""
    return ((np.arange(m) + 0.5) * num_frames / m).astype(np.int64)


def joints_to_box(pixels: np.ndarray, frame_size: tuple[int, int], margin: float) -> Box | None:
    """The box around joints.

    Args:
      pixels: [..., 2], x and y of each joint (of all persons in the box), in pixels.
      frame_size: height and width of the frame.
      margin: added on every side, as a fraction of the longer side of the box; joints are inside the body.

    Returns: the box, clipped to the frame; None if a joint is not finite, or more than half of the box is outside the
    frame.
    """
    points = pixels.reshape(-1, 2)
    if not np.isfinite(points).all():
        return None
    low, high = points.min(axis=0), points.max(axis=0)
    padding = margin * (high - low).max()
    low, high = np.floor(low - padding), np.ceil(high + padding)
    height, width = frame_size
    clipped_low = np.maximum(low, 0)
    clipped_high = np.minimum(high, (width, height))
    if (clipped_high - clipped_low < 0.5 * (high - low)).any() or (clipped_high - clipped_low < 1).any():
        return None
    left, top, right, bottom = (int(value) for value in (*clipped_low, *clipped_high))
    return left, top, right, bottom


def persons_to_box(persons: list[np.ndarray], frame_size: tuple[int, int], margin: float) -> Box | None:
    """The box around persons, each given by the pixels [V, 2] of the joints; see `joints_to_box`.

    Joints that are not finite (out of the camera's reach) are left out, and so are persons with at most half of their
    joints left. None if nobody is left.
    """
    seen = []
    for pixels in persons:
        finite = pixels[np.isfinite(pixels).all(axis=-1)]
        if len(finite) > len(pixels) // 2:
            seen.append(finite)
    return joints_to_box(np.concatenate(seen), frame_size, margin) if seen else None


def detections_to_box(
    boxes: np.ndarray, confidences: np.ndarray, frame_size: tuple[int, int], num_persons: int
) -> Box | None:
    """The box around the `num_persons` main persons that a detector found, or around all of them if there are fewer.

    The main person has the greatest area times confidence, because detectors are as certain about bystanders.

    Args:
      boxes: [n, 4], left, top, right and bottom of each person, in pixels.
      confidences: [n].
      frame_size: height and width of the frame, to which the box is clipped.
      num_persons: the number of persons in the box.

    Returns: the box; None if nobody is in the frame.
    """
    height, width = frame_size
    inside = np.clip(boxes, 0, (width, height, width, height)).reshape(-1, 4)
    areas = np.prod(np.maximum(inside[:, 2:] - inside[:, :2], 0), axis=1)
    ranked = np.argsort(-areas * confidences, kind="stable")[:num_persons]
    main = inside[ranked[areas[ranked] > 0]]
    if not len(main):
        return None
    left, top = np.floor(main[:, :2].min(axis=0))
    right, bottom = np.ceil(main[:, 2:].max(axis=0))
    return int(left), int(top), int(right), int(bottom)


def sampled_frames(
    num_frames: int, box_in: Callable[[int], Box | None], m: int = CROPS
) -> list[tuple[int, Box]] | None:
    """The `m` uniformly sampled frames of a clip with the box of the person in each; None if no frame has a person.

    If a sampled frame has no person, the nearest frame that has one takes its place, in a tie the earlier. `box_in`
    returns the box in a frame and is called for as few frames as possible.
    """
    chosen = []
    for wanted in uniform_frame_indices(num_frames, m):
        found = next(((frame, box) for frame in _nearest_first(num_frames, wanted) if (box := box_in(frame))), None)
        if found is None:
            return None
        chosen.append(found)
    return chosen


def frames_to_search(num_frames: int, known: dict[int, Box | None], m: int = CROPS) -> list[int]:
    """The frames in which to look for persons next, when several are searched at once; ascending.

    First the sampled frames. Around those without a person, ever more neighbors: as many as were searched in vain. The
    list is empty when `known`, the box in each frame searched so far, decides what `sampled_frames` chooses.
    """
    search = set()
    for wanted in uniform_frame_indices(num_frames, m):
        in_vain, unknown = 0, []
        for frame in _nearest_first(num_frames, wanted):
            if frame not in known:
                unknown.append(frame)
            elif known[frame] is not None:
                break
            else:
                in_vain += 1
            if len(unknown) == max(1, in_vain):
                break
        search.update(unknown)
    return sorted(search)


def _nearest_first(num_frames: int, wanted: int) -> list[int]:
    """All frames by their distance from `wanted`, in a tie the earlier first."""
    return sorted(range(num_frames), key=lambda frame: abs(frame - wanted))


def mask_to_box(mask: np.ndarray) -> Box | None:
    """The box around the true pixels of `mask` [H, W]; None if there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def crop_and_resize(frame: np.ndarray, box: Box, height: int = CROP_HEIGHT, width: int = CROP_WIDTH) -> np.ndarray:
    """The part of `frame` in `box`, resized to [height, width, 3] (bilinear, antialiased, aspect ratio not kept)."""
    left, top, right, bottom = box
    part = Image.fromarray(np.ascontiguousarray(frame[top:bottom, left:right]))
    return np.array(part.resize((width, height), Image.Resampling.BILINEAR))


def mosaic(crops: list[np.ndarray]) -> np.ndarray:
    """Puts crops [H, W, 3] of one size side by side, in order: [H, n * W, 3]."""
    return np.concatenate(crops, axis=1)


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where the crops of a mosaic come from: frames of the video (from 0), box in each, size (H, W) of the frames."""

    frames: tuple[int, ...]
    boxes: tuple[Box, ...]
    size: tuple[int, int]


def encode_jpeg(picture: np.ndarray, origin: Origin | None = None) -> bytes:
    """The JPEG file of a picture. Its comment stores where the crops come from, if that is known."""
    stream = io.BytesIO()
    comment = {} if origin is None else {"comment": json.dumps(dataclasses.asdict(origin)).encode("ascii")}
    Image.fromarray(picture).save(stream, "JPEG", quality=_JPEG_QUALITY, **comment)
    return stream.getvalue()


def read_origin(picture: Image.Image) -> Origin | None:
    """Reads what `encode_jpeg` stored in an opened JPEG; None if it stores nothing, or nothing valid."""
    try:
        stored = json.loads(picture.info["comment"])
        frames, size = tuple(map(int, stored["frames"])), tuple(map(int, stored["size"]))
        boxes = tuple(tuple(map(int, box)) for box in stored["boxes"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None
    if len(frames) != len(boxes) or len(size) != 2 or any(len(box) != 4 for box in boxes):
        return None
    return Origin(frames, boxes, size)
