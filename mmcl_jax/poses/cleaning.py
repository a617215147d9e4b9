"""Cleans tracked poses: fills short gaps, smooths by choice, and chooses the persons who act.

Everything that is changed or left out is said in the notes of the poses.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np

from mmcl_jax.poses.types import FramePoses, Poses, Track
from mmcl_jax.runtime.words import counted

USUAL_RATE = 30.0  # frames a second of poses that do not state theirs
LONGEST_GAP = 0.5  # seconds
MOST_PERSONS = 2
_FILLED = 0.5  # confidence of what is interpolated, in shares of that of its neighbors
_HARDLY_SEEN = 0.1  # share of the frames; who is seen less is left out if somebody is seen much more
_OFTEN_SEEN = 5.0  # times as often


def clean(
    poses: Poses, *, longest_gap: float = LONGEST_GAP, smooth: bool = False, most_persons: int | None = MOST_PERSONS
) -> Poses:
    """Poses ready for a model: the persons who act, the one who acts most first, without short gaps.

    Args:
      poses: tracked poses.
      longest_gap: seconds up to which gaps are interpolated.
      smooth: smooth with the One Euro filter.
      most_persons: that are kept; None: all.
    """
    poses = fill_gaps(choose_persons(poses, most_persons), longest_gap)
    return smoothed(poses) if smooth else poses


def to_clip(poses: Poses) -> np.ndarray:
    """float32 `[T, M, V, C + 1]`: the coordinates and the confidence of each person's joints; 0 where not seen."""
    joints, confidence, _ = poses.dense()
    return np.concatenate([joints, confidence[..., np.newaxis]], axis=-1)


def choose_persons(poses: Poses, most: int | None = MOST_PERSONS) -> Poses:
    """The persons who act, by how long and how surely they are seen, how large they are, and how much they move.

    Args:
      poses: tracked poses.
      most: persons that are kept; None: all who are not hardly seen.
    """
    if not poses.tracks:
        return poses
    presence = np.array([float(track.confidence.mean(axis=1).sum()) / poses.num_frames for track in poses.tracks])
    sizes = np.array([_size(track) for track in poses.tracks])
    speeds = np.array([_speed(track) for track in poses.tracks])
    importance = presence * np.sqrt(sizes / sizes.max()) * (1 + speeds / max(speeds.max(), 1e-9))
    order = np.argsort(-importance, kind="stable")
    passing = [each for each in order if presence[each] < min(_HARDLY_SEEN, presence.max() / _OFTEN_SEEN)]
    acting = [each for each in order if each not in passing]
    kept = acting if most is None else acting[:most]
    notes = []
    if passing:
        people = counted(len(passing), "person who is hardly seen is", "persons who are hardly seen are")
        notes.append(f"{people} left out")
    if len(acting) > len(kept):
        numbers = ", ".join(str(poses.tracks[each].person) for each in kept)
        chosen = f"one who acts most is kept (number {numbers})"
        if len(kept) != 1:
            chosen = f"{len(kept)} who act most are kept (numbers {numbers})"
        notes.append(f"{len(acting)} persons; the {chosen}")
    return dataclasses.replace(poses, tracks=tuple(poses.tracks[each] for each in kept)).with_notes(*notes)


def fill_gaps(poses: Poses, longest: float = LONGEST_GAP) -> Poses:
    """Interpolates frames in which a person, and joints that were not found, up to `longest` seconds.

    What is interpolated has half the confidence of its neighbors. A joint that is missing for longer keeps its last
    place (or the next one, or the middle of the person if it is never found) with a confidence of 0.
    """
    most = int(longest * (poses.frame_rate or USUAL_RATE) + 1e-6)
    tracks, notes = [], []
    for track in poses.tracks:
        filled, frames, joints, left = _filled(track, most)
        tracks.append(filled)
        done = [f"{count} {what}" for count, what in ((frames, "frames"), (joints, "joints")) if count]
        if done:
            notes.append(f"person {track.person}: {' and '.join(done)} interpolated")
        if left:
            gaps = counted(left, f"gap of more than {longest:g} s is", f"gaps of more than {longest:g} s are")
            notes.append(f"person {track.person}: {gaps} left")
    return dataclasses.replace(poses, tracks=tuple(tracks)).with_notes(*notes)


def _filled(track: Track, most: int) -> tuple[Track, int, int, int]:
    """A track without gaps of up to `most` frames; how many frames and joints were filled, and the gaps left."""
    steps = np.diff(track.frames)
    inserted = [
        np.arange(track.frames[place] + 1, track.frames[place + 1])
        for place in np.flatnonzero(steps > 1)
        if steps[place] - 1 <= most
    ]
    left = int((steps - 1 > most).sum())
    frames = np.sort(np.concatenate([track.frames, *inserted]))
    old = np.searchsorted(frames, track.frames)
    # Places in the picture and in meters are filled alike, as one array.
    places = track.joints if track.world is None else np.concatenate([track.joints, track.world], axis=2)
    values = np.zeros((len(frames), *places.shape[1:]), np.float32)
    confidence = np.zeros(values.shape[:2], np.float32)
    values[old], confidence[old] = places, track.confidence
    original = np.isin(np.arange(len(frames)), old)
    middles = _middles(values, confidence)
    num_joints = 0
    for joint in range(track.joints.shape[1]):
        num_joints += _fill_joint(frames, values[:, joint], confidence[:, joint], most, original, middles)
    joints, world = values[..., : track.joints.shape[2]], values[..., track.joints.shape[2] :]
    filled = Track(track.person, frames, joints, confidence, None if track.world is None else world)
    return filled, len(frames) - len(track.frames), num_joints, left


def _fill_joint(
    frames: np.ndarray,
    places: np.ndarray,
    confidence: np.ndarray,
    most: int,
    original: np.ndarray,
    middles: np.ndarray,
) -> int:
    """Fills one joint in place; returns in how many of the original frames."""
    found = np.flatnonzero(confidence > 0)
    missing = np.flatnonzero(confidence <= 0)
    if not len(missing):
        return 0
    if not len(found):
        places[:] = middles
        return 0
    before = np.searchsorted(found, missing) - 1
    after = before + 1
    inside = (before >= 0) & (after < len(found))
    low, high = found[np.maximum(before, 0)], found[np.minimum(after, len(found) - 1)]
    short = inside & (frames[high] - frames[low] - 1 <= most)
    # Longer gaps: the last place, or the next.
    places[missing] = places[np.where(before >= 0, low, high)]
    at, low, high = missing[short], low[short], high[short]
    share = ((frames[at] - frames[low]) / (frames[high] - frames[low]))[:, np.newaxis].astype(np.float32)
    places[at] = (1 - share) * places[low] + share * places[high]
    confidence[at] = _FILLED * ((1 - share[:, 0]) * confidence[low] + share[:, 0] * confidence[high])
    return int(original[at].sum())


def _middles(joints: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """`[T, C]`: the mean of the joints that were found; 0 where none was."""
    weights = (confidence > 0).astype(np.float32)[..., np.newaxis]
    return (joints * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)


class OneEuroFilter:
    """The One Euro filter (Casiez, Roussel, Vogel 2012): smooth at rest, quick in motion; for arrays, sample by sample.

    The constants are those of MediaPipe's pose landmarks; motion counts in sizes of the person, so that they fit any
    units.
    """

    def __init__(self, least_cutoff: float = 0.05, beta: float = 80.0, derivative_cutoff: float = 1.0):
        """Starts without a sample.

        Args:
          least_cutoff: in Hz, at rest.
          beta: by how many Hz the cutoff rises with a speed of one size a second.
          derivative_cutoff: in Hz, of the speed's own filter.
        """
        self._least_cutoff, self._beta, self._derivative_cutoff = least_cutoff, beta, derivative_cutoff
        self._value: np.ndarray | None = None
        self._speed = np.zeros(1)

    def __call__(self, sample: np.ndarray, seconds: float, size: float) -> np.ndarray:
        """The smoothed sample.

        Args:
          sample: of any shape, the same each time.
          seconds: since the last one; not read for the first.
          size: of the person, in the units of the sample.
        """
        if self._value is None:
            self._value, self._speed = sample.astype(np.float64), np.zeros(sample.shape)
            return sample
        speed = (sample - self._value) / seconds / size
        self._speed += _share(self._derivative_cutoff, seconds) * (speed - self._speed)
        cutoff = self._least_cutoff + self._beta * np.abs(self._speed)
        self._value = self._value + _share(cutoff, seconds) * (sample - self._value)
        return self._value.astype(sample.dtype)


def _share(cutoff, seconds: float):
    """How much of a new sample a low-pass filter takes."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * seconds))


def smoothed(poses: Poses) -> Poses:
    """The poses after the One Euro filter; it starts anew after a gap."""
    rate = poses.frame_rate or USUAL_RATE
    return dataclasses.replace(poses, tracks=tuple(_smoothed(track, rate) for track in poses.tracks))


def smooth_frames(frames: Iterable[FramePoses]) -> Iterator[FramePoses]:
    """The One Euro filter while a video or camera plays; a person starts anew after an absence."""
    filters: dict[int, tuple[OneEuroFilter, OneEuroFilter]] = {}
    last: dict[int, float] = {}
    before = 0.0
    for frame in frames:
        persons = []
        for person in frame.persons:
            if last.get(person.number) != before:
                filters[person.number] = OneEuroFilter(), OneEuroFilter()
            low_pass, low_pass_world = filters[person.number]
            seconds = max(frame.time - before, 1e-3)
            left, top, right, bottom = person.box
            joints = low_pass(person.joints, seconds, max(math.hypot(right - left, bottom - top), 1e-9))
            world = None if person.world is None else low_pass_world(person.world, seconds, 1.0)
            persons.append(dataclasses.replace(person, joints=joints, world=world))
            last[person.number] = frame.time
        before = frame.time
        yield dataclasses.replace(frame, persons=tuple(persons))


def _smoothed(track: Track, rate: float) -> Track:
    size = max(_size(track), 1e-9)
    joints = track.joints.copy()
    world = None if track.world is None else track.world.copy()
    low_pass, low_pass_world = OneEuroFilter(), OneEuroFilter()
    for place, frame in enumerate(track.frames):
        if place and frame - track.frames[place - 1] > 1:
            low_pass, low_pass_world = OneEuroFilter(), OneEuroFilter()
        joints[place] = low_pass(track.joints[place], 1 / rate, size)
        if world is not None and track.world is not None:
            world[place] = low_pass_world(track.world[place], 1 / rate, 1.0)  # a person is about a meter in size
    return dataclasses.replace(track, joints=joints, world=world)


def _size(track: Track) -> float:
    """The median diagonal of the box around the joints that were found."""
    hidden = (track.confidence <= 0)[..., np.newaxis]
    low = np.where(hidden, np.inf, track.joints).min(axis=1)
    high = np.where(hidden, -np.inf, track.joints).max(axis=1)
    seen = np.isfinite(low).all(axis=1)
    return float(np.median(np.linalg.norm(high[seen] - low[seen], axis=1))) if seen.any() else 0.0


def _speed(track: Track) -> float:
    """How far the joints move relative to their mean, and with it, in sizes of the person from frame to frame."""
    if len(track.frames) < 2:
        return 0.0
    both = (track.confidence[1:] > 0) & (track.confidence[:-1] > 0)
    steps = np.linalg.norm(np.diff(track.joints, axis=0), axis=2) / np.diff(track.frames)[:, np.newaxis]
    return float(steps[both].mean() / max(_size(track), 1e-9)) if both.any() else 0.0
