"""A live source of frames: a camera, or a video file that plays as one. Frames that come too fast are left out."""

import os
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from mmcl_jax.poses.types import PosesError
from mmcl_jax.poses.video import Frame, Video, import_av

_USUAL_RATE = 15.0  # frames a second that are looked at
_GLANCE = 0.2  # seconds
_WAIT = 10.0  # seconds without a frame after which a camera counts as gone


class Camera:
    """An open camera; a context manager with the interface of `Video`. Only the newest frame waits to be looked at.

    Attributes:
      path: what was opened.
      frame_rate: frames a second of the numbers that frames have. A number is passed over where a frame is left out.
      size: width and height in pixels.
      dropped: frames that were left out.
      arrived: when the frame that was handed over last came, `time.perf_counter()`.
      duration: None.
      notes: what is wrong with the source.
    """

    duration = None

    def __init__(self, source: str | int | os.PathLike, fps: float | None = None):
        """Opens the source and starts to read it.

        Args:
          source: the number of a camera (0), its device or URL, or a video file, which plays at its own speed.
          fps: frames a second to look at, at most; None: 15.

        Raises: PosesError if it cannot be opened.
        """
        source = os.fspath(source) if isinstance(source, os.PathLike) else str(source)
        self.path = pathlib.Path(f"camera {source}" if source.isdigit() else source)
        self.frame_rate = float(fps or _USUAL_RATE)
        self.notes: list[str] = []
        self.dropped, self.arrived = 0, time.perf_counter()
        self._newest: tuple[Frame, float] | None = None
        self._error: Exception | None = None
        self._ended = self._stopped = False
        self._change = threading.Condition()
        self._pictures = _file(source) if pathlib.Path(source).is_file() else _device(source)
        self._first = next(self._pictures, None)
        if self._first is None:
            raise PosesError(f"{self.path}: gives no frame")
        height, width, _ = self._first[1].shape
        self.size = (width, height)
        self._thread = threading.Thread(target=self._read, name="camera", daemon=True)

    def __enter__(self) -> "Camera":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def stop(self) -> None:
        """Lets `frames` end; a signal handler may call it."""
        self._stopped = True

    def close(self) -> None:
        """Stops reading."""
        self.stop()
        with self._change:
            self._change.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def frames(self) -> Iterator[Frame]:
        """Yields the newest frame each time that it is asked; ends with the source. Raises: PosesError."""
        while True:
            with self._change:
                ready = self._wait()
                if self._newest is None or self._stopped:
                    if self._error is not None:
                        raise self._error
                    if not ready:
                        raise PosesError(f"{self.path}: no frame for {_WAIT:g} seconds; is the camera connected?")
                    return
                (frame, arrived), self._newest = self._newest, None
            self.arrived = arrived
            yield frame

    def _wait(self) -> bool:
        """Waits for a frame or the end; False if neither came."""
        for _ in range(round(_WAIT / _GLANCE)):  # in between, a signal handler may have stopped the camera
            if self._change.wait_for(lambda: self._newest or self._ended or self._stopped, timeout=_GLANCE):
                return True
        return False

    def _read(self) -> None:
        began, last = time.perf_counter(), -1
        try:
            assert self._first is not None
            picture: Any = self._first
            while picture is not None and not self._stopped:
                moment, pixels = picture
                now = time.perf_counter() - began
                if moment is not None and moment > now:  # a file waits until its time has come
                    time.sleep(moment - now)
                at = moment if moment is not None else time.perf_counter() - began
                number = int(at * self.frame_rate + 1e-6)
                if number > last:
                    last = number
                    self._offer(Frame(number, number / self.frame_rate, pixels))
                picture = next(self._pictures, None)
        except Exception as error:  # handed on to the thread that takes frames
            self._error = error
        with self._change:
            self._ended = True
            self._change.notify_all()

    def _offer(self, frame: Frame) -> None:
        with self._change:
            self.dropped += self._newest is not None
            self._newest = (frame, time.perf_counter())
            self._change.notify_all()


def _file(source: str) -> Iterator[tuple[float | None, Any]]:
    """Time and picture of each frame of a video file."""
    with Video(source) as video:
        for frame in video.frames():
            yield frame.time, frame.picture


def _device(source: str) -> Iterator[tuple[float | None, Any]]:
    """Pictures of a camera: one of Video4Linux, AVFoundation or DirectShow by its number, or any that FFmpeg opens."""
    import sys

    av = import_av()
    name, options = source, {}
    form = None
    if source.isdigit() or source.startswith("/dev/"):
        form = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}.get(sys.platform, "v4l2")
        name = f"/dev/video{source}" if source.isdigit() and form == "v4l2" else source
        options = {"framerate": "30"}
    try:
        container = av.open(name, format=form, options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise PosesError(
            f"--camera={source}: cannot be opened ({error}); give the number of a camera, 0 for the first, its device, "
            "or a video file"
        ) from error
    with container:
        try:
            for frame in container.decode(video=0):
                yield None, frame.to_ndarray(format="rgb24")
        except av.FFmpegError as error:
            raise PosesError(f"--camera={source}: stopped giving frames ({error})") from error
