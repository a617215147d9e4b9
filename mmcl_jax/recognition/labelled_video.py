"""Writes a video with skeletons, boxes and actions drawn on it."""

import contextlib
import fractions
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmcl_jax.poses.types import Poses, PosesError
from mmcl_jax.poses.video import Video, import_av
from mmcl_jax.recognition.drawing import draw
from mmcl_jax.recognition.events import Event, best
from mmcl_jax.recognition.frames import frames_of
from mmcl_jax.recognition.recognizer import merge
from mmcl_jax.runtime.files import whole_file

_CODECS = ("libx264", "h264", "mpeg4")  # the first that this FFmpeg has


class VideoWriter:
    """Writes pictures into an MP4 file, which appears whole at the end. A context manager."""

    def __init__(self, path: pathlib.Path, frame_rate: float, size: tuple[int, int]):
        """Opens the file. Raises: PosesError if this is not a name for MP4 or it cannot be written."""
        if path.suffix.lower() not in (".mp4", ".m4v", ".mov"):
            raise PosesError(f"--out={path}: expected a name that ends in .mp4")
        if not path.parent.is_dir():
            raise PosesError(f"--out={path}: the folder {path.parent} does not exist")
        self._path, self._size = path, (size[0] // 2 * 2, size[1] // 2 * 2)  # the format takes even sizes only
        self._rate = fractions.Fraction(frame_rate).limit_denominator(1001)
        self._last = -1

    def __enter__(self) -> "VideoWriter":
        av = import_av()
        with contextlib.ExitStack() as stack:
            unfinished = stack.enter_context(whole_file(self._path))
            options = {"movflags": "faststart"}
            self._container = stack.enter_context(av.open(str(unfinished), "w", format="mp4", options=options))
            codec = next(name for name in _CODECS if _has_codec(av, name))
            self._stream: Any = self._container.add_stream(codec, rate=self._rate)
            self._stream.width, self._stream.height = self._size
            self._stream.pix_fmt = "yuv420p"
            stack.callback(self._flush)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._stack.__exit__(kind, error, trace)  # the file is whole only if flushing and closing work, too

    def _flush(self) -> None:
        if self._last >= 0:
            self._container.mux(self._stream.encode())

    def write(self, number: int, picture: np.ndarray) -> None:
        """Adds the picture, uint8 RGB `[H, W, 3]`, of frame `number`."""
        av = import_av()
        width, height = self._size
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
        frame.pts, frame.time_base = number, 1 / self._rate
        self._last = number
        self._container.mux(self._stream.encode(frame))


def _has_codec(av: Any, name: str) -> bool:
    try:
        av.codec.Codec(name, "w")
    except (av.FFmpegError, ValueError):
        return False
    return True


class Labels:
    """Which action to show for a person at a moment: the mean of the windows around it."""

    def __init__(self, events: Sequence[Event], class_names: Sequence[str], threshold: float):
        self._windows, self._names, self._threshold = merge(events), class_names, threshold

    def at(self, time: float) -> dict[int, tuple[str | None, float]]:
        """Action and probability by person, at `time` seconds."""
        found = {}
        for person, windows in self._windows.items():
            around = [event.probabilities for event in windows if event.start <= time <= event.end]
            if around:
                found[person] = best(np.mean(around, axis=0), self._names, 1, self._threshold)[0]
        return found


def write_labelled(path: pathlib.Path, source: pathlib.Path, fps: float | None, poses: Poses, labels: Labels) -> None:
    """Decodes a video once more and writes it with the persons and their actions. Raises: PosesError, OSError."""
    persons = {frame.number: frame.persons for frame in frames_of(poses)}
    with Video(source, fps) as video, VideoWriter(path, float(video.frame_rate), video.size) as writer:
        for frame in video.frames():
            shown = persons.get(frame.number, ())
            writer.write(frame.number, draw(frame.picture, shown, poses.skeleton_layout, labels.at(frame.time)))
