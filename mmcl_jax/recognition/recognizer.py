"""Follows each person's poses frame by frame and classifies windows of them, with one model or several."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from mmcl_jax.data.layouts import Layout
from mmcl_jax.poses.types import FramePoses, Person, PosesError
from mmcl_jax.recognition.clips import ClipMaker
from mmcl_jax.recognition.events import Event, best
from mmcl_jax.trained_model import TrainedModel

USUAL_WINDOW = 3.0  # seconds, for models that do not say what they were trained on
_LEAST_SEEN = 0.5  # share of a window's frames in which a person must be seen
_LEAST_TIME, _LEAST_FRAMES = 0.5, 5  # seconds, frames for which a person must be seen to be classified at all
_PATIENCE = 2.0  # seconds after which a person who is no longer seen is summed up


@dataclasses.dataclass(frozen=True)
class WindowOptions:
    """How a person's poses are cut and judged.

    Attributes:
      window: seconds that a model sees at once; None: as the model was trained, or 3.
      stride: seconds from one window to the next; None: a third of the window.
      threshold: least probability of a known action; None: the model's own, 0 if it has none.
      count: how many actions an event lists.
      smooth: whether the joints are smoothed with the One Euro filter.
    """

    window: float | None = None
    stride: float | None = None
    threshold: float | None = None
    count: int = 5
    smooth: bool = False

    def __post_init__(self):
        for name, value in (("--window", self.window), ("--stride", self.stride)):
            if value is not None and not 0.05 <= value <= 3600:
                raise PosesError(f"{name}={value:g}: expected seconds, between 0.05 and 3600")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise PosesError(f"--threshold={self.threshold:g}: expected a probability, between 0 and 1")
        if self.count < 1:
            raise PosesError(f"--top={self.count}: expected at least 1")


class Models:
    """One or several models that vote: the mean of their probabilities.

    Attributes:
      models: the models, of the same classes.
      class_names: those classes.
    """

    def __init__(self, models: Sequence[TrainedModel], weights: Sequence[float] | None = None):
        """Raises: PosesError if classes or the number of weights differ."""
        first = models[0]
        for other in models[1:]:
            if other.class_names != first.class_names:
                raise PosesError(f"{other.path} and {first.path} have different classes; they cannot vote together")
        weights = [1.0] * len(models) if weights is None else list(weights)
        if len(weights) != len(models) or min(weights) < 0 or not sum(weights):
            raise PosesError(
                f"{len(weights)} weights {weights} for {len(models)} models; give each one that is not negative"
            )
        self.models, self.class_names = list(models), first.class_names
        self._shares = [weight / sum(weights) for weight in weights]

    def replaced(self, change: Callable[[TrainedModel], TrainedModel]) -> "Models":
        """The same votes with `change` made to each model."""
        return Models([change(model) for model in self.models], self._shares)

    @property
    def window(self) -> float:
        """Seconds that the models were trained on, or the usual."""
        return max((model.description.window_seconds or USUAL_WINDOW) for model in self.models)

    @property
    def frame_rate(self) -> float:
        """Frames a second of the poses that the models were trained on; 0: they do not say."""
        return max(model.description.frame_rate for model in self.models)

    @property
    def threshold(self) -> float:
        """The least probability of a known action."""
        return sum(share * model.description.threshold for share, model in zip(self._shares, self.models, strict=True))

    def probabilities(self, clips: Sequence[Sequence[np.ndarray]], names: Sequence[str]) -> np.ndarray:
        """float32 `[N, K]` from, for each model, the N clips as it takes them."""
        votes = [
            share * np.stack([prediction.probabilities for prediction in model.predict(list(own), list(names))])
            for share, model, own in zip(self._shares, self.models, clips, strict=True)
        ]
        return np.asarray(np.sum(votes, axis=0, dtype=np.float32))


@dataclasses.dataclass
class _Followed:
    """The frames of one person that a window may still need, and the windows classified so far."""

    begin: int  # the first frame in which the person was seen
    last: int
    next_end: int  # the frame after which the next window ends
    seen: dict[int, Person] = dataclasses.field(default_factory=dict)
    count: int = 0  # frames in which the person was seen
    classified: int = -1  # the last frame of the last window
    windows: list[np.ndarray] = dataclasses.field(default_factory=list)


class Recognizer:
    """Takes the persons of each frame and returns what they do, as soon as it is known."""

    def __init__(
        self,
        models: Models,
        layout: Layout,
        units: str,
        frame_rate: float,
        size: tuple[int, int] | None,
        options: WindowOptions,
        *,
        source: str,
        has_world: bool,
        live: bool = False,
    ):
        """Raises: PosesError, LayoutError if the models cannot see these poses.

        Args:
          models: that vote.
          layout, units, size: of the poses, as in `Poses`.
          frame_rate: frames a second.
          options: windows and threshold.
          source: the events' `input`.
          has_world: whether the poses have coordinates in meters besides.
          live: whether a person who left is summed up soon, and not only at the end of the input.
        """
        self._models, self._rate, self._options, self._source = models, frame_rate, options, source
        self._makers = [ClipMaker(model, layout, units, size, has_world=has_world) for model in models.models]
        seconds = models.window if options.window is None else options.window
        self._window = max(2, round(seconds * frame_rate))
        stride = seconds / 3 if options.stride is None else options.stride
        self._stride = max(1, round(stride * frame_rate))
        self._threshold = models.threshold if options.threshold is None else options.threshold
        self._handled: collections.deque[int] = collections.deque()  # numbers of the frames that a window may cover
        self._people: dict[int, _Followed] = {}
        self._patience = round(_PATIENCE * frame_rate) if live else None

    def warm_up(self) -> None:
        """Compiles what a window of one person needs."""
        for model in self._models.models:
            model.warm_up(self._window)

    def add(self, frame: FramePoses) -> list[Event]:
        """The windows that are complete with this frame, and the sums of those who left long ago."""
        due = []
        self._handled.append(frame.number)
        while self._handled[0] <= frame.number - 2 * self._window:
            self._handled.popleft()
        for person in frame.persons:
            followed = self._people.get(person.number)
            if followed is None:
                followed = _Followed(frame.number, frame.number, frame.number + self._window - 1)
                self._people[person.number] = followed
            followed.seen[frame.number] = person
            followed.last, followed.count = frame.number, followed.count + 1
        for number, followed in self._people.items():
            # Somebody who is not seen now may be gone: the window waits until it is known.
            while followed.last >= followed.next_end:
                due.append((number, followed, followed.next_end - self._window + 1, followed.next_end))
                followed.next_end += self._stride
        events = self._classify(due)
        if self._patience is not None:
            left = [number for number, each in self._people.items() if frame.number - each.last > self._patience]
            for number in left:
                events += self._sum_up(number)
        return events

    def finish(self) -> list[Event]:
        """The last windows, and the sum of everybody who is left."""
        return [event for number in sorted(self._people) for event in self._sum_up(number)]

    def _sum_up(self, number: int) -> list[Event]:
        """The last window of a person and the event of all windows; nothing for one who was hardly there."""
        followed = self._people.pop(number)
        events = []
        unseen = followed.last - followed.classified
        if self._is_seen_long(followed) and (not followed.windows or 2 * unseen >= self._stride):
            begin = max(followed.begin, followed.last - self._window + 1)
            events = self._classify([(number, followed, begin, followed.last)], always=not followed.windows)
        if followed.windows:
            mean = np.asarray(np.mean(followed.windows, axis=0, dtype=np.float32))
            events.append(self._event(number, followed.begin, followed.last, mean, whole=True))
        return events

    def _is_seen_long(self, followed: _Followed) -> bool:
        seconds = (followed.last - followed.begin + 1) / self._rate
        return followed.count >= _LEAST_FRAMES and seconds >= _LEAST_TIME

    def _classify(self, due: list[tuple[int, _Followed, int, int]], *, always: bool = False) -> list[Event]:
        """The events of windows (person, its frames, first and last frame). One of a person hardly seen has none."""
        found = []
        for number, followed, begin, end in due:
            frames = [frame for frame in followed.seen if begin <= frame <= end]
            # Of a camera, frames may have been left out: nobody could be seen in those.
            handled = sum(begin <= number <= end for number in self._handled)
            if always or len(frames) >= _LEAST_SEEN * handled:
                found.append((number, followed, begin, end, _window(followed.seen, begin, end)))
            for frame in [frame for frame in followed.seen if frame <= end - self._window]:
                del followed.seen[frame]
        if not found:
            return []
        names = [f"{self._source}, person {number}" for number, *_ in found]
        clips = [[make(*window) for *_, window in found] for make in self._makers]
        events = []
        for (number, followed, begin, end, _), probabilities in zip(
            found, self._models.probabilities(clips, names), strict=True
        ):
            followed.windows.append(probabilities)
            followed.classified = end
            events.append(self._event(number, begin, end, probabilities))
        return events

    def _event(self, person: int, begin: int, end: int, probabilities: np.ndarray, *, whole: bool = False) -> Event:
        top = best(probabilities, self._models.class_names, self._options.count, self._threshold)
        times = begin / self._rate, (end + 1) / self._rate
        return Event(self._source, person, *times, whole, top, probabilities)


def _window(seen: dict[int, Person], begin: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Joints, confidence and meters of the frames `begin` to `end`; those in which the person is unseen are filled in.

    Between two frames with the person the joints move evenly; before the first and after the last they stand still.
    """
    frames = sorted(frame for frame in seen if begin <= frame <= end)
    wanted = np.arange(begin, end + 1)
    right = np.clip(np.searchsorted(frames, wanted), 0, len(frames) - 1)
    left = np.clip(np.searchsorted(frames, wanted, side="right") - 1, 0, len(frames) - 1)
    numbers = np.array(frames)
    span = np.maximum(numbers[right] - numbers[left], 1)
    share = np.clip((wanted - numbers[left]) / span, 0, 1)[:, np.newaxis, np.newaxis].astype(np.float32)
    people = [seen[frame] for frame in frames]

    def fill(values: Iterable[np.ndarray]) -> np.ndarray:
        stacked = np.stack(list(values))
        weight = share if stacked.ndim == 3 else share[..., 0]
        return stacked[left] * (1 - weight) + stacked[right] * weight

    worlds = [person.world for person in people if person.world is not None]
    world = fill(worlds) if len(worlds) == len(people) else None
    return fill(person.joints for person in people), fill(person.confidence for person in people), world


def merge(events: Iterable[Event]) -> dict[int, list[Event]]:
    """The windows of each person, in the order of time."""
    by_person: dict[int, list[Event]] = collections.defaultdict(list)
    for event in events:
        if not event.whole:
            by_person[event.person].append(event)
    return {person: sorted(own, key=lambda event: event.start) for person, own in sorted(by_person.items())}
