"""UTD-MHAD as distributed, MATLAB files of skeletons and depth, RGB videos -> records with mosaics of the person.

    python -m data_prep.utd_mhad --source utd_mhad.tar.xz --out DIR [--no_images] [--overwrite]
    python -m data_prep.utd_mhad --source utd_mhad.tar.xz --videos DIR --out DIR [--images DIR] [--boxes yolo ...]

Files are `a{action}_s{subject}_t{trial}_skeleton.mat` with `d_skel` (20, 3, T) in metres, and `..._depth.mat` with
`d_depth` (240, 320, T), uint16 millimetres, background already 0. Without `--videos` a depth frame, coloured, stands in
for the image. `--videos` holds the RGB videos, `..._color.avi`, 640 x 480: mosaics are then made of these, in the work
folder `--images`, and depth is not read (`--shard`, `--boxes` and the rest as for NTU RGB+D). The person is cut out by
the projected skeleton. Subjects 1, 3, 5 and 7 train, the others test: 431 and 430.
"""

import dataclasses
import functools
import itertools
import pathlib
import re

import numpy as np

from data_prep.formats import sources
from data_prep.images import image_request, kinect_v1, mosaics, person_crops, videos
from data_prep.text import text_sets
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
_LEAST_SHARE = 0.98  # of the foreground; a box of joints that holds less has missed a part of the person
_VIDEO_SUFFIX = "_color"
_NAME = re.compile(r"a(\d{1,3})_s(\d{1,3})_t(\d{1,3})_(skeleton|depth|inertial)")
_DEPTH_SPAN = 700.0  # millimetres in front of and behind the person that the colours cover
_COLOURS = np.array(  # far to near
    [[40, 20, 110], [30, 110, 200], [40, 200, 150], [240, 220, 70], [230, 60, 40]], dtype=np.float64
)


def colour_depth(depth: np.ndarray, person: float) -> np.ndarray:
    """A depth frame [H, W] in millimetres as RGB: near red, at `person` (median depth) green, far blue, 0 is black."""
    nearness = np.clip(0.5 + (person - depth.astype(np.float64)) / (2 * _DEPTH_SPAN), 0, 1)
    stops = np.linspace(0, 1, len(_COLOURS))
    colours = np.stack([np.interp(nearness, stops, _COLOURS[:, channel]) for channel in range(3)], axis=-1)
    return np.where(depth[..., np.newaxis] > 0, colours, 0).astype(np.uint8)


def person_box(joints: np.ndarray, depth: np.ndarray) -> person_crops.Box | None:
    """The box of the person in a depth frame [H, W]: by the projected joints [V, 3]; where those miss, by the depth.

    None where the frame shows nobody.
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
    """The mosaic of a clip, as JPEG. `skeleton` [T, V, 3] in metres, `video` [H, W, T'] in millimetres.

    Raises: SourceFileError where nobody is in the video.
    """
    frames = np.moveaxis(video[:, :, person_crops.uniform_frame_indices(video.shape[2])], 2, 0)
    joints = skeleton[person_crops.uniform_frame_indices(len(skeleton))]
    if not frames.any():
        raise sources.SourceFileError("a depth video without a foreground")
    person = float(np.median(frames[frames > 0]))
    whole = (0, 0, frames.shape[2], frames.shape[1])
    crops = []
    for frame_joints, frame in zip(joints, frames, strict=True):
        box = person_box(frame_joints, frame) or whole  # a frame without anybody stays black
        crops.append(person_crops.crop_and_resize(colour_depth(frame, person), box))
    return person_crops.encode_jpeg(person_crops.mosaic(crops))


def read_skeleton(path: pathlib.Path) -> np.ndarray:
    """`d_skel` as float32 (T, 20, 3). Raises: SourceFileError."""
    skeleton = sources.read_mat(path, "d_skel", "fiu")
    if skeleton.ndim != 3 or skeleton.shape[:2] != (NUM_JOINTS, 3):
        raise sources.SourceFileError(f"d_skel of shape {skeleton.shape}, expected ({NUM_JOINTS}, 3, T)")
    if not skeleton.shape[2]:
        raise sources.SourceFileError("a clip of zero frames")
    return np.ascontiguousarray(skeleton.transpose(2, 0, 1), dtype=np.float32)


def read_depth(path: pathlib.Path) -> np.ndarray:
    """`d_depth`, (240, 320, T) in millimetres. Raises: SourceFileError."""
    video = sources.read_mat(path, "d_depth", "iu")
    if video.ndim != 3 or video.shape[:2] != kinect_v1.DEPTH.frame_size or not video.shape[2]:
        raise sources.SourceFileError(f"d_depth of shape {video.shape}, expected (240, 320, T) with T > 0")
    return video


@dataclasses.dataclass(frozen=True)
class _Task:
    """The task of reading one clip, its image of the depth video or of the folder of mosaics; None is none."""

    skeleton: pathlib.Path
    depth: pathlib.Path | None
    folder: mosaics.ImageFolder | None


def read_clip(task: _Task) -> list[records.Clip | records.SetAside]:
    """The clip of a task, and what had to be set aside. A clip whose image cannot be had is kept, without it."""
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
        return [clip, records.SetAside(task.depth.name, f"{error}; the clip is kept, without an image")]
    return [clip]


def _clip_name(skeleton: pathlib.Path) -> str:
    return skeleton.stem.removesuffix("_skeleton")


def find_track(path: pathlib.Path) -> mosaics.Track:
    """Where the skeleton of a file is in the colour video. Raises: SourceFileError."""
    try:
        return mosaics.kinect_v1_track(read_skeleton(path))
    except sources.SourceFileError as error:
        raise sources.SourceFileError(f"its skeleton cannot be used ({error})") from error


def find_footage(tasks: list[_Task], root: pathlib.Path) -> list[mosaics.Footage]:
    """What the mosaics of those clips are made of whose videos lie beneath `root`. Raises: PreparationError."""
    skeletons = {_clip_name(task.skeleton): task.skeleton for task in tasks}
    found = {path.stem.removesuffix(_VIDEO_SUFFIX): path for path in videos.find(root)}
    return [
        mosaics.Footage(name, found[name], functools.partial(find_track, skeletons[name]))
        for name in mosaics.match(skeletons, found, root, f"{next(iter(skeletons), 'NAME')}{_VIDEO_SUFFIX}.avi")
    ]


def pair_files(files: dict[str, pathlib.Path], depth: bool, folder: mosaics.ImageFolder | None):
    """Tasks for `read_clip` in the order of their names, and what was set aside: odd names, files without partner.

    Images are made of the `depth` videos, or come from the `folder` of mosaics.
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
            set_aside.append(records.SetAside(path.name, "no depth file; the clip is kept, without an image"))
        tasks.append(_Task(path, depth_path, folder))
    return tasks, set_aside


def dataset_info(depth: bool, folder: mosaics.ImageFolder | None) -> records.DatasetInfo:
    """Of records whose images are made of `depth` videos, or come from `folder`."""
    pictures, source = "no images", None
    if depth:
        pictures = "five depth frames coloured, standing in for RGB, person cropped by the projected skeleton"
        source = "depth"
    elif folder is not None and folder.done():
        pictures, source = folder.describe("the projected skeleton"), "rgb"
    return records.DatasetInfo(
        dataset="utd_mhad",
        layout="utd_mhad",
        units="metres",
        class_names=ACTIONS,
        image_source=source,
        preprocessing=f"skeletons as distributed, untouched; {pictures}",
    )


def prepare(
    source,
    out=None,
    request: image_request.Request = image_request.NO_IMAGES,
    *,
    depth: bool = True,
    text=None,
    overwrite: bool = False,
    workers: int | None = None,
) -> None:
    """Makes mosaics where there are RGB videos, then the records folder `out`; of a shard, the mosaics alone.

    Args:
      source: the archive or folder of the `.mat` files.
      out: the records folder; not used with a shard.
      request: what is to be done about images of RGB videos.
      depth: whether without such images depth videos are to stand in.
      text: folder of text features; they are added to the records.
      overwrite: replace existing records, after the new ones are complete.
      workers: processes; by default one for each core.

    Raises: PreparationError.
    """
    workers = workers or sources.usable_cores()
    out = request.check(out, text, overwrite)
    with sources.open_source(source, ".mat", request.scratch(out)) as (files, set_aside):
        folder = request.folder(out)
        depth = depth and folder is None and any(stem.endswith("_depth") for stem in files)
        tasks, unpaired = pair_files(files, depth, folder)
        request.make(functools.partial(find_footage, tasks), out, workers)
        if request.shard is not None:
            return
        clips = itertools.chain.from_iterable(sources.map_in_order(read_clip, tasks, workers))
        set_aside = [*set_aside, *unpaired]
        info = dataset_info(depth, folder)
        records.write_records(out, info, clips, total=len(tasks), set_aside=set_aside, overwrite=overwrite)
    if text is not None:
        text_sets.join(out, text)
    sources.print_counts(out, "xsub", NUM_CLIPS)


def main(arguments: list[str] | None = None) -> None:
    parser = sources.argument_parser(__doc__, out_required=False)
    parser.add_argument("--no_images", action="store_true", help="skeletons alone; depth files are not read")
    image_request.add_arguments(parser)
    parsed = parser.parse_args(arguments)
    request = image_request.parse(parser, parsed)
    if parsed.no_images and request != image_request.NO_IMAGES:
        parser.error("--no_images and --videos or --images exclude each other")
    with plain_errors():
        prepare(
            parsed.source,
            parsed.out,
            request,
            depth=not parsed.no_images,
            text=parsed.text,
            overwrite=parsed.overwrite,
        )


if __name__ == "__main__":
    main()
