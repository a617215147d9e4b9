"""Tracked poses: where the joints of each person are in each frame.

An estimator yields `FramePoses`, one for each frame, while a video or camera plays. `Poses` holds a whole sequence: it
is collected from an estimator, or read from a file.
"""

import dataclasses
import fractions
from collections.abc import Iterable, Sequence

import numpy as np

from mmcl_jax.data.layouts import LAYOUTS, Layout
from mmcl_jax.runtime.errors import MMCLError

PIXELS, SHARES, METRES = "pixels", "shares", "metres"
UNITS = (PIXELS, SHARES, METRES)


class PosesError(MMCLError, ValueError):
    """A video, a pose file, a model of an estimator or an option that cannot be used. Names it and the remedy."""


@dataclasses.dataclass(frozen=True)
class Person:
    """A person in one frame.

    Attributes:
      number: of the person, the same in all frames.
      joints: float32 `[V, C]`: x, y in pixels, y downwards.
      confidence: float32 `[V]`, 0 to 1.
      world: float32 `[V, 3]`: x, y, z in meters from the middle of the hips, y downwards; None if not estimated.
    """

    number: int
    joints: np.ndarray
    confidence: np.ndarray
    world: np.ndarray | None = None

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the joints, in pixels."""
        left, top = self.joints[:, :2].min(axis=0).tolist()
        right, bottom = self.joints[:, :2].max(axis=0).tolist()
        return left, top, right, bottom


@dataclasses.dataclass(frozen=True)
class FramePoses:
    """The persons in one frame.

    Attributes:
      number: of the frame, from 0, at a constant frame rate.
      time: in seconds from the first frame.
      persons: those who are seen, by number.
      picture: uint8 RGB `[H, W, 3]`.
    """

    number: int
    time: float
    persons: tuple[Person, ...]
    picture: np.ndarray = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Track:
    """One person over time, only in the frames in which the person is seen.

    Attributes:
      person: number of the person.
      frames: int `[n]`, numbers of the frames, ascending.
      joints: float32 `[n, V, C]`, C coordinates of each joint.
      confidence: float32 `[n, V]`, 0 to 1; 0: the joint was not found and its coordinates are meaningless.
      world: float32 `[n, V, 3]`, x, y, z in meters from the middle of the hips, y downwards; None if not estimated.
    """

    person: int
    frames: np.ndarray
    joints: np.ndarray
    confidence: np.ndarray
    world: np.ndarray | None = None

    def __post_init__(self):
        n = len(self.frames)
        if self.joints.ndim != 3 or len(self.joints) != n or self.confidence.shape != self.joints.shape[:2]:
            raise ValueError(
                f"track of {n} frames, joints {self.joints.shape} and confidence {self.confidence.shape} do not fit"
            )
        if n == 0 or (np.diff(self.frames) <= 0).any():
            raise ValueError("a track has at least one frame, and its frames ascend")

    @property
    def span(self) -> int:
        """The number of frames from the first to the last in which the person is seen, both included."""
        return int(self.frames[-1] - self.frames[0]) + 1


@dataclasses.dataclass(frozen=True)
class Poses:
    """Tracked poses of a video, a clip or a pose file.

    Attributes:
      tracks: the persons; a person has one track.
      num_frames: T, including frames without a person.
      layout: name in `mmcl_jax.data.layouts.LAYOUTS`, or a layout of its own.
      units: of the joints: PIXELS (y downwards), SHARES of the picture's width and height (y downwards), or METRES.
      frame_rate: frames a second; None: unknown.
      size: width and height of the picture in pixels; None: unknown.
      source: where the poses come from, for messages.
      notes: what reading and cleaning changed, one sentence each.
    """

    tracks: tuple[Track, ...]
    num_frames: int
    layout: str | Layout
    units: str = PIXELS
    frame_rate: float | None = None
    size: tuple[int, int] | None = None
    source: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        if self.units not in UNITS:
            raise ValueError(f"units {self.units!r}, expected one of {', '.join(UNITS)}")
        joints = self.skeleton_layout.num_joints
        for track in self.tracks:
            if track.joints.shape[1] != joints or track.frames[0] < 0 or track.frames[-1] >= self.num_frames:
                raise ValueError(
                    f"person {track.person}: {track.joints.shape[1]} joints in frames {track.frames[0]} to "
                    f"{track.frames[-1]}, expected {joints} joints in {self.num_frames} frames"
                )
        persons = [track.person for track in self.tracks]
        if len(set(persons)) != len(persons):
            raise ValueError(f"persons {persons}: a person has one track")

    @property
    def skeleton_layout(self) -> Layout:
        """The layout itself."""
        return LAYOUTS[self.layout] if isinstance(self.layout, str) else self.layout

    @property
    def persons(self) -> tuple[int, ...]:
        """Numbers of the persons."""
        return tuple(track.person for track in self.tracks)

    @property
    def num_coordinates(self) -> int:
        """C of the joints: 2 or 3. Without a track it is that of the units."""
        return self.tracks[0].joints.shape[-1] if self.tracks else 3 if self.units == METRES else 2

    def track(self, person: int) -> Track:
        """The track of a person. Raises: KeyError if there is none."""
        for track in self.tracks:
            if track.person == person:
                return track
        raise KeyError(person)

    def with_notes(self, *notes: str) -> "Poses":
        """The same poses with further notes."""
        return dataclasses.replace(self, notes=(*self.notes, *notes))

    def dense(self, persons: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Arrays over all frames, 0 where a person is not seen.

        Args:
          persons: their numbers, in the wanted order; None: everybody.

        Returns: joints float32 `[T, P, V, C]`, confidence float32 `[T, P, V]`, and world coordinates float32
          `[T, P, V, 3]` or None.
        """
        tracks = self.tracks if persons is None else [self.track(person) for person in persons]
        shape = (self.num_frames, len(tracks), self.skeleton_layout.num_joints)
        joints = np.zeros((*shape, self.num_coordinates), np.float32)
        confidence = np.zeros(shape, np.float32)
        has_world = bool(tracks) and all(track.world is not None for track in tracks)
        world = np.zeros((*shape, 3), np.float32) if has_world else None
        for place, track in enumerate(tracks):
            joints[track.frames, place] = track.joints
            confidence[track.frames, place] = track.confidence
            if world is not None:
                world[track.frames, place] = track.world
        return joints, confidence, world


def collect(
    frames: Iterable[FramePoses],
    layout: str | Layout,
    frame_rate: float | fractions.Fraction | None,
    size: tuple[int, int] | None,
    source: str = "",
) -> Poses:
    """The poses of a whole sequence from those of its frames."""
    seen: dict[int, list[tuple[int, Person]]] = {}
    num_frames = 0
    for frame in frames:
        num_frames = frame.number + 1
        for person in frame.persons:
            seen.setdefault(person.number, []).append((frame.number, person))
    tracks = []
    for number, found in sorted(seen.items()):
        worlds = [person.world for _, person in found if person.world is not None]
        tracks.append(
            Track(
                number,
                np.array([frame for frame, _ in found]),
                np.stack([person.joints for _, person in found]),
                np.stack([person.confidence for _, person in found]),
                np.stack(worlds) if len(worlds) == len(found) else None,
            )
        )
    rate = None if frame_rate is None else float(frame_rate)
    return Poses(tuple(tracks), num_frames, layout, PIXELS, rate, size, source)


def from_dense(joints: np.ndarray, confidence: np.ndarray, layout: str | Layout, **attributes) -> Poses:
    """Poses from arrays over all frames: the inverse of `Poses.dense`.

    Args:
      joints: `[T, P, V, C]`.
      confidence: `[T, P, V]`. A person is in the frames in which a joint has a confidence above 0.
      layout: name or layout.
      attributes: further attributes of Poses.
    """
    present = np.any(confidence > 0, axis=2)
    tracks = [
        Track(
            person,
            np.flatnonzero(present[:, person]),
            joints[present[:, person], person].astype(np.float32),
            confidence[present[:, person], person].astype(np.float32),
        )
        for person in range(present.shape[1])
        if present[:, person].any()
    ]
    return Poses(tuple(tracks), len(joints), layout, **attributes)
