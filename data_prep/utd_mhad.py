"""UTD-MHAD as distributed, MATLAB files of skeletons and depth videos -> records with mosaics of the person.

    python -m data_prep.utd_mhad --source utd_mhad.tar.xz --out DIR [--no_images] [--overwrite]

Files are `a{action}_s{subject}_t{trial}_skeleton.mat` with `d_skel` (20, 3, T) in metres, and `..._depth.mat` with
`d_depth` (240, 320, T), uint16 millimetres, background already 0. RGB videos are not read: depth, coloured, stands
in for it. The person is cut out by the projected skeleton. Subjects 1, 3, 5 and 7 train, the others test: 431 and 430.
"""

import pathlib
import re
from collections.abc import Iterator

import numpy as np

from data_prep import builders, person_crops, sources
from mmcl_jax import records

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
FRAME_SIZE = (240, 320)
FOCAL_LENGTH = 285.63  # of the Kinect v1 depth camera, in pixels
CENTRE = (160.0, 120.0)
_MARGIN = 0.08
_LEAST_SHARE = 0.98  # of the foreground; a box of joints that holds less has missed a part of the person
_NAME = re.compile(r"a(\d{1,3})_s(\d{1,3})_t(\d{1,3})_(skeleton|depth|inertial)")
_DEPTH_SPAN = 700.0  # millimetres in front of and behind the person that the colours cover
_COLOURS = np.array(  # far to near
    [[40, 20, 110], [30, 110, 200], [40, 200, 150], [240, 220, 70], [230, 60, 40]], dtype=np.float64
)


def project(joints: np.ndarray) -> np.ndarray:
    """Joints [..., 3] in metres, y up, as pixels [..., 2] of the depth camera; NaN where a joint is behind it."""
    x, y, depth = np.moveaxis(joints, -1, 0)
    depth = np.where(depth > 0, depth, np.nan)
    return np.stack([CENTRE[0] + FOCAL_LENGTH * x / depth, CENTRE[1] - FOCAL_LENGTH * y / depth], axis=-1)


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
    projected = person_crops.joints_to_box(project(joints), depth.shape, _MARGIN)
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
    if video.ndim != 3 or video.shape[:2] != FRAME_SIZE or not video.shape[2]:
        raise sources.SourceFileError(f"d_depth of shape {video.shape}, expected (240, 320, T) with T > 0")
    return video


def read_clip(task: tuple[pathlib.Path, pathlib.Path | None]) -> list[builders.Clip | builders.SetAside]:
    """The clip of a skeleton file and its depth file (None: no image is wanted), and what had to be set aside of them.

    A clip whose depth video cannot be used is kept, without its image.
    """
    skeleton_path, depth_path = task
    action, subject, trial = (int(number) for number in _NAME.fullmatch(skeleton_path.stem).groups()[:3])
    try:
        skeleton = read_skeleton(skeleton_path)
    except sources.SourceFileError as error:
        return [builders.SetAside(skeleton_path.name, str(error))]
    name = skeleton_path.stem.removesuffix("_skeleton")
    clip = builders.Clip(name, action - 1, subject, 1, 1, trial, skeleton[:, np.newaxis])
    if depth_path is None:
        return [clip]
    try:
        clip.image = depth_mosaic(skeleton, read_depth(depth_path))
    except sources.SourceFileError as error:
        return [clip, builders.SetAside(depth_path.name, f"{error}; the clip is kept, without an image")]
    return [clip]


def pair_files(files: dict[str, pathlib.Path], images: bool):
    """Tasks for `read_clip` in the order of their names, and what was set aside: odd names, files without partner."""
    set_aside, skeletons = [], {}
    for stem, path in files.items():
        named = _NAME.fullmatch(stem)
        if not named or not 1 <= int(named[1]) <= len(ACTIONS):
            form = f"a1_s1_t1_skeleton.mat, actions 1 to {len(ACTIONS)}"
            set_aside.append(builders.SetAside(path.name, f"the name is not of the form {form}"))
        elif named[4] == "skeleton":
            skeletons[tuple(int(number) for number in named.groups()[:3])] = path
        elif named[4] == "depth" and stem.replace("_depth", "_skeleton") not in files:
            set_aside.append(builders.SetAside(path.name, "no skeleton file of this clip"))
    tasks = []
    for _, path in sorted(skeletons.items()):
        depth = files.get(path.stem.replace("_skeleton", "_depth"))
        if images and depth is None:
            set_aside.append(builders.SetAside(path.name, "no depth file; the clip is kept, without an image"))
        tasks.append((path, depth if images else None))
    return tasks, set_aside


def read_clips(tasks, workers: int) -> Iterator[builders.Clip | builders.SetAside]:
    """The clips of all tasks, in order, read by `workers` processes."""
    for items in sources.map_in_order(read_clip, tasks, workers):
        yield from items


def dataset_info(images: bool) -> records.DatasetInfo:
    mosaics = "five depth frames coloured, standing in for RGB, person cropped by the projected skeleton"
    return records.DatasetInfo(
        dataset="utd_mhad",
        layout="utd_mhad",
        units="metres",
        class_names=ACTIONS,
        image_source="depth" if images else None,
        preprocessing="skeletons as distributed, untouched; " + (mosaics if images else "no images"),
    )


def prepare(source, out, images: bool = True, overwrite: bool = False, workers: int | None = None) -> None:
    """Writes the records folder `out` from the archive or folder `source`. Raises: PreparationError."""
    out = builders.check_destination(out, overwrite)
    with sources.open_source(source, ".mat", out.with_name(out.name + ".unpacked")) as (files, set_aside):
        images = images and any(stem.endswith("_depth") for stem in files)
        tasks, unpaired = pair_files(files, images)
        clips = read_clips(tasks, workers or sources.usable_cores())
        set_aside = [*set_aside, *unpaired]
        info = dataset_info(images)
        builders.write_records(out, info, clips, total=len(tasks), set_aside=set_aside, overwrite=overwrite)
    builders.print_counts(out, "xsub", NUM_CLIPS)


def main(arguments: list[str] | None = None) -> None:
    parser = sources.argument_parser(__doc__)
    parser.add_argument("--no_images", action="store_true", help="skeletons alone; depth files are not read")
    parsed = parser.parse_args(arguments)
    with builders.plain_errors():
        prepare(parsed.source, parsed.out, not parsed.no_images, parsed.overwrite)


if __name__ == "__main__":
    main()
