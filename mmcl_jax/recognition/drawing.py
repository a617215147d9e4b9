"""Draws on pictures: each person's skeleton, box and action, large enough to read on a phone."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcl_jax.data.layouts import Layout
from mmcl_jax.poses.types import Person

# Colors that differ for most eyes, also on dark and light pictures (Okabe and Ito's palette without black).
COLORS = ((0, 158, 230), (230, 120, 0), (0, 175, 120), (213, 60, 120), (240, 200, 40), (110, 90, 220), (200, 200, 200))
_LEAST_CONFIDENCE = 0.3  # of both ends of a bone that is drawn
_LINES_A_PICTURE = 16  # of text in a picture's shorter side


def draw(
    picture: np.ndarray,
    persons: Sequence[Person],
    layout: Layout,
    labels: Mapping[int, tuple[str | None, float]],
    footer: str = "",
) -> np.ndarray:
    """The picture, uint8 RGB `[H, W, 3]`, with persons drawn on it.

    Args:
      picture: uint8 RGB `[H, W, 3]`, which stays as it is.
      persons: in this frame.
      layout: of their joints.
      labels: action and probability by person; the action None is shown as unknown. Persons without one have no label.
      footer: a line at the bottom.
    """
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    canvas = ImageDraw.Draw(image)
    size = max(11, min(image.size) // _LINES_A_PICTURE)
    width = max(2, size // 7)
    for person in persons:
        color = COLORS[person.number % len(COLORS)]
        sure = person.confidence >= _LEAST_CONFIDENCE
        for joint, parent in layout.bones:
            if sure[joint] and sure[parent]:
                ends = [tuple(person.joints[end, :2].tolist()) for end in (joint, parent)]
                canvas.line(ends, fill=color, width=width)
        if not sure.any():
            continue
        left, top = person.joints[sure, :2].min(axis=0).tolist()
        right, bottom = person.joints[sure, :2].max(axis=0).tolist()
        margin = 0.08 * max(right - left, bottom - top)
        box = (
            max(left - margin, 0),
            max(top - margin, 0),
            min(right + margin, image.width - 1),
            min(bottom + margin, image.height - 1),
        )
        if box[2] <= box[0] or box[3] <= box[1]:
            continue
        canvas.rectangle(box, outline=color, width=width)
        if person.number in labels:
            action, probability = labels[person.number]
            text = "unknown action" if action is None else f"{action} {100 * probability:.0f} %"
            _label(canvas, (box[0], box[1]), text, color, size, image.size)
    if footer:
        _label(canvas, (0, image.height), footer, (40, 40, 40), max(11, size * 2 // 3), image.size)
    return np.asarray(image)


def _label(
    canvas: Any,
    corner: tuple[float, float],
    text: str,
    color: tuple[int, int, int],
    size: int,
    picture: tuple[int, int],
) -> None:
    """Text on a ground of `color`, above `corner` if there is room, always inside the picture."""
    font = _font(size)
    while size > 9 and canvas.textlength(text, font=font) > 0.96 * picture[0]:
        size -= 1
        font = _font(size)
    pad = size / 4
    wide, high = canvas.textlength(text, font=font) + 2 * pad, size * 1.3 + pad
    left = min(max(corner[0], 0), max(picture[0] - wide, 0))
    top = min(max(corner[1] - high, 0), max(picture[1] - high, 0))
    bright = sum(color) > 420
    canvas.rectangle((left, top, left + wide, top + high), fill=color)
    canvas.text((left + pad, top + pad / 2), text, fill=(0, 0, 0) if bright else (255, 255, 255), font=font)


@functools.cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
