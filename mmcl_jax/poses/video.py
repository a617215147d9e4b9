"""Reads a video frame by frame at a constant frame rate, ahead of its reader on another thread."""

import contextlib
import dataclasses
import fractions
import math
import os
import pathlib
import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from mmcl_jax.poses.types import PosesError

SUFFIXES = (".avi", ".mp4", ".m4v", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp", ".gif")
_SLOWEST, _FASTEST = 1, 240  # frames a second that a header may state
_USUAL_RATE = fractions.Fraction(30)  # for videos that do not state theirs
_TOLERANCE = 0.25  # of the time between frames, by which a frame may come early
_LONGEST_PAUSE = 10.0  # seconds without a frame; more is an error in the time stamps
_MISSING = 0.1  # share of the stated duration that may be missing before a video counts as cut short
_AHEAD = 4  # frames

_Item = TypeVar("_Item")


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
      number: from 0, at the video's constant frame rate.
      time: in seconds from the first frame.
      picture: uint8 RGB `[H, W, 3]`, upright and with square pixels. The frames of a pause share one array.
    """

    number: int
    time: float
    picture: np.ndarray = dataclasses.field(repr=False)


class Video:
    """An open video file; a context manager.

    Attributes:
      path: of the file.
      frame_rate: frames a second of `frames()`: the file's own average, or `fps` if that is lower.
      size: width and height in pixels, after rotation.
      duration: in seconds, as the file states it; None: it does not.
      notes: what is wrong with the file, filled while it is read.
    """

    def __init__(self, path: str | os.PathLike, fps: float | None = None, start: float = 0.0, end: float | None = None):
        """Opens the file and decodes the first frame that is wanted.

        Args:
          path: a video file in any format that FFmpeg reads.
          fps: at most this number of frames a second, evenly spaced; None: all frames.
          start: seconds from the first frame of the file to the first frame that is wanted.
          end: seconds at which the wanted part ends; None: with the file.

        Raises: PosesError, saying what is wrong with the file, fps, start or end.
        """
        if fps is not None and not _SLOWEST / 60 <= fps <= _FASTEST:
            raise PosesError(f"--fps={fps:g}: expected frames a second, up to {_FASTEST}")
        self.path = pathlib.Path(path)
        if not self.path.is_file():
            raise PosesError(f"{self.path}: no such file; give a video")
        self._av = import_av()
        self.notes: list[str] = []
        self._damaged = 0
        self._stack = contextlib.ExitStack()
        try:
            self._container = self._open()
            stream = self._container.streams.video[0]
            own = _rate(stream)
            self.frame_rate = own if fps is None else min(own, fractions.Fraction(fps).limit_denominator(1000))
            self.duration = _duration(self._container, stream)
            self._length = None if end is None else end - start
            self._decoded = self._decode(stream)
            self._first = next(self._decoded, None)
            if self._first is None:
                raise PosesError(f"{self.path}: no frame can be decoded; the file is damaged or cut short")
            if start > 0:
                self._first = self._seek(stream, self._first, start)
            if self.duration is not None:
                self.duration = min(self.duration, math.inf if end is None else end) - start
        except BaseException:
            self.close()
            raise
        height, width, _ = self._picture(self._first).shape
        self.size = (width, height)

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._stack.close()

    def frames(self) -> Iterator[Frame]:
        """Yields the frames once, at the constant `frame_rate`.

        A frame that is too close to the one before it is left out. In a pause of a video with a variable frame rate,
        the last picture is repeated.
        """
        rate, shift, next_number = float(self.frame_rate), 0.0, 0
        own, start = None, self._first.time if self._first is not None else None
        picture: np.ndarray | None = None
        for frame in self._all():
            own = 0 if own is None else own + 1
            time = (frame.time - start if frame.time is not None and start is not None else own / rate) + shift
            number = math.floor(time * rate + _TOLERANCE)
            if self._length is not None and number >= self._length * rate - _TOLERANCE:
                break
            if abs(number - next_number) > _LONGEST_PAUSE * rate:  # broken time stamps: go on from here
                shift += next_number / rate - time
                number = next_number
            if number < next_number:
                continue
            while picture is not None and next_number < number:
                yield Frame(next_number, next_number / rate, picture)
                next_number += 1
            picture = self._picture(frame)
            yield Frame(number, number / rate, picture)
            next_number = number + 1
        if shift:
            self.notes.append("its time stamps jump; the frames before and after follow each other")
        self._note_end(next_number / rate - shift)

    def _seek(self, stream, first: Any, start: float) -> Any:
        """The first frame from `start` seconds after the frame `first`, which is the file's own first one.

        Raises: PosesError if the file ends before that.
        """
        origin = first.time or 0.0
        wanted = origin + start - _TOLERANCE / float(_rate(stream))
        try:
            self._container.seek(int((origin + start) / stream.time_base), stream=stream)
            self._decoded = self._decode(stream)
            frame = next(self._decoded, None)
        except self._av.FFmpegError:
            frame = None
        if frame is None or frame.time is None or frame.time > wanted + 1 / float(_rate(stream)):
            self._container.seek(0)  # the file has no index, or a wrong one: from the beginning
            self._decoded = self._decode(stream)
            frame = next(self._decoded, None)
        while frame is not None and frame.time is not None and frame.time < wanted:
            frame = next(self._decoded, None)
        if frame is None:
            raise PosesError(f"{self.path}: it ends before {start:g} s, where the clip should start")
        return frame

    def _open(self):
        try:
            container = self._stack.enter_context(self._av.open(str(self.path)))
        except (self._av.FFmpegError, ValueError, OverflowError, MemoryError) as error:
            raise PosesError(
                f"{self.path}: not a readable video ({type(error).__name__}); it is damaged or no video"
            ) from error
        if not container.streams.video or container.streams.video[0].codec_context is None:
            raise PosesError(f"{self.path}: no video in it that can be decoded")
        container.streams.video[0].thread_type = "AUTO"
        return container

    def _decode(self, stream) -> Iterator[Any]:
        """The frames that can be decoded; packets that cannot are counted."""
        packets = self._container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except self._av.FFmpegError:  # the file ends in the middle of a packet
                self._damaged += 1
                return
            if packet is None:
                return
            try:
                yield from packet.decode()
            except self._av.FFmpegError:
                self._damaged += 1

    def _all(self) -> Iterator[Any]:
        first, self._first = self._first, None
        if first is not None:
            yield first
        yield from self._decoded

    def _picture(self, frame) -> np.ndarray:
        """uint8 RGB `[H, W, 3]`, upright and with square pixels."""
        width, height = frame.width, frame.height
        aspect = self._container.streams.video[0].sample_aspect_ratio
        if aspect and aspect != 1 and 0.2 < aspect < 5:
            width = max(1, round(width * float(aspect)))
        picture = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
        turns = round(frame.rotation / 90) % 4  # counterclockwise
        return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture

    def _note_end(self, seconds: float) -> None:
        if self._damaged:
            self.notes.append(f"{self._damaged} parts of the video are damaged and left out")
        # Files state a duration that is up to a second too long, where the sound is longer than the pictures.
        if self.duration and seconds < (1 - _MISSING) * self.duration - min(1.0, self.duration / 4):
            self.notes.append(f"the video ends after {seconds:.1f} of {self.duration:.1f} seconds; it is cut short")


def read_ahead(items: Iterable[_Item], ahead: int = _AHEAD) -> Generator[_Item, None, None]:
    """Yields `items`, which another thread reads up to `ahead` items before they are wanted.

    An exception of `items` is raised here in its place. The thread ends when the generator is exhausted or closed.
    """
    waiting: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=max(1, ahead))
    stopped = threading.Event()

    def put(kind: str, item: Any = None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put((kind, item), timeout=0.1)
                return

    def read() -> None:
        try:
            for item in items:
                put("item", item)
                if stopped.is_set():
                    return
            put("end")
        except BaseException as error:  # it is raised in the thread that reads the generator
            put("error", error)

    thread = threading.Thread(target=read, name="read ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, item = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


def import_av() -> Any:
    """The package av. Raises: PosesError if it is not installed."""
    try:
        import av
        import av.error
        import av.logging
    except ImportError as error:
        raise PosesError(
            f"videos need the package av ({error}): `make setup-video`, or `pip install 'mmcl_jax[video]'`"
        ) from error
    av.logging.set_level(None)  # FFmpeg writes faults of files to stderr; they are in our errors and notes
    return av


def _rate(stream) -> fractions.Fraction:
    """Frames a second as a stream states them, or else the usual number."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate is not None and _SLOWEST <= rate <= _FASTEST:
            return fractions.Fraction(rate)
    return _USUAL_RATE


def _duration(container, stream) -> float | None:
    """Seconds as the file states them: by its duration or, if that is longer, by its number of frames."""
    durations = [float(stream.frames / _rate(stream))]
    if stream.duration is not None and stream.time_base is not None:
        durations.append(float(stream.duration * stream.time_base))
    elif container.duration:
        # Matroska counts the duration from 0, other formats from the first frame.
        begin = max(container.start_time or 0, 0) if "matroska" in container.format.name else 0
        durations.append((container.duration - begin) / 1_000_000)
    return max(durations) or None
