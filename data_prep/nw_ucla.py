"""Prepares NW-UCLA (Northwestern-UCLA Multiview Action 3D) from the distributed JSON skeletons and RGB videos.

    python -m data_prep.nw_ucla --source nw_ucla.tar.xz --out DIR [--overwrite]
    python -m data_prep.nw_ucla --source nw_ucla.tar.xz --videos DIR --out DIR [--images DIR] [--boxes yolo ...]

A file name such as `a05_s04_e02_v01` gives action, subject, replication and camera. In the file, `skeletons` is
(T, 20, 3) in meters and `label` repeats the action as 1 to 10. Cameras 1 and 2 train, camera 3 tests: 1,020 and 464
clips.

`--videos` is the folder of the RGB videos in either distributed form: `multiview_action_videos` with files such as
`a05/v01_s04_e02.avi`, or `multiview_action` with folders such as `view_1/a05_s04_e02` of pictures
`frame_9_..._rgb.jpg`. Other names work too, if folders and file name together give action, subject, replication and
camera. Mosaics of the person are made in the work folder `--images`; `--shard`, `--boxes` and the other options work as
for NTU RGB+D. By default the skeleton locates the person: its coordinates are those of the camera, and projected with
the nominal color camera of the Kinect v1 they fall inside the picture in all but one of three thousand frames.
"""

import functools
import itertools
import pathlib
import re

import numpy as np

from data_prep.formats import sources
from data_prep.images import mosaics, videos
from data_prep.preparation import commands, image_request, video_dataset
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import plain_errors
from mmcl_jax.runtime.files import read_json

ACTIONS = {  # number in the file name -> class name, in label order
    1: "pick up with one hand",
    2: "pick up with two hands",
    3: "drop trash",
    4: "walk around",
    5: "sit down",
    6: "stand up",
    8: "donning",
    9: "doffing",
    11: "throw",
    12: "carry",
}
NUM_JOINTS = 20
NUM_CLIPS = {"train": 1020, "test": 464}  # protocol xview, complete dataset
_NAME = re.compile(r"a(\d{1,3})_s(\d{1,3})_e(\d{1,3})_v(\d{1,3})")
# Parts of a path that belong to a clip name; the last occurrence of each counts.
_PARTS = {
    part: re.compile(rf"(?<![a-z0-9])(?:{spelling})(\d{{1,3}})(?![a-z0-9])", re.IGNORECASE)
    for part, spelling in (("a", "a"), ("s", "s"), ("e", "e"), ("v", "v|view_?"))
}


def read_clip(path: pathlib.Path) -> records.Clip:
    """Reads a JSON file as a clip of one body, skeleton (T, 1, 20, 3).

    Raises: SourceFileError, saying why, if the file is not as distributed. This includes a label that contradicts the
    name, because either of the two may be wrong.
    """
    named = _NAME.fullmatch(path.stem)
    if not named:
        raise sources.SourceFileError("the name is not of the form a05_s04_e02_v01")
    action, subject, replication, camera = map(int, named.groups())
    if action not in ACTIONS:
        raise sources.SourceFileError(f"action {action} in the name, expected one of {list(ACTIONS)}")
    label = list(ACTIONS).index(action)
    try:
        contents = read_json(path)
        with np.errstate(over="ignore"):  # becomes infinite, and writing the records refuses it
            skeleton = np.array(contents["skeletons"], dtype=np.float32)
        stored_label = contents["label"]
    except OSError as error:
        raise sources.SourceFileError(f"cannot be read ({error})") from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise sources.SourceFileError(
            f"not a JSON clip with 'skeletons' and 'label', or truncated ({error!r})"
        ) from error
    if skeleton.shape[:1] == (0,):
        raise sources.SourceFileError("a clip of zero frames")
    if skeleton.shape[1:] != (NUM_JOINTS, 3):
        raise sources.SourceFileError(f"skeletons of shape {skeleton.shape}, expected (T, {NUM_JOINTS}, 3)")
    if stored_label != label + 1:
        raise sources.SourceFileError(
            f"label {stored_label!r} in the file, but the name says {label + 1} (a{action:02d})"
        )
    return records.Clip(path.stem, label, subject, camera, 1, replication, skeleton[:, np.newaxis])


def read_clip_and_image(
    path: pathlib.Path, folder: mosaics.ImageFolder | None
) -> list[records.Clip | records.SetAside]:
    """The clip of a JSON file, with its mosaic if there is a folder of them, and what is set aside."""
    try:
        clip = read_clip(path)
    except sources.SourceFileError as error:
        return [records.SetAside(path.name, str(error))]
    return mosaics.with_mosaic(clip, folder)


def name_of(video: pathlib.Path) -> str | None:
    """The clip name, as a05_s04_e02_v01, that a video's path gives; None if the path lacks a part of it."""
    told = {part: pattern.findall(str(video.with_suffix(""))) for part, pattern in _PARTS.items()}
    return "_".join(f"{part}{int(numbers[-1]):02d}" for part, numbers in told.items()) if all(told.values()) else None


def find_track(path: pathlib.Path) -> mosaics.Track:
    """Where the skeleton of a JSON file is in the color video. Raises: SourceFileError."""
    return mosaics.kinect_v1_track(read_clip(path).skeleton[:, 0])


def find_footage(files: dict[str, pathlib.Path], root: pathlib.Path) -> list[mosaics.Footage]:
    """The footage of the clips whose videos are beneath `root`. Raises: PreparationError if there is none."""
    found: dict[str, pathlib.Path] = {}
    for path in videos.find(root):
        name = name_of(path.relative_to(root))
        if name is not None:
            found.setdefault(name, path)
    example = "a05/v01_s04_e02.avi or view_1/a05_s04_e02/frame_1_rgb.jpg"
    return [
        mosaics.Footage(name, found[name], functools.partial(find_track, files[name]))
        for name in mosaics.match(files, found, root, example)
    ]


def dataset_info(folder: mosaics.ImageFolder | None) -> records.DatasetInfo:
    """Describes the dataset; the images come from `folder`, if it has any."""
    pictures = mosaics.describe_images(folder, "the projected skeleton")
    return records.DatasetInfo(
        dataset="nw_ucla",
        layout="nw_ucla",
        units="metres",
        class_names=tuple(ACTIONS.values()),
        image_source="rgb" if pictures else None,
        preprocessing="skeletons as distributed, untouched" + (f"; {pictures}" if pictures else ""),
    )


def read_contents(
    files: dict[str, pathlib.Path], folder: mosaics.ImageFolder | None, workers: int
) -> video_dataset.Contents:
    """The contents of the JSON files, which this process reads: processes would cost more than they save."""
    del workers
    return video_dataset.Contents(
        find_footage=functools.partial(find_footage, files),
        clips=itertools.chain.from_iterable(read_clip_and_image(path, folder) for path in files.values()),
        num_clips=len(files),
        info=functools.partial(dataset_info, folder),
    )


def prepare(source, out=None, request: image_request.Request = image_request.NO_IMAGES, **options) -> None:
    """Prepares the dataset from the archive or folder `source` of the JSON files; see `video_dataset.prepare`."""
    written = video_dataset.prepare(source, ".json", read_contents, out, request, **options)
    if written is not None:
        commands.print_counts(written, "xview", NUM_CLIPS)


def main(arguments: list[str] | None = None) -> None:
    parsed, request = video_dataset.parse(video_dataset.argument_parser(__doc__), arguments)
    with plain_errors():
        prepare(parsed.source, parsed.out, request, text=parsed.text, overwrite=parsed.overwrite)


if __name__ == "__main__":
    main()
