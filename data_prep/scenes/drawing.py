"""Draws the crops of the synthetic dataset: people, the objects they hold, and a room.

All coordinates are the camera's, in meters: x to the right of the picture, y up, z away from the camera, as in Kinect's
mirrored pictures. A point appears at column x / z and row -y / z.
"""

import dataclasses

import numpy as np
from PIL import Image, ImageDraw

from data_prep.images import person_crops
from data_prep.scenes import figure

_MARGIN = 0.13  # meters around the joints: the head and the hands are larger than their joints
_NEAREST = 1.0  # meters; a ball that flies past the camera is not drawn
_TRUNK = (figure.SHOULDER_LEFT, figure.SHOULDER_RIGHT, figure.HIP_RIGHT, figure.HIP_LEFT)
_SHIRTS = (
    (200, 60, 50),
    (50, 110, 190),
    (60, 150, 80),
    (220, 170, 50),
    (140, 80, 160),
    (70, 160, 170),
    (235, 235, 235),
)
_TROUSERS = ((40, 50, 80), (70, 70, 75), (110, 85, 60), (30, 90, 100), (95, 105, 70))
_SKINS = ((240, 200, 170), (220, 175, 140), (175, 125, 90), (125, 85, 60))
_HAIRS = ((40, 30, 25), (100, 65, 35), (200, 165, 90), (130, 130, 130))
_WALLS = ((214, 208, 196), (190, 204, 212), (206, 214, 190))
_FLOORS = ((150, 126, 100), (120, 124, 130), (134, 112, 112))


@dataclasses.dataclass(frozen=True)
class Clothes:
    """Colors of one person, RGB."""

    shirt: tuple[int, int, int]
    trousers: tuple[int, int, int]
    skin: tuple[int, int, int]
    hair: tuple[int, int, int]


def sample_clothes(rng: np.random.Generator) -> Clothes:
    """Draws the looks of a person."""
    return Clothes(*(colors[rng.integers(len(colors))] for colors in (_SHIRTS, _TROUSERS, _SKINS, _HAIRS)))


@dataclasses.dataclass(frozen=True)
class Person:
    """One person in camera coordinates, meters: joints [T, 25, 3], marks of the head [T, 5, 3] (see `head_marks`)."""

    joints: np.ndarray
    marks: np.ndarray
    clothes: Clothes


@dataclasses.dataclass(frozen=True)
class Thing:
    """An object or a piece of furniture in camera coordinates: its place [T, 3] and three axes [T, 3, 3].

    The axes are rows: along its direction, up, and to the side; held objects use only the first.
    """

    kind: str
    place: np.ndarray
    axes: np.ndarray


def head_marks(person: figure.Figure) -> np.ndarray:
    """The points that make up a head, [T, 5, 3], meters, in the figure's coordinates: hair, face, both eyes, mouth."""
    offsets = ((0, 0.03, -0.03), (0, -0.01, 0.025), (0.04, 0.02, 0.11), (-0.04, 0.02, 0.11), (0, -0.055, 0.11))
    return np.stack([person.by_head(*offset) for offset in offsets], axis=1)


def draw_crops(people: list[Person], things: list[Thing], camera: int, floor: float) -> list[np.ndarray]:
    """Draws the crops of a clip.

    Args:
      people: one or two.
      things: the other things in the scene.
      camera: number of the camera; each has its own background.
      floor: y of the floor, meters, negative.

    Returns: five pictures uint8 [480, 96, 3] of uniformly sampled frames, each showing the box around everybody.
    """
    indices = person_crops.uniform_frame_indices(len(people[0].joints))
    return [_draw_crop(people, things, int(index), camera, floor) for index in indices]


def _draw_crop(people, things, index: int, camera: int, floor: float) -> np.ndarray:
    joints = np.concatenate([person.joints[index] for person in people])
    canvas = _Canvas(joints)
    _draw_room(canvas, camera, floor, float(joints[:, 2].mean()))
    furniture = {thing.kind: thing for thing in things}
    if "chair" in furniture:
        _draw_chair(canvas, furniture["chair"], index, floor)
    for person in sorted(people, key=lambda person: -person.joints[index, figure.SPINE_MID, 2]):
        _draw_trunk(canvas, person, index)
        if "table" in furniture:
            _draw_table(canvas, furniture["table"], index, floor)
            for kind in ("paper", "keyboard"):
                if kind in furniture:
                    _draw_on_table(canvas, furniture[kind], index)
        _draw_arms(canvas, person, index, near=True)
    for thing in things:
        if thing.kind in _OBJECTS and thing.place[index, 2] > _NEAREST:
            _OBJECTS[thing.kind](_Brush(canvas, thing, index))
    for person in people:
        for hand in (figure.HAND_LEFT, figure.HAND_RIGHT):
            canvas.disc(person.joints[index, hand], 0.042, person.clothes.skin)
    return canvas.crop()


class _Canvas:
    """The picture of one box, drawn with square pixels and resized to the shape of a crop at the end."""

    def __init__(self, joints: np.ndarray):
        """The box is that around `joints` [K, 3], with a margin."""
        seen = joints[:, :2] * (1, -1) / joints[:, 2:]
        margin = _MARGIN / joints[:, 2].mean()
        self._low, high = seen.min(axis=0) - margin * np.array([1, 1.4]), seen.max(axis=0) + margin
        self._scale = person_crops.CROP_HEIGHT / (high - self._low)[1]
        width = max(person_crops.CROP_WIDTH, round((high - self._low)[0] * self._scale))
        self.image = Image.new("RGB", (width, person_crops.CROP_HEIGHT))
        self.draw = ImageDraw.Draw(self.image)

    def point(self, point: np.ndarray) -> tuple[float, float]:
        """The pixel of a point [3]."""
        x, y = (point[:2] * (1, -1) / point[2] - self._low) * self._scale
        return float(x), float(y)

    def per_meter(self, point: np.ndarray) -> float:
        """Pixels per meter at the depth of `point`."""
        return float(self._scale / point[2])

    def limb(self, start, end, width: float, color) -> None:
        """Draws a capsule between two points, `width` in meters."""
        radius = 0.5 * width * self.per_meter(start)
        ends = (self.point(start), self.point(end))
        self.draw.line(ends, fill=color, width=max(2, round(2 * radius)))
        for x, y in ends:
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def disc(self, center, radius: float, color) -> None:
        """Draws a disc, `radius` in meters."""
        x, y = self.point(center)
        radius *= self.per_meter(center)
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def area(self, points, color) -> None:
        """Draws a filled polygon of points [K, 3]."""
        self.draw.polygon([self.point(point) for point in points], fill=color)

    def crop(self) -> np.ndarray:
        """The picture as a crop, uint8 [480, 96, 3]."""
        size = (person_crops.CROP_WIDTH, person_crops.CROP_HEIGHT)
        return np.asarray(self.image.resize(size, Image.Resampling.BILINEAR))


def _shade(color, factor: float) -> tuple[int, ...]:
    return tuple(int(min(255, channel * factor)) for channel in color)


def _draw_room(canvas: _Canvas, camera: int, floor: float, depth: float) -> None:
    """Draws wall, floor and a picture on the wall; each camera has its own."""
    wall, ground = _WALLS[camera % len(_WALLS)], _FLOORS[camera % len(_FLOORS)]
    width, height = canvas.image.size
    edge = canvas.point(np.array([0, floor, depth + 1.5]))[1]
    canvas.draw.rectangle((0, 0, width, edge), fill=wall)
    canvas.draw.rectangle((0, edge, width, height), fill=ground)
    left, top = canvas.point(np.array([-1.3 + 1.1 * camera, 0.7, depth + 1.5]))
    right, bottom = canvas.point(np.array([-0.5 + 1.1 * camera, 0.1, depth + 1.5]))
    canvas.draw.rectangle((left, top, right, bottom), fill=_shade(wall, 0.88))


def _draw_trunk(canvas: _Canvas, person: Person, index: int) -> None:
    """Draws a person except for the arms in front of the trunk: far arms first, then legs, trunk and head."""
    joints, clothes = person.joints[index], person.clothes
    _draw_arms(canvas, person, index, near=False)
    for leg in sorted(figure.LEGS.values(), key=lambda leg: -joints[leg[1], 2]):
        hip, knee, ankle, foot = joints[list(leg)]
        canvas.limb(hip, knee, 0.15, clothes.trousers)
        canvas.limb(knee, ankle, 0.11, _shade(clothes.trousers, 0.9))
        canvas.limb(ankle, foot, 0.09, (35, 30, 30))
    canvas.area(joints[list(_TRUNK)], clothes.shirt)
    for start, end in zip(_TRUNK, (*_TRUNK[1:], _TRUNK[0]), strict=True):
        canvas.limb(joints[start], joints[end], 0.13, clothes.shirt)
    canvas.limb(joints[figure.SPINE_SHOULDER], joints[figure.HEAD], 0.09, _shade(clothes.skin, 0.9))
    hair, face, *features = person.marks[index]
    parts = [(hair, 0.125, clothes.hair), (face, 0.108, clothes.skin)]
    for center, radius, color in sorted(parts, key=lambda part: -part[0][2]):
        canvas.disc(center, radius, color)
    for mark, color in zip(features, ((30, 30, 30), (30, 30, 30), (170, 60, 60)), strict=True):
        if mark[2] < face[2]:
            canvas.disc(mark, 0.016, color)


def _draw_arms(canvas: _Canvas, person: Person, index: int, near: bool) -> None:
    """Draws the arms whose elbow and hand are in front of the trunk (`near`), or the others."""
    joints, clothes = person.joints[index], person.clothes
    depth = joints[figure.SPINE_MID, 2]
    for arm in figure.ARMS.values():
        shoulder, elbow, wrist, hand, tip, thumb = joints[list(arm)]
        if (0.5 * (elbow[2] + hand[2]) < depth) != near:
            continue
        sleeve = _shade(clothes.shirt, 0.8)
        canvas.limb(shoulder, elbow, 0.105, sleeve)
        canvas.limb(elbow, wrist, 0.085, sleeve)
        canvas.limb(wrist, tip, 0.065, clothes.skin)
        canvas.limb(hand, thumb, 0.035, clothes.skin)


def _corners(thing: Thing, index: int, depth: float, width: float, up: float = 0.0, back: float = 0.0) -> np.ndarray:
    """Corners [4, 3] of a level rectangle, meters, `up` above the place of a thing and `back` behind it."""
    along, upward, side = thing.axes[index]
    center = thing.place[index] + up * upward - back * along
    return np.stack(
        [center + a * depth / 2 * along + s * width / 2 * side for a, s in ((1, 1), (1, -1), (-1, -1), (-1, 1))]
    )


def _on_floor(point: np.ndarray, floor: float) -> np.ndarray:
    return np.array([point[0], floor, point[2]])


def _draw_chair(canvas: _Canvas, chair: Thing, index: int, floor: float) -> None:
    seat = _corners(chair, index, 0.42, 0.42)
    for corner in seat:
        canvas.limb(corner, _on_floor(corner, floor), 0.035, (85, 60, 40))
    top = seat[2:] + 0.45 * chair.axes[index, 1]
    canvas.area([seat[2], seat[3], top[1], top[0]], (150, 105, 65))
    canvas.area(seat, (170, 120, 75))


def _draw_table(canvas: _Canvas, table: Thing, index: int, floor: float) -> None:
    top = _corners(table, index, 0.55, 0.95)
    for corner in top:
        canvas.limb(corner, _on_floor(corner, floor), 0.04, (100, 75, 55))
    canvas.area(top - 0.03 * table.axes[index, 1], (120, 90, 60))
    canvas.area(top, (196, 160, 116))


def _draw_on_table(canvas: _Canvas, thing: Thing, index: int) -> None:
    """Draws a sheet of paper with lines, or a keyboard with rows of keys."""
    if thing.kind == "paper":
        sheet, ink, depth, width = (252, 252, 252), (150, 160, 190), 0.3, 0.4
    else:
        sheet, ink, depth, width = (45, 48, 55), (225, 230, 235), 0.24, 0.56
    canvas.area(_corners(thing, index, depth, width), sheet)
    for row in (-0.3, 0.0, 0.3):
        line = _corners(thing, index, 0.0, 0.85 * width, up=0.003, back=row * depth)
        ends = [canvas.point(line[0]), canvas.point(line[1])]
        if thing.kind == "paper":
            canvas.draw.line(ends, fill=ink, width=2)
            continue
        (left, top), (right, bottom) = ends
        for key in np.linspace(0, 1, 9):
            x, y = left + key * (right - left), top + key * (bottom - top)
            canvas.draw.rectangle((x - 3, y - 2, x + 3, y + 2), fill=ink)


class _Brush:
    """Draws in an object's plane: `along` its axis and `across` it, in meters from its place."""

    def __init__(self, canvas: _Canvas, thing: Thing, index: int):
        self._draw = canvas.draw
        place = thing.place[index]
        self._origin = np.array(canvas.point(place))
        self._scale = canvas.per_meter(place)
        axis = thing.axes[index, 0, :2] * (1, -1)
        length = np.linalg.norm(axis)
        straight = axis / length if length > 1e-6 else np.array([0.0, -1.0])
        self._along = straight * max(length, 0.6)  # an object that points at the camera keeps some length
        self._across = np.array([-straight[1], straight[0]])

    def area(self, points, color) -> None:
        """Draws a polygon of (along, across) points."""
        pixels = [self._pixel(*point) for point in points]
        self._draw.polygon(pixels, fill=color)

    def box(self, start: float, end: float, width: float, color) -> None:
        """Draws a rectangle from `start` to `end` along the axis."""
        half = width / 2
        self.area([(start, -half), (end, -half), (end, half), (start, half)], color)

    def disc(self, along: float, across: float, radius: float, color) -> None:
        """Draws a disc."""
        x, y = self._pixel(along, across)
        radius *= self._scale
        self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def _pixel(self, along: float, across: float) -> tuple[float, float]:
        x, y = self._origin + self._scale * (along * self._along + across * self._across)
        return float(x), float(y)


def _cup(brush: _Brush) -> None:
    brush.disc(0.02, 0.1, 0.06, (215, 25, 45))
    brush.disc(0.02, 0.1, 0.03, (230, 225, 220))
    brush.area([(-0.1, -0.07), (-0.1, 0.07), (0.13, 0.1), (0.13, -0.1)], (215, 25, 45))
    brush.box(0.0, 0.05, 0.17, (255, 255, 255))


def _phone(brush: _Brush) -> None:
    brush.box(-0.1, 0.17, 0.15, (15, 15, 20))
    brush.box(-0.07, 0.14, 0.11, (40, 225, 250))


def _toothbrush(brush: _Brush) -> None:
    brush.box(-0.12, 0.16, 0.04, (240, 40, 170))
    brush.area([(0.08, 0.0), (0.16, 0.0), (0.16, -0.07), (0.08, -0.07)], (250, 250, 255))


def _sandwich(brush: _Brush) -> None:
    brush.area([(-0.04, -0.13), (-0.04, 0.13), (0.17, 0.0)], (226, 178, 96))
    brush.area([(-0.04, -0.13), (-0.04, 0.13), (0.0, 0.11), (0.0, -0.11)], (70, 170, 50))
    brush.box(-0.08, -0.04, 0.27, (200, 145, 70))


def _pen(brush: _Brush) -> None:
    brush.box(-0.1, 0.24, 0.045, (25, 60, 230))
    brush.area([(-0.1, -0.022), (-0.1, 0.022), (-0.15, 0.0)], (10, 10, 10))


def _book(brush: _Brush) -> None:
    brush.box(-0.15, 0.15, 0.23, (120, 30, 150))
    brush.area([(-0.13, 0.06), (0.13, 0.06), (0.13, 0.11), (-0.13, 0.11)], (245, 240, 225))
    brush.box(0.03, 0.08, 0.12, (250, 215, 70))


def _ball(brush: _Brush) -> None:
    brush.disc(0, 0, 0.12, (110, 50, 10))
    brush.disc(0, 0, 0.11, (250, 130, 20))
    brush.box(-0.11, 0.11, 0.016, (110, 50, 10))
    brush.area([(-0.008, -0.11), (0.008, -0.11), (0.008, 0.11), (-0.008, 0.11)], (110, 50, 10))


def _football(brush: _Brush) -> None:
    brush.disc(0, 0, 0.13, (30, 30, 30))
    brush.disc(0, 0, 0.12, (250, 250, 250))
    for along, across in ((0, 0), (0.09, 0.03), (-0.05, 0.08), (-0.05, -0.08), (0.05, -0.08)):
        brush.disc(along, across, 0.035, (20, 20, 20))


_OBJECTS = {
    "cup": _cup,
    "phone": _phone,
    "toothbrush": _toothbrush,
    "sandwich": _sandwich,
    "pen": _pen,
    "book": _book,
    "ball": _ball,
    "football": _football,
}
