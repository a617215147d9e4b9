"""The poses of a video."""

import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Protocol

from mmcl_jax.poses.stages import Stages
from mmcl_jax.poses.types import FramePoses, Poses, collect
from mmcl_jax.poses.video import Frame, Video, read_ahead


class Estimator(Protocol):
    """What finds and follows persons, such as `mmcl_jax.poses.blazepose.BlazePose`."""

    layout: str
    has_world: bool  # whether persons have coordinates in meters
    stages: Stages

    def track(self, frames: Iterator[Frame], frame_rate: float) -> Iterator[FramePoses]:
        """Yields the persons of each frame."""
        ...


def frame_poses(video: Video, estimator: Estimator) -> Iterator[FramePoses]:
    """Yields the persons in each frame of an open video, which another thread reads ahead."""
    frames = read_ahead(estimator.stages.each("decode", video.frames()))
    try:
        yield from estimator.track(frames, float(video.frame_rate))
    finally:
        frames.close()


def poses_of_video(
    path: str | os.PathLike,
    estimator: Estimator,
    fps: float | None = None,
    progress: Callable[[FramePoses], None] | None = None,
) -> Poses:
    """The tracked poses of a whole video.

    Args:
      path: a video file.
      estimator: finds and follows the persons.
      fps: at most this number of frames a second; None: all.
      progress: called with each frame when it is done.

    Raises: PosesError if the video cannot be read.
    """
    path = pathlib.Path(path)
    with Video(path, fps) as video:

        def followed() -> Iterator[FramePoses]:
            for each in frame_poses(video, estimator):
                if progress is not None:
                    progress(each)
                yield each

        poses = collect(followed(), estimator.layout, video.frame_rate, video.size, str(path))
        return poses.with_notes(*video.notes)
