"""What is recognized: a person, a span of time, and the most probable actions."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Event:
    """What a person does in a window of time, or over the whole input.

    Attributes:
      input: the video, file or camera.
      person: number of the person; 0 in a clip, which has no persons to tell apart.
      start, end: seconds from the beginning of the input.
      whole: whether it sums up all windows of the person.
      top: (action, probability), the most probable first. The action is None if it is none that the model knows; then
        its probability is that of anything else than the best known action, which follows it.
      probabilities: float32 `[K]`, of all known actions.
    """

    input: str
    person: int
    start: float
    end: float
    whole: bool
    top: tuple[tuple[str | None, float], ...]
    probabilities: np.ndarray = dataclasses.field(repr=False)

    @property
    def action(self) -> str | None:
        """The most probable action; None: none that the model knows."""
        return self.top[0][0]

    def to_json(self) -> dict:
        """One line of `--json`."""
        return {
            "input": self.input,
            "person": self.person,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "whole": self.whole,
            "top": [[action, round(probability, 4)] for action, probability in self.top],
        }


def best(
    probabilities: np.ndarray, class_names: Sequence[str], count: int, threshold: float
) -> tuple[tuple[str | None, float], ...]:
    """The `count` most probable actions, after None if the best is less probable than `threshold`."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    known: list[tuple[str | None, float]] = [(str(class_names[label]), float(probabilities[label])) for label in order]
    if known and known[0][1] < threshold:
        return ((None, 1 - known[0][1]), *known)
    return tuple(known)
