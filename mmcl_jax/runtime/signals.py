"""Stopping cleanly: SIGTERM and SIGINT become a flag that the training loop looks at between steps."""

import signal
import threading
from collections.abc import Iterable

from jax.experimental import multihost_utils


class StopSignal:
    """Context in which SIGTERM (a scheduler's warning) and SIGINT (Ctrl-C) ask to stop; a second one interrupts.

    With several processes, a signal to one of them is enough: JAX's preemption service, which listens to SIGTERM
    itself, tells the others and finds the step that all have yet to take. `several`: whether this is one of several.
    """

    def __init__(self, several: bool = False):
        self._requested = False
        self._several = several
        self._previous = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT,) if self._several else (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def requested(self) -> bool:
        """Whether this process was asked to stop."""
        return self._requested

    def stops(self, steps: Iterable[int]) -> bool:
        """Whether to stop after these steps, the same in every process; to be asked once for each step, in order."""
        if not self._several:
            return self._requested
        return any([multihost_utils.reached_preemption_sync_point(step) for step in steps])

    def _handle(self, number: int, _frame) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
        print(f"\n{signal.Signals(number).name}: saving after this step", flush=True)
        if self._several:
            signal.raise_signal(signal.SIGTERM)
