"""What the numbers of a pose file mean: which joints, which coordinates, and where people go from frame to frame."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mmcl_jax.data.layouts import LAYOUTS, Layout
from mmcl_jax.poses.tracker import Candidate, Tracker
from mmcl_jax.poses.types import METRES, PIXELS, SHARES, UNITS, Poses, PosesError, Track
from mmcl_jax.runtime.words import counted

# The joints that a number of joints tells, in two and three dimensions. Others need --layout.
FLAT = {13: "body13", 17: "coco", 18: "openpose18", 25: "body25", 26: "halpe26", 33: "blazepose33"}
SOLID = {17: "h36m17", 25: "ntu", 33: "blazepose33"}
# Files of the whole body: number of joints -> how many of the first are the body's, and their layout.
WHOLE_BODIES = {133: (17, "coco"), 136: (26, "halpe26")}
_SOLID_LAYOUTS = ("ntu", "nw_ucla", "utd_mhad", "h36m17")
USUAL_RATE = 30.0
_LARGEST_SCORE = 1.5  # those of heatmaps may exceed 1 a little
_LARGEST_SHARE = 2.0  # of the picture; a joint may be outside of it
_LARGEST_LENGTH = 20.0  # metres
_SMALLEST_PIXELS = 16.0  # an extent that shares and meters do not reach
_LARGEST_LANDMARK = 5.0  # MediaPipe's shares of the picture may lie far outside of it
_LARGEST_COORDINATE = 1e6  # in any units
_LARGEST_SIDE = 100_000  # of a picture, in pixels
_UNIT = 1000.0  # pixels to which shares and meters are scaled for tracking


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What the caller says about a file; None: the file tells, or is refused.

    Attributes:
      layout: name in LAYOUTS, or a layout.
      units: one of UNITS.
      frame_rate: frames a second.
      size: width and height of the picture in pixels.
    """

    layout: str | Layout | None = None
    units: str | None = None
    frame_rate: float | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self):
        if isinstance(self.layout, str) and self.layout not in LAYOUTS:
            raise PosesError(f"--layout={self.layout}: not one of {', '.join(LAYOUTS)}")
        if self.units is not None and self.units not in UNITS:
            raise PosesError(f"--coordinates={self.units}: not one of {', '.join(UNITS)}")

    @property
    def num_joints(self) -> int | None:
        """V of the layout."""
        if self.layout is None:
            return None
        return (LAYOUTS[self.layout] if isinstance(self.layout, str) else self.layout).num_joints


@dataclasses.dataclass(frozen=True)
class Seen:
    """A person in one frame of a file.

    Attributes:
      joints: float `[V, C]`, coordinates.
      confidence: float `[V]`; None: not stored.
      person: the file's own number of the person; None: it has none.
    """

    joints: np.ndarray
    confidence: np.ndarray | None = None
    person: int | str | None = None


def split_channels(
    values: np.ndarray, meaning: Meaning, scored: bool | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Coordinates and confidence out of the numbers of each joint.

    Args:
      values: `[..., V, C]`: x, y | x, y, confidence | x, y, z | x, y, z, confidence | x, y, z, visibility, presence.
      meaning: what the caller says.
      scored: whether the third of three numbers is a confidence; None: the layout or the numbers tell.

    Raises: PosesError if the numbers cannot be that.
    """
    count = values.shape[-1]
    if count == 2:
        return values, None
    if count == 3:
        if scored is None:
            scored = _third_is_confidence(values, meaning)
        return (values[..., :2], values[..., 2]) if scored else (values, None)
    if count in (4, 5):
        return values[..., :3], values[..., 3]
    raise PosesError(f"{count} numbers for each joint, expected 2 to 5: x, y, z or x, y, and a confidence")


def _third_is_confidence(values: np.ndarray, meaning: Meaning) -> bool:
    """Whether x, y are followed by a confidence, not by z. Raises: PosesError if nothing tells."""
    if meaning.layout in _SOLID_LAYOUTS or meaning.units == METRES:
        return False
    third = values[..., 2][np.isfinite(values[..., 2])]
    if len(third) == 0 or (third.min() >= 0 and third.max() <= _LARGEST_SCORE):
        return True
    if meaning.layout is None and values.shape[-2] not in SOLID:
        raise PosesError(_ASK_THIRD)
    return False


_ASK_THIRD = (
    "three numbers for each joint, of which the last may be z or a confidence; name the joints with --layout (ntu, "
    "nw_ucla, utd_mhad and h36m17 have z), or the units with --coordinates"
)


def find_layout(num_joints: int, coordinates: int, meaning: Meaning) -> tuple[str | Layout, int]:
    """The layout of joints, and how many of a file's first joints belong to it.

    Raises: PosesError if `meaning` contradicts the number, or nobody tells the joints.
    """
    if meaning.layout is not None:
        expected = meaning.num_joints
        assert expected is not None
        whole = WHOLE_BODIES.get(num_joints)
        if num_joints == expected or (whole is not None and whole[0] == expected):
            return meaning.layout, expected
        named = f"--layout={meaning.layout} has" if isinstance(meaning.layout, str) else "the layout has"
        raise PosesError(f"{num_joints} joints, but {named} {expected}")
    if coordinates == 2 and num_joints in WHOLE_BODIES:
        kept, layout = WHOLE_BODIES[num_joints]
        return layout, kept
    layout = (SOLID if coordinates == 3 else FLAT).get(num_joints)
    if layout is None:
        known = ", ".join(name for name, each in LAYOUTS.items() if each.num_joints == num_joints)
        raise PosesError(
            f"{num_joints} joints of {coordinates} coordinates; name their layout with --layout"
            + (f" ({known})" if known else f" (one of {', '.join(LAYOUTS)}) or describe it: docs/own-layout.md")
        )
    return layout, num_joints


def find_units(joints: np.ndarray, found: np.ndarray, meaning: Meaning, usual: str | None = None) -> str:
    """The units of coordinates.

    Args:
      joints: `[..., C]`.
      found: `[...]`, which joints were found.
      meaning: what the caller says.
      usual: the units of the file's format; None: the numbers tell.

    Raises: PosesError if the numbers contradict `meaning`, or do not tell.
    """
    values = np.abs(joints[found])
    largest = float(values.max()) if values.size else 0.0
    units = meaning.units or usual
    if units == SHARES and largest > (_LARGEST_LANDMARK if usual else _LARGEST_SHARE):
        raise PosesError(f"a coordinate of {largest:g}, which is no share of the picture; pass --coordinates=pixels")
    if meaning.units is None and units == PIXELS and 0 < largest <= _LARGEST_SHARE:
        if joints[found].min() < 0:
            raise PosesError(
                f"no coordinate exceeds {largest:g} and some are negative, where pixels are usual; pass --coordinates="
                "shares, pixels or metres"
            )
        return SHARES
    if units is not None:
        return units
    if joints.shape[-1] == 3:
        if largest <= _LARGEST_LENGTH:
            return METRES
        raise PosesError(
            f"a coordinate of {largest:g} in three dimensions, which cannot be meters; divide by 1000 if they are "
            "millimeters, or pass --coordinates=pixels"
        )
    if largest > _SMALLEST_PIXELS:
        return PIXELS
    if largest <= _LARGEST_SHARE and values.size and joints[found].min() >= 0:
        return SHARES
    raise PosesError(
        f"coordinates from {joints[found].min():g} to {joints[found].max():g}, which may be shares of the picture, "
        "pixels or meters; pass --coordinates=shares, pixels or metres"
    )


def picture_size(width: float, height: float) -> tuple[int, int]:
    """Width and height of a picture, as a file states them, in whole pixels. Raises: PosesError."""
    for what, side in (("width", width), ("height", height)):
        if not 1 <= side <= _LARGEST_SIDE:
            shown = f"{min(max(side, -1e9), 1e9):g}"  # Python does not write out numbers of thousands of digits
            raise PosesError(f"a picture's {what} is {shown}, expected 1 to {_LARGEST_SIDE} pixels")
    return int(width), int(height)


def build(
    frames: Sequence[Sequence[Seen]],
    meaning: Meaning,
    source: str,
    *,
    usual_units: str | None = None,
    frame_rate: float | None = None,
    size: tuple[int, int] | None = None,
    layout: str | Layout | None = None,
    notes: tuple[str, ...] = (),
) -> Poses:
    """Poses of the persons in each frame of a file; persons without a number are followed by place.

    Args:
      frames: the persons in each frame.
      meaning: what the caller says; it goes first.
      source: for messages.
      usual_units, frame_rate, size, layout: of the file's format; None: unknown.
      notes: about reading.

    Raises: PosesError, without the file's name.
    """
    everybody = [seen for frame in frames for seen in frame]
    shapes = {seen.joints.shape for seen in everybody}
    if len(shapes) > 1:
        raise PosesError(f"persons of {sorted(shapes)} joints and coordinates in one file, expected the same for all")
    if not everybody:
        raise PosesError(f"nobody in any of its {counted(len(frames), 'frame')}")
    num_joints, coordinates = shapes.pop()
    chosen, kept = find_layout(num_joints, coordinates, dataclasses.replace(meaning, layout=meaning.layout or layout))
    if coordinates == 3 and meaning.layout is None and layout is None and num_joints == 17:
        notes = (*notes, "17 joints of three coordinates are taken for Human3.6M's; --layout names others")
    frames = [[_cleaned(seen, kept) for seen in frame] for frame in frames]
    if coordinates == 3 and chosen == "blazepose33":
        usual_units = meaning.units or _units_of_landmarks(frames)
        if usual_units != METRES:  # z of MediaPipe's picture landmarks is a guess in other units
            frames = [[dataclasses.replace(seen, joints=seen.joints[:, :2]) for seen in frame] for frame in frames]
            notes = (*notes, "z of the landmarks in the picture is left out")
    joints = np.stack([seen.joints for frame in frames for seen in frame])
    found = np.stack([_confidence(seen) > 0 for frame in frames for seen in frame])
    if not found.any():
        raise PosesError(f"no joint was found in any of its {counted(len(frames), 'frame')}")
    units = find_units(joints, found, meaning, usual_units)
    rate = meaning.frame_rate or frame_rate
    tracks = _tracks(frames, units, rate or USUAL_RATE)
    picture = meaning.size or size
    return Poses(tracks, len(frames), chosen, units, rate, picture, source, notes)


def _units_of_landmarks(frames: Sequence[Sequence[Seen]]) -> str:
    """MediaPipe's landmarks: meters from the middle of the hips, or x and y in the picture."""
    joints = np.stack([seen.joints for frame in frames for seen in frame if _confidence(seen).any()])
    hips = joints[:, 23:25, :2].mean(axis=1)
    if np.abs(hips).max() < 0.1 and np.abs(joints).max() > 0.2:
        return METRES
    return SHARES if np.abs(joints[..., :2]).max() < _LARGEST_LANDMARK else PIXELS


def _cleaned(seen: Seen, kept: int) -> Seen:
    """A person of the first `kept` joints; joints that are not numbers, or zero without a score, were not found.

    Raises: PosesError for a coordinate that no joint has.
    """
    exact = np.asarray(seen.joints)[:kept]
    sound = np.all(np.isfinite(exact), axis=1)
    largest = np.abs(exact[sound]).max(initial=0)
    if largest > _LARGEST_COORDINATE:
        raise PosesError(f"a coordinate of {largest:g}, which no joint has")
    joints = np.where(sound[:, np.newaxis], exact, 0).astype(np.float32)
    if seen.confidence is None:
        confidence = np.where(sound & joints.any(axis=1), 1, 0)
    else:
        given = np.clip(np.nan_to_num(np.asarray(seen.confidence)[:kept]), 0, 1)
        confidence = np.where(sound, given, 0)
    joints = np.where(confidence[:, np.newaxis] > 0, joints, 0)
    return Seen(joints.astype(np.float32), confidence.astype(np.float32), seen.person)


def _confidence(seen: Seen) -> np.ndarray:
    assert seen.confidence is not None  # `_cleaned` gives one
    return seen.confidence


def _tracks(frames: Sequence[Sequence[Seen]], units: str, rate: float) -> tuple[Track, ...]:
    """The persons over time, by the file's numbers or, if a person has none, by place."""
    scale = 1.0 if units == PIXELS else _UNIT
    tracker = Tracker(rate, most=max(len(frame) for frame in frames))
    rows: dict[int | str, list[tuple[int, Seen]]] = {}
    for number, frame in enumerate(frames):
        present = [seen for seen in frame if _confidence(seen).any()]
        named = {seen.person for seen in present}
        by_file = None not in named and len(named) == len(present)
        if by_file:
            persons: list[int | str | None] = [seen.person for seen in present]
        else:
            candidates = [Candidate(seen.joints[:, :2] * scale, _confidence(seen), np.zeros(1)) for seen in present]
            persons = [None if each is None else f"followed {each}" for each in tracker.update(number, candidates)]
        for person, seen in zip(persons, present, strict=True):
            if person is not None:
                rows.setdefault(person, []).append((number, seen))
    return tuple(
        Track(
            number,
            np.array([frame for frame, _ in found]),
            np.stack([seen.joints for _, seen in found]),
            np.stack([_confidence(seen) for _, seen in found]),
        )
        for number, found in enumerate(rows.values())
    )
