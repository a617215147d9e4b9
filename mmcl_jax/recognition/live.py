"""A camera on screen: who does what, frames a second and delay in one line; q and Ctrl-C end it."""

import argparse
import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.poses.types import FramePoses
from mmcl_jax.recognition.camera import Camera
from mmcl_jax.recognition.drawing import draw
from mmcl_jax.recognition.events import Event
from mmcl_jax.recognition.labelled_video import VideoWriter
from mmcl_jax.recognition.recognizer import Models, WindowOptions
from mmcl_jax.recognition.watch import usual_estimator, watch_video

_SHOWN_EVERY = 0.5  # seconds


def watch_camera(options: argparse.Namespace, models: Models, windows: WindowOptions, sinks: Sequence[Any]) -> None:
    """Watches `options.camera` until it ends, or somebody presses q or Ctrl-C. Raises: PosesError."""
    estimator = usual_estimator(options.pose_model)
    with Camera(options.camera, options.fps or models.frame_rate or None) as camera, contextlib.ExitStack() as stack:
        stack.enter_context(_interrupts(camera.stop))
        pressed = stack.enter_context(_keys())
        writer = stack.enter_context(VideoWriter(options.out, camera.frame_rate, camera.size)) if options.out else None
        screen = _Screen(camera)

        def see(frame: FramePoses, events: list[Event]) -> None:
            screen.note(frame, events)
            if writer is not None:
                writer.write(frame.number, draw(frame.picture, frame.persons, LAYOUTS[estimator.layout], screen.labels))
            if pressed() == "q":
                camera.stop()

        for event in watch_video(camera, models, windows, estimator, see):
            for sink in sinks:
                sink.write(event)
        screen.end()


class _Screen:
    """The line on screen, and the newest label of each person."""

    def __init__(self, camera: Camera):
        self._camera, self._began = camera, time.perf_counter()
        self._frames, self._shown, self._first = 0, 0.0, None
        self._delays: list[float] = []
        self.labels: dict[int, tuple[str | None, float]] = {}

    def note(self, frame: FramePoses, events: list[Event]) -> None:
        now = time.perf_counter()
        self._frames += 1
        self._delays = [*self._delays[-29:], now - self._camera.arrived]
        for event in events:
            if not event.whole:
                self._first = self._first or now - self._began
                self.labels[event.person] = event.top[0]
        here = {person.number for person in frame.persons}
        self.labels = {person: label for person, label in self.labels.items() if person in here}
        if now - self._shown >= _SHOWN_EVERY:
            self._shown = now
            self._print(frame)

    def _print(self, frame: FramePoses) -> None:
        people = []
        for person in frame.persons:
            action, probability = self.labels.get(person.number, ("...", 0.0))
            name = "unknown action" if action is None else action
            people.append(f"person {person.number}: {name}" + (f" {100 * probability:.0f} %" if probability else ""))
        text = f"{self.speed()} | {'; '.join(people) or 'nobody is seen'}"
        end = "" if sys.stdout.isatty() else "\n"
        print(("\r\x1b[K" if not end else "") + text, end=end, flush=True)

    def speed(self) -> str:
        """Frames a second and delay."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        delay = 1000 * sorted(self._delays)[len(self._delays) // 2] if self._delays else 0.0
        return f"{self._frames / seconds:.1f} frames/s, delay {delay:.0f} ms, {self._camera.dropped} frames left out"

    def end(self) -> None:
        first = "no label" if self._first is None else f"first label after {self._first:.1f} s"
        print(("\n" if sys.stdout.isatty() else "") + f"{self._camera.path}: {self.speed()}, {first}", flush=True)


@contextlib.contextmanager
def _interrupts(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C calls `stop`, so that what was recorded and recognized is kept; a second one ends at once."""

    def once(*_) -> None:
        signal.signal(signal.SIGINT, before)
        stop()

    before = signal.signal(signal.SIGINT, once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """A function that returns the key pressed since the last call, or ''. Without a terminal there are no keys."""
    if not sys.stdin.isatty():
        yield lambda: ""
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed() -> str:
        ready, _, _ = select.select([descriptor], [], [], 0)
        return os.read(descriptor, 1).decode(errors="replace") if ready else ""

    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
