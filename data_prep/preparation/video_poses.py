"""Estimates the poses and makes the mosaics of videos, with all cores, clip by clip in a work folder.

WORK/about.json      the settings; the folder is refused for other ones
WORK/poses/KEY.npz   every person's track in a clip; KEY.set_aside says why there is none
WORK/images/KEY.jpg  the mosaic of a clip; KEY.set_aside says why there is none

What is there is not made again, so an interrupted command continues without loss, and several may share the work.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from data_prep.formats import sources, worker_processes
from data_prep.formats.video_lists import ListedClip
from data_prep.images import mosaics, person_crops
from mmcl_jax.poses.cleaning import choose_persons, clean
from mmcl_jax.poses.estimate import Estimator, frame_poses
from mmcl_jax.poses.estimators import load_estimator
from mmcl_jax.poses.types import Poses, PosesError, Track, collect
from mmcl_jax.poses.video import Video, import_av
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.runtime.files import clear_disk_errors, make_folder, whole_file, write_whole
from mmcl_jax.runtime.progress import progress_bar
from mmcl_jax.runtime.words import counted

_ABOUT = "about.json"
_MARK = "poses of videos, by data_prep.videos"
_FEWEST_FRAMES = 2
_LEAST_SEEN = 0.2  # share of the frames in which the person who acts must be seen
_YOLO = ".pt"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides the poses and mosaics.

    Attributes:
      pose_model: see `load_estimator`.
      fps: at most this number of frames a second; None: all.
      persons: most persons of a clip that are kept, and that are in its mosaic.
    """

    pose_model: str = "full"
    fps: float | None = 15.0
    persons: int = 1

    def about(self) -> dict:
        """The settings as about.json stores them. Raises: PreparationError if a file of weights cannot be read."""
        path = pathlib.Path(self.pose_model)
        stored = {"what": _MARK, **dataclasses.asdict(self), "pose_model": path.name}
        if path.suffix:
            try:
                stored["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                raise PreparationError(f"--pose_model={path}: cannot be read ({error})") from error
        return stored


@dataclasses.dataclass(frozen=True)
class WorkFolder:
    """The work folder of some settings."""

    path: pathlib.Path
    settings: Settings

    def claim(self) -> None:
        """Creates the folder. Raises: PreparationError if it holds something else, or is of other settings."""
        about, path = self.settings.about(), self.path / _ABOUT
        # Another shard may be writing about.json, or may have been killed as it did.
        if not self.path.is_dir() or all(entry.name.startswith(f".{_ABOUT}.") for entry in self.path.iterdir()):
            make_folder(self.path)
            write_whole(path, json.dumps(about, indent=1) + "\n")
            return
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            stored = {}
        if not isinstance(stored, dict) or stored.get("what") != _MARK:
            raise PreparationError(
                f"{self.path}: holds something else than work of this command; choose another --work"
            )
        if stored != about:
            other = ", ".join(f"{key} {stored.get(key)}" for key in about if stored.get(key) != about[key])
            raise PreparationError(
                f"{self.path}: holds work with other settings ({other}); choose another --work, or remove that folder"
            )

    @property
    def images(self) -> mosaics.ImageFolder:
        """The mosaics."""
        return mosaics.ImageFolder(self.path / "images")

    def poses_file(self, key: str, suffix: str = ".npz") -> pathlib.Path:
        """Where the poses of a clip are, or why there are none (`.set_aside`)."""
        return self.path / "poses" / f"{key}{suffix}"

    def is_done(self, key: str, images: bool) -> bool:
        """Whether nothing is left to do for a clip."""
        if self.poses_file(key, ".set_aside").exists():
            return True
        pictured = any((self.images.path / f"{key}{suffix}").exists() for suffix in (".jpg", ".set_aside"))
        return self.poses_file(key).exists() and (pictured or not images)

    def poses(self, key: str) -> Poses:
        """The tracked poses of a clip.

        Raises: SourceFileError, with the reason, if there are none or too few; PreparationError for a damaged file.
        """
        reason = self.poses_file(key, ".set_aside")
        if reason.exists():
            raise sources.SourceFileError(reason.read_text(encoding="utf-8", errors="replace"))
        path = self.poses_file(key)
        try:
            poses = _read(path)
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise PreparationError(f"{path}: damaged ({error!r}); remove it and run again") from error
        return poses


def estimate(clips: Sequence[ListedClip], folder: WorkFolder, images: bool, workers: int | None = None) -> None:
    """Makes the poses and, if `images`, the mosaics that `folder` lacks, and prints how long each stage took.

    Raises: PosesError if the estimator's files or packages are missing.
    """
    tasks = [(clip, folder, images) for clip in clips if not folder.is_done(_key(clip), images)]
    print(f"{folder.path}: {len(clips) - len(tasks)} of {counted(len(clips), 'clip')} done")
    if not tasks:
        return
    import_av()  # what is missing is an error before the work begins
    _estimator(folder.settings.pose_model)
    workers = workers or sources.usable_cores()
    if folder.settings.pose_model.endswith(_YOLO):
        workers = 1  # which uses the GPU or all cores
    begin, frames, seconds = time.monotonic(), 0, collections.Counter()
    with clear_disk_errors(folder.path):
        done = worker_processes.map_in_order(_make_one, tasks, min(workers, len(tasks)))
        with _saying_what_is_kept(clips, folder, images), contextlib.closing(done):
            for count, stages in progress_bar(done, total=len(tasks), unit="clip", desc="poses", smoothing=0.05):
                frames += count
                seconds.update(stages)
    took = time.monotonic() - begin
    listed = ", ".join(f"{stage} {spent:.0f} s" for stage, spent in seconds.most_common())
    print(
        f"poses: {counted(len(tasks), 'clip')}, {counted(frames, 'frame')} in {took:.0f} s: "
        f"{len(tasks) / took:.2f} clips/s, {frames / took:.0f} frames/s with "
        f"{counted(min(workers, len(tasks)), 'process', 'processes')} (in all: {listed})"
    )


@contextlib.contextmanager
def _saying_what_is_kept(clips: Sequence[ListedClip], folder: WorkFolder, images: bool) -> Iterator[None]:
    """Prints how many clips are done if the body is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        kept = sum(folder.is_done(_key(clip), images) for clip in clips)
        print(f"\n{folder.path}: {kept} of {counted(len(clips), 'clip')} done and kept")
        raise


def check_seen(poses: Poses, persons: int) -> None:
    """Raises SourceFileError if the person who acts is hardly seen."""
    chosen = choose_persons(poses, persons)
    seen = len(chosen.tracks[0].frames)
    if seen < _FEWEST_FRAMES or seen < _LEAST_SEEN * poses.num_frames:
        raise sources.SourceFileError(f"the person who acts is seen in only {seen} of {poses.num_frames} frames")


def to_skeleton(poses: Poses, persons: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """The persons who act, float32 `[T, M, V, 3]`: x and y in pixels and the confidence; and what was changed.

    It begins and ends with frames in which somebody is seen. Where a person is not seen for longer than gaps are
    filled, the joints stay where they were (or will be) with a confidence of 0.
    """
    cleaned, times = _seen(poses, persons)
    bodies = []
    for track in cleaned.tracks:
        near = np.clip(np.searchsorted(track.frames, times, side="right") - 1, 0, None)
        seen = track.frames[near] == times
        confidence = np.where(seen[:, np.newaxis], track.confidence[near], 0)
        bodies.append(np.concatenate([track.joints[near, :, :2], confidence[..., np.newaxis]], axis=-1))
    return np.stack(bodies, axis=1).astype(np.float32), cleaned.notes[len(poses.notes) :]


def _seen(poses: Poses, persons: int) -> tuple[Poses, np.ndarray]:
    """The persons who act, cleaned, and the frames from the first to the last in which one is seen: those of a clip."""
    cleaned = clean(poses, most_persons=persons)
    first = min(int(track.frames[0]) for track in cleaned.tracks)
    last = max(int(track.frames[-1]) for track in cleaned.tracks)
    return cleaned, np.arange(first, last + 1)


def _key(clip: ListedClip) -> str:
    try:
        return clip.key
    except OSError as error:
        raise PreparationError(f"{clip.path}: cannot be read ({error})") from error


@functools.lru_cache(maxsize=1)
def _estimator(model: str) -> Estimator:
    return load_estimator(model, threads=1)  # there is a process for each core


def _make_one(task: tuple[ListedClip, WorkFolder, bool]) -> tuple[int, dict[str, float]]:
    """Makes what is missing of a clip; returns the number of frames that were estimated and seconds by stage."""
    clip, folder, images = task
    key, settings = _key(clip), folder.settings
    frames, seconds = 0, {}
    if not folder.poses_file(key).exists():
        estimator = _estimator(settings.pose_model)
        before, begin = dict(estimator.stages.seconds), time.monotonic()
        try:
            poses = _estimate(clip, settings, estimator)
        except (PosesError, sources.SourceFileError) as error:
            reason = str(error).removeprefix(f"{clip.path}: ")
            write_whole(folder.poses_file(key, ".set_aside"), reason)
            return 0, {}
        finally:
            seconds = {stage: s - before.get(stage, 0.0) for stage, s in estimator.stages.seconds.items()}
        # Decoding happens on another thread; what is left is following the persons.
        seconds["other"] = max(0.0, time.monotonic() - begin - sum(seconds.values()))
        frames = poses.num_frames
        _write(folder.poses_file(key), poses)
    if images:
        begin = time.monotonic()
        try:
            folder.images.write(key, _mosaic(clip, settings, folder.poses(key)))
        except (PosesError, sources.SourceFileError) as error:
            folder.images.set_aside(key, str(error).removeprefix(f"{clip.path}: "))
        seconds["mosaics"] = time.monotonic() - begin
    return frames, seconds


def _estimate(clip: ListedClip, settings: Settings, estimator: Estimator) -> Poses:
    """The poses of everybody in a clip. Raises: PosesError, SourceFileError."""
    with Video(clip.path, settings.fps, clip.start, clip.end) as video:
        poses = collect(frame_poses(video, estimator), estimator.layout, video.frame_rate, video.size, str(clip.path))
        poses = poses.with_notes(*video.notes)
    if poses.num_frames < _FEWEST_FRAMES:
        raise sources.SourceFileError(
            f"its number of frames is {poses.num_frames}; a clip has at least {_FEWEST_FRAMES}"
        )
    if not poses.tracks:
        raise sources.SourceFileError(
            f"nobody in it: no person found in any of its {counted(poses.num_frames, 'frame')}"
        )
    check_seen(poses, settings.persons)
    return poses


def _mosaic(clip: ListedClip, settings: Settings, poses: Poses) -> bytes:
    """The JPEG of five moments of the persons who act, numbered as the skeleton's frames.

    Raises: PosesError, SourceFileError.
    """
    times = _seen(poses, settings.persons)[1]
    tracks = choose_persons(poses, settings.persons).tracks
    places = [dict(zip(track.frames.tolist(), _found_joints(track), strict=True)) for track in tracks]
    assert poses.size is not None  # of a video
    width, height = poses.size

    def box_in(frame: int) -> person_crops.Box | None:
        seen = [found[times[frame]] for found in places if times[frame] in found]
        return person_crops.persons_to_box(seen, (height, width), mosaics.MARGIN)

    moments = person_crops.sampled_frames(len(times), box_in)
    if moments is None:
        raise sources.SourceFileError("nobody in it: no box of a person is inside the picture")
    pictures = _pictures(clip, settings, {int(times[frame]) for frame, _ in moments})
    return mosaics.assemble([(frame, pictures[times[frame]], box) for frame, box in moments])


def _pictures(clip: ListedClip, settings: Settings, wanted: set[int]) -> dict[int, np.ndarray]:
    """The pictures of some frames, as they were numbered for the poses."""
    found = {}
    with Video(clip.path, settings.fps, clip.start, clip.end) as video:
        for frame in video.frames():
            if frame.number in wanted:
                found[frame.number] = frame.picture
            if len(found) == len(wanted):
                return found
    raise sources.SourceFileError(f"it had {max(wanted)} frames, now {max(found, default=0)}; has the file changed?")


def _found_joints(track: Track) -> np.ndarray:
    """`[n, V, 2]`; NaN where a joint was not found."""
    return np.where(track.confidence[..., np.newaxis] > 0, track.joints[..., :2], np.nan)


def _write(path: pathlib.Path, poses: Poses) -> None:
    tracks = poses.tracks
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished, open(unfinished, "wb") as file:
        np.savez(
            file,
            person=np.concatenate([np.full(len(track.frames), track.person) for track in tracks]),
            frame=np.concatenate([track.frames for track in tracks]),
            joints=np.concatenate([track.joints for track in tracks]),
            confidence=np.concatenate([track.confidence for track in tracks]),
            num_frames=poses.num_frames,
            layout=str(poses.layout),
            frame_rate=poses.frame_rate or 0.0,
            size=np.array(poses.size),
            notes=np.array(poses.notes, dtype=np.str_),
        )


def _read(path: pathlib.Path) -> Poses:
    with np.load(path, allow_pickle=False) as stored:
        person, frame, joints, confidence = (stored[name] for name in ("person", "frame", "joints", "confidence"))
        tracks = tuple(
            Track(int(number), frame[person == number], joints[person == number], confidence[person == number])
            for number in np.unique(person)
        )
        width, height = stored["size"].tolist()
        return Poses(
            tracks,
            int(stored["num_frames"]),
            str(stored["layout"]),
            frame_rate=float(stored["frame_rate"]) or None,
            size=(width, height),
            source=str(path),
            notes=tuple(stored["notes"].tolist()),
        )


def shard_of(clips: Iterable[ListedClip], shard: tuple[int, int]) -> list[ListedClip]:
    """The `shard[0]`-th of `shard[1]` shares."""
    return list(clips)[shard[0] :: shard[1]]
