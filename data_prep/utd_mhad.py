"""Prepares UTD-MHAD from the distributed MATLAB files of skeletons and depth and, optionally, RGB videos.

    python -m data_prep.utd_mhad --source utd_mhad.tar.xz --out DIR [--no_images] [--overwrite]
    python -m data_prep.utd_mhad --source utd_mhad.tar.xz --videos DIR --out DIR [--images DIR] [--boxes yolo ...]

The files are `a{action}_s{subject}_t{trial}_skeleton.mat` with `d_skel` (20, 3, T) in meters, and `..._depth.mat` with
`d_depth` (240, 320, T), uint16 in millimeters, background already 0. Without `--videos`, colored depth frames stand in
for RGB images. `--videos` is the folder of the RGB videos, `..._color.avi`, 640 x 480. Mosaics are then made from them
in the work folder `--images`, and depth files are not read; `--shard`, `--boxes` and the other options work as for NTU
RGB+D. The projected skeleton locates the person. Subjects 1, 3, 5 and 7 train, the others test: 431 and 430 clips.
"""

import dataclasses
import functools
import itertools
import pathlib
import re

import numpy as np

from data_prep.formats import sources, worker_processes
from data_prep.images import kinect_v1, mosaics, person_crops, videos
from data_prep.preparation import commands, image_request, video_dataset
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import plain_errors

ACTIONS = (
    "swipe left",
    "swipe right",
    "wave",
    "clap",
    "throw",
    "arm cross",
    "basketball shoot",
    "draw x",
    "draw circle clockwise",
    "draw circle counter clockwise",
    "draw triangle",
    "bowling",
    "boxing",
    "baseball swing",
    "tennis swing",
    "arm curl",
    "tennis serve",
    "push",
    "knock",
    "catch",
    "pickup and throw",
    "jog",
    "walk",
    "sit to stand",
    "stand to sit",
    "lunge",
    "squat",
)
NUM_JOINTS = 20
NUM_CLIPS = {"train": 431, "test": 430}  # protocol xsub, complete dataset: subjects 1, 6 and 8 lack one clip each
_MARGIN = 0.08
_LEAST_SHARE = 0.98  # of the foreground; a box around the joints that holds less misses a part of the person
_VIDEO_SUFFIX = "_color"
_NAME = re.compile(r"a(\d{1,3})_s(\d{1,3})_t(\d{1,3})_(skeleton|depth|inertial)")
_DEPTH_SPAN = 700.0  # millimeters in front of and behind the person that the colors cover
_COLORS = np.array(  # far to near
    [[40, 20, 110], [30, 110, 200], [40, 200, 150], [240, 220, 70], [230, 60, 40]], dtype=np.float64
)


def color_depth(depth: np.ndarray, person: float) -> np.ndarray:
    """Colors a depth frame [H, W], in millimeters: uint8 RGB [H, W, 3].

    Near is red, `person` (the median depth of the person) green, far blue; pixels of depth 0 are black.
    """
    nearness = np.clip(0.5 + (person - depth.astype(np.float64)) / (2 * _DEPTH_SPAN), 0, 1)
    stops = np.linspace(0, 1, len(_COLORS))
    colors = np.stack([np.interp(nearness, stops, _COLORS[:, channel]) for channel in range(3)], axis=-1)
    return np.where(depth[..., np.newaxis] > 0, colors, 0).astype(np.uint8)


def person_box(joints: np.ndarray, depth: np.ndarray) -> person_crops.Box | None:
    """The box of the person in a depth frame [H, W].

    The projected joints [V, 3] give the box. If they miss a part of the foreground, the foreground gives it instead.
    None if the frame shows nobody.
    """
    foreground = depth > 0
    segmented = person_crops.mask_to_box(foreground)
    projected = person_crops.joints_to_box(kinect_v1.DEPTH.project(joints), depth.shape, _MARGIN)
    if projected is None or segmented is None:
        return segmented
    left, top, right, bottom = projected
    hit = foreground[top:bottom, left:right].sum() >= _LEAST_SHARE * foreground.sum()
    return projected if hit else segmented


def depth_mosaic(skeleton: np.ndarray, video: np.ndarray) -> bytes:
    """The mosaic of a clip, as JPEG.

    Args:
      skeleton: [T, V, 3], meters.
      video: [H, W, T'], millimeters.

    Raises: SourceFileError if the video shows nobody.
    """
    frames = np.moveaxis(video[:, :, person_crops.uniform_frame_indices(video.shape[2])], 2, 0)
    joints = skeleton[person_crops.uniform_frame_indices(len(skeleton))]
    if not (frames > 0).any():
        raise sources.SourceFileError("a depth video without a foreground")
    person = float(np.median(frames[frames > 0]))
    whole = (0, 0, frames.shape[2], frames.shape[1])
    crops = []
    for frame_joints, frame in zip(joints, frames, strict=True):
        box = person_box(frame_joints, frame) or whole  # a frame that shows nobody stays black
        crops.append(person_crops.crop_and_resize(color_depth(frame, person), box))
    return person_crops.encode_jpeg(person_crops.mosaic(crops))


def read_skeleton(path: pathlib.Path) -> np.ndarray:
    """`d_skel` as float32 (T, 20, 3). Raises: SourceFileError."""
    return sources.read_mat_skeleton(path, "d_skel", NUM_JOINTS)


def read_depth(path: pathlib.Path) -> np.ndarray:
    """`d_depth`, (240, 320, T) in millimeters. Raises: SourceFileError."""
    video = sources.read_mat(path, "d_depth", "iu")
    if video.ndim != 3 or video.shape[:2] != kinect_v1.DEPTH.frame_size or not video.shape[2]:
        raise sources.SourceFileError(f"d_depth of shape {video.shape}, expected (240, 320, T) with T > 0")
    return video


@dataclasses.dataclass(frozen=True)
class _Task:
    """One clip to read.

    Attributes:
      skeleton: the file of the skeleton.
      depth: the file of the depth video that its image is made from; None: not made from depth.
      folder: the folder of mosaics that has its image; None: there is none.
    """

    skeleton: pathlib.Path
    depth: pathlib.Path | None
    folder: mosaics.ImageFolder | None


def read_clip(task: _Task) -> list[records.Clip | records.SetAside]:
    """The clip of a task, and what is set aside. A clip whose image cannot be made is kept without it."""
    action, subject, trial = (int(number) for number in _NAME.fullmatch(task.skeleton.stem).groups()[:3])
    try:
        skeleton = read_skeleton(task.skeleton)
    except sources.SourceFileError as error:
        return [records.SetAside(task.skeleton.name, str(error))]
    clip = records.Clip(_clip_name(task.skeleton), action - 1, subject, 1, 1, trial, skeleton[:, np.newaxis])
    if task.depth is None:
        return mosaics.with_mosaic(clip, task.folder)
    try:
        clip.image = depth_mosaic(skeleton, read_depth(task.depth))
    except sources.SourceFileError as error:
        return [clip, records.SetAside(task.depth.name, f"{error}; the clip is kept, without an image", True)]
    return [clip]


def _clip_name(skeleton: pathlib.Path) -> str:
    return skeleton.stem.removesuffix("_skeleton")


def find_track(path: pathlib.Path) -> mosaics.Track:
    """Where the skeleton of a file is in the color video. Raises: SourceFileError."""
    return mosaics.kinect_v1_track(read_skeleton(path))


def find_footage(tasks: list[_Task], root: pathlib.Path) -> list[mosaics.Footage]:
    """The footage of the clips whose videos are beneath `root`. Raises: PreparationError if there is none."""
    skeletons = {_clip_name(task.skeleton): task.skeleton for task in tasks}
    found = {path.stem.removesuffix(_VIDEO_SUFFIX): path for path in videos.find(root)}
    return [
        mosaics.Footage(name, found[name], functools.partial(find_track, skeletons[name]))
        for name in mosaics.match(skeletons, found, root, f"{next(iter(skeletons), 'NAME')}{_VIDEO_SUFFIX}.avi")
    ]


def pair_files(files: dict[str, pathlib.Path], depth: bool, folder: mosaics.ImageFolder | None):
    """Tasks for `read_clip`, sorted by clip, and the files set aside: unknown names, and files without a partner.

    Args:
      files: the files by stem.
      depth: whether the images are made from depth videos.
      folder: the folder of mosaics, if the images come from one.
    """
    set_aside, skeletons = [], {}
    for stem, path in files.items():
        named = _NAME.fullmatch(stem)
        if not named or not 1 <= int(named[1]) <= len(ACTIONS):
            form = f"a1_s1_t1_skeleton.mat, actions 1 to {len(ACTIONS)}"
            set_aside.append(records.SetAside(path.name, f"the name is not of the form {form}"))
        elif named[4] == "skeleton":
            skeletons[tuple(int(number) for number in named.groups()[:3])] = path
        elif named[4] == "depth" and stem.replace("_depth", "_skeleton") not in files:
            set_aside.append(records.SetAside(path.name, "no skeleton file of this clip"))
    tasks = []
    for _, path in sorted(skeletons.items()):
        depth_path = files.get(path.stem.replace("_skeleton", "_depth")) if depth else None
        if depth and depth_path is None:
            set_aside.append(records.SetAside(path.name, "no depth file; the clip is kept, without an image", True))
        tasks.append(_Task(path, depth_path, folder))
    return tasks, set_aside


def dataset_info(depth: bool, folder: mosaics.ImageFolder | None) -> records.DatasetInfo:
    """Describes the dataset, whose images are made from `depth` videos or come from `folder`."""
    pictures, source = "no images", None
    if depth:
        pictures = "five depth frames, colored, standing in for RGB, person cropped by the projected skeleton"
        source = "depth"
    elif (described := mosaics.describe_images(folder, "the projected skeleton")) is not None:
        pictures, source = described, "rgb"
    return records.DatasetInfo(
        dataset="utd_mhad",
        layout="utd_mhad",
        units="metres",
        class_names=ACTIONS,
        image_source=source,
        preprocessing=f"skeletons as distributed, untouched; {pictures}",
    )


def read_contents(
    files: dict[str, pathlib.Path], folder: mosaics.ImageFolder | None, workers: int, *, depth: bool
) -> video_dataset.Contents:
    """The contents of the MATLAB files; with `depth`, and without mosaics, depth videos stand in for RGB images."""
    depth = depth and folder is None and any(stem.endswith("_depth") for stem in files)
    tasks, set_aside = pair_files(files, depth, folder)
    return video_dataset.Contents(
        find_footage=functools.partial(find_footage, tasks),
        clips=itertools.chain.from_iterable(worker_processes.map_in_order(read_clip, tasks, workers)),
        num_clips=len(tasks),
        info=functools.partial(dataset_info, depth, folder),
        set_aside=set_aside,
    )


def prepare(
    source, out=None, request: image_request.Request = image_request.NO_IMAGES, *, depth: bool = True, **options
) -> None:
    """Prepares the dataset from the archive or folder `source` of the MATLAB files; see `video_dataset.prepare`.

    `depth`: whether depth videos stand in for RGB images if there are none.
    """
    read = functools.partial(read_contents, depth=depth)
    written = video_dataset.prepare(source, ".mat", read, out, request, **options)
    if written is not None:
        commands.print_counts(written, "xsub", NUM_CLIPS)


def main(arguments: list[str] | None = None) -> None:
    parser = video_dataset.argument_parser(__doc__)
    parser.add_argument("--no_images", action="store_true", help="store skeletons only; depth files are not read")
    parsed, request = video_dataset.parse(parser, arguments)
    if parsed.no_images and request != image_request.NO_IMAGES:
        parser.error("--no_images and --videos or --images exclude each other")
    depth = not parsed.no_images
    with plain_errors():
        prepare(parsed.source, parsed.out, request, depth=depth, text=parsed.text, overwrite=parsed.overwrite)


if __name__ == "__main__":
    main()
