"""Follows persons from frame to frame: by place, size, motion and the color of their clothes.

A person who is lost, because somebody passes in front or because the estimator fails, keeps the number when found
again within `patience` seconds near the place where the motion leads. Two tracks that end up on the same person become
one; the other person is searched for again. After two persons were close to each other, the colors of their clothes
tell whether their tracks were exchanged.
"""

import dataclasses
import itertools

import numpy as np
from scipy.optimize import linear_sum_assignment

MOST_PERSONS = 4
_SAME_PERSON = 0.08  # mean distance of joints, in sizes of the person, up to which two poses are of one person
_REACH = 0.6  # how far from the expected place a person may be found, in sizes of the person
_REACH_GROWTH = 1.0  # further sizes for each second since the person was seen
_LARGEST_RATIO = 2.0  # of sizes
_COLOUR_WEIGHT = 2.0
_EXCHANGED = 0.6  # colors must fit the other way so much better that two tracks are exchanged
_LEAST_DIFFERENCE = 0.08  # of colors, to tell two persons apart
_CONTACT = 0.05  # overlap of boxes from which two persons can be taken for each other
_LONGEST_EXTRAPOLATION = 0.5  # seconds
_LEARNING = 0.1  # share of a new frame in the remembered colors
_STEADY = 0.3  # share of a new frame in the motion
_YOUNG = 0.5  # seconds; a younger track on the same person as an older one is the mistake


@dataclasses.dataclass
class Candidate:
    """A pose in the current frame.

    Attributes:
      joints: float `[V, 2]` in pixels.
      confidence: float `[V]`.
      colours: float `[n]`, see `colours`.
      continues: number of the track that the estimator followed to it; None: newly detected.
    """

    joints: np.ndarray
    confidence: np.ndarray
    colours: np.ndarray
    continues: int | None = None

    @property
    def box(self) -> np.ndarray:
        """Left, top, right and bottom of the joints."""
        return np.concatenate([self.joints.min(axis=0), self.joints.max(axis=0)])

    @property
    def centre(self) -> np.ndarray:
        """The middle of the joints."""
        return self.joints.mean(axis=0)

    @property
    def size(self) -> float:
        """The diagonal of the box, in pixels."""
        low, high = self.box[:2], self.box[2:]
        return max(1.0, float(np.linalg.norm(high - low)))


@dataclasses.dataclass
class _Track:
    number: int
    last: Candidate
    seen: int  # frame
    colours: np.ndarray
    first: int  # frame
    motion: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(2))  # pixels a frame
    contacts: dict[int, int] = dataclasses.field(default_factory=dict)  # other track -> frame of the last contact

    def expected(self, frame: int, longest: float) -> np.ndarray:
        return self.last.centre + self.motion * min(frame - self.seen, longest)


class Tracker:
    """Gives the persons of each frame their numbers."""

    def __init__(self, frame_rate: float, patience: float = 2.0, most: int = MOST_PERSONS):
        """Starts without a person.

        Args:
          frame_rate: frames a second.
          patience: seconds for which a lost person is remembered.
          most: persons at a time; further ones are ignored.
        """
        self._rate, self._patience, self._most = frame_rate, patience, most
        self._tracks: dict[int, _Track] = {}
        self._next = 0

    def seen(self, frame: int) -> list[int]:
        """Numbers of the persons who were seen in `frame`, the last one of `update`."""
        return [track.number for track in self._tracks.values() if track.seen == frame]

    def lost(self, frame: int) -> list[int]:
        """Numbers of the persons who were not seen in `frame` and are remembered."""
        return [track.number for track in self._tracks.values() if track.seen != frame]

    def motion(self, number: int) -> np.ndarray:
        """How far a person moves from one frame to the next, `[2]` in pixels."""
        return self._tracks[number].motion if number in self._tracks else np.zeros(2)

    def fresh(self, candidates: list[Candidate], found: Candidate) -> bool:
        """Whether a detected pose is of none of the persons in `candidates`."""
        return all(_distance(found, other) > _SAME_PERSON for other in candidates)

    def update(self, frame: int, candidates: list[Candidate]) -> list[int | None]:
        """Takes the poses of the next frame; returns each one's person, None for those that are dropped."""
        self._forget(frame)
        numbers: list[int | None] = [None] * len(candidates)
        kept = self._without_doubles(candidates, frame)
        for place in kept:
            if candidates[place].continues in self._tracks:
                numbers[place] = candidates[place].continues
        self._match(candidates, [place for place in kept if numbers[place] is None], numbers, frame)
        for place in kept:
            if numbers[place] is None and sum(number is not None for number in numbers) < self._most:
                numbers[place] = self._next
                self._next += 1
        self._untangle(candidates, numbers, frame)
        for place, number in enumerate(numbers):
            if number is not None:
                self._follow(number, candidates[place], frame)
        self._note_contacts(frame)
        return numbers

    def _forget(self, frame: int) -> None:
        limit = frame - self._patience * self._rate
        self._tracks = {number: track for number, track in self._tracks.items() if track.seen >= limit}

    def _without_doubles(self, candidates: list[Candidate], frame: int) -> list[int]:
        """Places of the candidates without those that are of the same person as another that fits its track better."""
        kept = set(range(len(candidates)))
        for first, second in itertools.combinations(range(len(candidates)), 2):
            if {first, second} <= kept and _distance(candidates[first], candidates[second]) < _SAME_PERSON:
                misfits = [self._misfit(candidates[place], frame) for place in (first, second)]
                kept.discard(second if misfits[0] <= misfits[1] else first)
        return sorted(kept)

    def _misfit(self, candidate: Candidate, frame: int) -> tuple[int, float]:
        """How badly a candidate continues its track: worst without one, then a young one, then by cost."""
        track = self._tracks.get(-1 if candidate.continues is None else candidate.continues)
        if track is None:
            return 2, 0.0
        return int(frame - track.first < _YOUNG * self._rate), self._cost(track, candidate, frame)

    def _cost(self, track: _Track, candidate: Candidate, frame: int) -> float:
        """How badly a candidate fits a track, in sizes of the person."""
        size = (track.last.size + candidate.size) / 2
        place = track.expected(frame, _LONGEST_EXTRAPOLATION * self._rate)
        away = np.linalg.norm(candidate.centre - place) / size
        colour = np.linalg.norm(candidate.colours - track.colours)
        return float(away + abs(np.log(candidate.size / track.last.size)) / 2 + _COLOUR_WEIGHT * colour)

    def _match(self, candidates: list[Candidate], places: list[int], numbers: list[int | None], frame: int) -> None:
        """Gives new candidates the numbers of persons who are not followed in this frame, the best fitting first."""
        free = [track for track in self._tracks.values() if track.number not in numbers]
        if not free or not places:
            return
        costs = np.array([[self._cost(track, candidates[place], frame) for track in free] for place in places])
        allowed = np.array([[self._reaches(track, candidates[place], frame) for track in free] for place in places])
        for row, column in zip(*linear_sum_assignment(np.where(allowed, costs, 1e6)), strict=True):
            if allowed[row, column]:
                numbers[places[row]] = free[column].number

    def _reaches(self, track: _Track, candidate: Candidate, frame: int) -> bool:
        size = (track.last.size + candidate.size) / 2
        reach = (_REACH + _REACH_GROWTH * (frame - track.seen) / self._rate) * size
        place = track.expected(frame, _LONGEST_EXTRAPOLATION * self._rate)
        away = min(np.linalg.norm(candidate.centre - each) for each in (place, track.last.centre))
        ratio = candidate.size / track.last.size
        return bool(away <= reach and 1 / _LARGEST_RATIO <= ratio <= _LARGEST_RATIO)

    def _untangle(self, candidates: list[Candidate], numbers: list[int | None], frame: int) -> None:
        """Exchanges the numbers of two persons who were close and whose colors fit better the other way."""
        for a, b in itertools.combinations(range(len(numbers)), 2):
            first, second = numbers[a], numbers[b]
            one, other = (
                self._tracks.get(-1 if first is None else first),
                self._tracks.get(-1 if second is None else second),
            )
            if one is None or other is None or other.number not in one.contacts:
                continue
            if overlap(candidates[a].box, candidates[b].box) > _CONTACT:
                continue  # still close: the colors may be those of the other one
            del one.contacts[other.number], other.contacts[one.number]
            straight = _gap(candidates[a], one) + _gap(candidates[b], other)
            crossed = _gap(candidates[a], other) + _gap(candidates[b], one)
            apart = np.linalg.norm(one.colours - other.colours)
            if apart > _LEAST_DIFFERENCE and crossed < _EXCHANGED * straight:
                numbers[a], numbers[b] = second, first

    def _follow(self, number: int, candidate: Candidate, frame: int) -> None:
        track = self._tracks.get(number)
        if track is None:
            self._tracks[number] = _Track(number, candidate, frame, candidate.colours, frame)
            return
        moved = (candidate.centre - track.last.centre) / max(1, frame - track.seen)
        track.motion = (1 - _STEADY) * track.motion + _STEADY * moved
        if not track.contacts:
            track.colours = (1 - _LEARNING) * track.colours + _LEARNING * candidate.colours
        track.last, track.seen = candidate, frame

    def _note_contacts(self, frame: int) -> None:
        """Remembers who is close to whom; a person who is lost stays where last seen."""
        for one, other in itertools.combinations(self._tracks.values(), 2):
            if overlap(one.last.box, other.last.box) > _CONTACT:
                one.contacts[other.number] = other.contacts[one.number] = frame
        for track in self._tracks.values():
            track.contacts = {number: last for number, last in track.contacts.items() if number in self._tracks}


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection of two boxes `[4]` (left, top, right, bottom) in shares of the smaller one."""
    sides = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None)
    areas = [max(1e-6, float(np.prod(box[2:] - box[:2]))) for box in (one, other)]
    return float(np.prod(sides)) / min(areas)


def colours(picture: np.ndarray, joints: np.ndarray, corners: tuple[int, int, int, int]) -> np.ndarray:
    """The colors of a person's clothes: float `[6]`, mean red, green and blue, 0 to 1, of the upper and lower trunk.

    Args:
      picture: uint8 RGB `[H, W, 3]`.
      joints: `[V, 2]` in pixels.
      corners: numbers of the left and right shoulder, left and right hip.
    """
    height, width = picture.shape[:2]
    left, right, left_hip, right_hip = joints[list(corners)]
    across = np.array([0.25, 0.5, 0.75])[:, np.newaxis, np.newaxis]
    down = np.array([0.15, 0.35, 0.65, 0.85])[:, np.newaxis]
    top, bottom = left + across * (right - left), left_hip + across * (right_hip - left_hip)
    places = top + down * (bottom - top)
    x = np.clip(np.nan_to_num(places[..., 0]), 0, width - 1).astype(int)
    y = np.clip(np.nan_to_num(places[..., 1]), 0, height - 1).astype(int)
    samples = picture[y, x].astype(np.float64) / 255  # [3, 4, 3]
    return np.concatenate([samples[:, :2].mean(axis=(0, 1)), samples[:, 2:].mean(axis=(0, 1))])


def _gap(candidate: Candidate, track: _Track) -> float:
    return float(np.linalg.norm(candidate.colours - track.colours))


def _distance(one: Candidate, other: Candidate) -> float:
    """Mean distance of the joints of two poses, in sizes of the smaller person, by confidence."""
    weights = one.confidence * other.confidence + 1e-6
    away = np.linalg.norm(one.joints - other.joints, axis=1)
    return float((weights * away).sum() / weights.sum() / min(one.size, other.size))
