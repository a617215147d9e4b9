"""Reads single frames of a video, and decodes only as much as that takes.

A video is a file, or a folder with one picture file per frame.
"""

import pathlib
import re
from collections.abc import Iterable

import numpy as np

from data_prep.formats.sources import SourceFileError
from data_prep.images import pictures
from mmcl_jax.runtime.files import check_regular

FILE_SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm")
_PICTURES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
_OTHER_PICTURES = "_depth"  # end of the names of depth pictures, which share the folder with color pictures
_NEAR = 8  # up to this many frames ahead, decoding on is faster than seeking


def find(root: pathlib.Path) -> list[pathlib.Path]:
    """The videos beneath `root`, sorted: video files, and folders that contain picture files."""
    found = set()
    for path in root.rglob("*"):
        if path.suffix.lower() in FILE_SUFFIXES and not path.name.startswith("."):
            found.add(path)
        elif _is_frame(path):
            found.add(path.parent)
    return sorted(found)


def num_frames(path: pathlib.Path) -> int:
    """The number of frames that a video's header (or folder) gives. Raises: SourceFileError."""
    return len(_frame_files(path)) if path.is_dir() else _in_video(path, _count)


def read_frames(path: pathlib.Path, indices: Iterable[int]) -> dict[int, np.ndarray]:
    """Reads the frames `indices` (from 0) of a video, each uint8 RGB [H, W, 3].

    The first stream of a file is decoded from the key frame before each index, so that most frames are neither decoded
    nor converted. Decoding uses one thread, because the commands run a process or a thread per core.

    Raises: SourceFileError if the file is no video, ends too early or cannot be decoded.
    """
    indices = sorted(set(indices))
    if path.is_dir():
        files = _frame_files(path)
        if indices and indices[-1] >= len(files):
            raise SourceFileError(f"cut short: frame {indices[-1]} is wanted, the last (from 0) is {len(files) - 1}")
        return {index: _read_picture(files[index]) for index in indices}
    return _in_video(path, lambda container, stream: _read(container, stream, indices))


def _is_frame(path: pathlib.Path) -> bool:
    return (
        path.suffix.lower() in _PICTURES
        and not path.stem.lower().endswith(_OTHER_PICTURES)
        and not path.name.startswith(".")
    )


def _frame_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The pictures in a folder by the numbers in their names: frame_9 before frame_10. Raises: SourceFileError."""
    files = [path for path in folder.iterdir() if _is_frame(path)]
    if not files:
        raise SourceFileError(f"no pictures ({', '.join(_PICTURES)}) in the folder")
    return sorted(files, key=lambda path: ([int(number) for number in re.findall(r"\d+", path.stem)], path.name))


def _read_picture(path: pathlib.Path) -> np.ndarray:
    try:
        check_regular(path)
        return np.array(pictures.decode(path.read_bytes(), (_PICTURES[path.suffix.lower()],)))
    except SourceFileError as error:
        raise SourceFileError(f"{path.name}: {error}") from error
    except (OSError, ValueError) as error:
        raise SourceFileError(f"{path.name}: cannot be read ({error})") from error


def _in_video(path: pathlib.Path, function):
    """function(container, first video stream) of a file. Raises: SourceFileError if the file is no valid video."""
    import av

    if not path.is_file():
        raise SourceFileError("not a readable video (it is no file)")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise SourceFileError("no video in it")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise SourceFileError("a video of a codec that is unknown or damaged")
            stream.codec_context.thread_count = 1
            return function(container, stream)
    except (av.FFmpegError, ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, SourceFileError):
            raise
        raise SourceFileError(f"not a readable video ({type(error).__name__})") from error


def _count(container, stream) -> int:
    """Counts frames by the header or, if it does not say, by the packets, without decoding any."""
    count = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
    if not count:
        raise SourceFileError("a video of zero frames")
    return count


def _read(container, stream, indices: list[int]) -> dict[int, np.ndarray]:
    decoder = _Decoder(container, stream)
    return {index: decoder.frame(index).to_ndarray(format="rgb24") for index in indices}


class _Decoder:
    """Decodes single frames of a stream, requested in ascending order."""

    def __init__(self, container, stream):
        if not stream.average_rate or not stream.time_base:
            raise SourceFileError("a video without a frame rate")
        self._container = container
        self._stream = stream
        self._ticks = 1 / (stream.average_rate * stream.time_base)  # between frames, in the units of time stamps
        self._first = stream.start_time or 0
        self._frames = iter(())
        self._frame = None
        self._number = -1  # of `_frame`

    def frame(self, index: int):
        """The frame `index`; if it was dropped, a later one takes its place. Raises: SourceFileError."""
        import av

        if 0 <= self._number <= index <= self._number + _NEAR:
            self._decode_to(index)
            if self._number == index:
                return self._frame
        # From the key frame before; from the beginning if the index of the file is wrong.
        for target in (round(index * self._ticks), 0):
            try:
                self._container.seek(self._first + target, stream=self._stream)
            except av.FFmpegError:  # truncated files lack the index at their end
                continue
            self._frames, self._number = self._container.decode(self._stream), -1
            self._decode_to(index)
            if self._number == index or (self._number > index and not target):
                return self._frame
        raise SourceFileError(f"cut short: frame {index} is wanted, the last (from 0) is {self._number}")

    def _decode_to(self, index: int) -> None:
        """Decodes up to the frame `index` or, if it does not exist, one frame beyond."""
        while self._number < index and (frame := next(self._frames, None)) is not None:
            if frame.pts is not None:
                self._frame, self._number = frame, round((frame.pts - self._first) / self._ticks)
