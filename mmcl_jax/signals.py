"""Stopping cleanly: SIGTERM and SIGINT become a flag that the training loop looks at between steps."""

import signal
import threading


class StopSignal:
    """Context in which SIGTERM (a scheduler's warning) and SIGINT (Ctrl-C) set `requested`; a second one interrupts."""

    def __init__(self):
        self.requested = False
        self._previous = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print(f"\n{signal.Signals(number).name}: saving after this step", flush=True)
