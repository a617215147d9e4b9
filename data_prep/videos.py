"""Single frames out of a video, decoding no more than it takes to get at them."""

import pathlib
from collections.abc import Iterable

import numpy as np

from data_prep.sources import SourceFileError


def read_frames(path: pathlib.Path, indices: Iterable[int]) -> dict[int, np.ndarray]:
    """The frames `indices` (from 0) of a video's first stream, each uint8 RGB [H, W, 3].

    From the key frame before each, so a video is neither decoded nor converted as a whole. One thread: the command
    runs a process per core.

    Raises: SourceFileError where the file is no video, ends too early or cannot be decoded.
    """
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise SourceFileError("no video in it")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            return {index: _frame(container, stream, index) for index in sorted(set(indices))}
    except (av.FFmpegError, ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, SourceFileError):
            raise
        raise SourceFileError(f"not a readable video ({type(error).__name__})") from error


def _frame(container, stream, index: int) -> np.ndarray:
    """Decodes from the key frame before `index`; from the beginning where the file's index leads astray."""
    import av

    if not stream.average_rate or not stream.time_base:
        raise SourceFileError("a video without a frame rate")
    ticks = 1 / (stream.average_rate * stream.time_base)  # from frame to frame, in the units of time stamps
    first = stream.start_time or 0
    last_seen = -1
    for target in (round(index * ticks), 0):
        try:
            container.seek(first + target, stream=stream)
        except av.FFmpegError:  # truncated files have lost the index at their end
            continue
        for frame in container.decode(stream):
            if frame.pts is None:
                continue
            last_seen = round((frame.pts - first) / ticks)
            if last_seen >= index:
                break
        if last_seen == index or (last_seen > index and not target):  # later ones stand in for dropped frames
            return frame.to_ndarray(format="rgb24")
    raise SourceFileError(f"cut short: frame {index} is wanted, the last (from 0) is {last_seen}")
