"""How many seconds each stage of an estimation takes."""

import collections
import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")


class Stages:
    """Sums of the time that named stages take.

    Attributes:
      seconds: by stage.
      counts: how often each stage ran.
    """

    def __init__(self):
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.counts: collections.Counter[str] = collections.Counter()

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Measures the body."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start
            self.counts[stage] += 1

    def each(self, stage: str, items: Iterable[_Item]) -> Iterator[_Item]:
        """Yields `items` and measures how long each takes to come."""
        iterator = iter(items)
        while True:
            with self(stage):
                try:
                    item = next(iterator)
                except StopIteration:
                    self.counts[stage] -= 1  # the end is no item
                    return
            yield item

    def summary(self) -> str:
        """One line: how often each stage ran, and how often it could in a second."""
        return ", ".join(
            f"{stage}: {count} in {self.seconds[stage]:.2f} s ({count / max(self.seconds[stage], 1e-9):.0f}/s)"
            for stage, count in self.counts.items()
            if count
        )
