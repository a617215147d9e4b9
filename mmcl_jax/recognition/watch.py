"""Watching: from a video, a camera or poses to events, one after the other, as soon as each is known."""

import contextlib
import os
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.poses.cleaning import fill_gaps, smooth_frames, smoothed
from mmcl_jax.poses.estimate import Estimator, frame_poses
from mmcl_jax.poses.types import PIXELS, FramePoses, Poses, collect
from mmcl_jax.poses.video import Video
from mmcl_jax.recognition.camera import Camera
from mmcl_jax.recognition.events import Event
from mmcl_jax.recognition.frames import USUAL_FRAME_RATE, frames_of
from mmcl_jax.recognition.models import load_models
from mmcl_jax.recognition.recognizer import Models, Recognizer, WindowOptions
from mmcl_jax.trained_model import TrainedModel


def watch(
    source: str | int | os.PathLike | Poses,
    models: str | os.PathLike | TrainedModel | Sequence[str | os.PathLike | TrainedModel] | None = None,
    *,
    camera: bool = False,
    estimator: Estimator | None = None,
    window: float | None = None,
    stride: float | None = None,
    threshold: float | None = None,
    fps: float | None = None,
    count: int = 5,
    smooth: bool = False,
) -> Iterator[Event]:
    """Yields what each person does, one event for each window of time and one over the whole input.

    Args:
      source: a video file, the number or name of a camera, or `Poses`.
      models: what `load_model` takes, or loaded models, one or several, which vote; None: the model in the box.
      camera: whether `source` is a camera, or a video that plays as one: frames that come too fast are left out.
      estimator: finds the persons; None: BlazePose.
      window, stride: seconds that a model sees at once, and from one such window to the next; None: the model's own.
      threshold: least probability of a known action; None: the model's own.
      fps: frames a second that are looked at; None: the model's own, or all.
      count: how many actions an event lists.
      smooth: whether the joints are smoothed with the One Euro filter.

    Raises: PosesError, BundleError and others of `load_model`, LayoutError: input and models do not fit.
    """
    voting = load_models(models)
    options = WindowOptions(window, stride, threshold, count, smooth)
    if isinstance(source, Poses):
        yield from recognize_poses(fill_gaps(source), voting, options)
        return
    rate = fps or voting.frame_rate or None
    opened = Camera(source, rate) if camera else Video(str(source), rate)
    with opened as video:
        yield from watch_video(video, voting, options, estimator or usual_estimator())


def usual_estimator(model: str | os.PathLike = "full") -> Estimator:
    """BlazePose, or YOLO-pose with weights (.pt). Raises: PosesError if its files or packages are missing."""
    from mmcl_jax.poses.estimators import load_estimator

    return load_estimator(model)


def watch_video(
    video: Video | Camera,
    models: Models,
    options: WindowOptions,
    estimator: Estimator,
    see: Callable[[FramePoses, list[Event]], None] | None = None,
) -> Iterator[Event]:
    """Yields the events of an open video or camera; `see` gets each frame with the events that it brought."""
    recognizer = Recognizer(
        models,
        LAYOUTS[estimator.layout],
        PIXELS,
        float(video.frame_rate),
        video.size,
        options,
        source=str(video.path),
        has_world=estimator.has_world,
        live=isinstance(video, Camera),
    )
    if isinstance(video, Camera):  # read ahead, a camera's frames would be old when they are looked at
        frames = estimator.track(estimator.stages.each("wait", video.frames()), float(video.frame_rate))
    else:
        frames = frame_poses(video, estimator)
    if options.smooth:
        frames = smooth_frames(frames)
    # The models compile while the first window's frames are looked at. What goes wrong there goes wrong again below.
    threading.Thread(target=_quietly(recognizer.warm_up), name="warm up", daemon=True).start()
    for frame in frames:
        with estimator.stages("action"):
            events = recognizer.add(frame)
        if see is not None:
            see(frame, events)
        yield from events
    yield from recognizer.finish()


def _quietly(action: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        with contextlib.suppress(Exception):
            action()

    return run


def recognize_poses(poses: Poses, models: Models, options: WindowOptions) -> Iterator[Event]:
    """Yields the events of poses."""
    if options.smooth:
        poses = smoothed(poses)
    recognizer = Recognizer(
        models,
        poses.skeleton_layout,
        poses.units,
        poses.frame_rate or USUAL_FRAME_RATE,
        poses.size,
        options,
        source=poses.source,
        has_world=bool(poses.tracks) and all(track.world is not None for track in poses.tracks),
    )
    for frame in frames_of(poses):
        yield from recognizer.add(frame)
    yield from recognizer.finish()


def collect_poses(frames: Iterable[FramePoses], video: Video | Camera, layout: str) -> Poses:
    """The poses of the frames that were watched."""
    return collect(frames, layout, video.frame_rate, video.size, str(pathlib.Path(video.path)))
