"""NW-UCLA (Northwestern-UCLA Multiview Action 3D), JSON skeletons as distributed and RGB videos -> records.

    python -m data_prep.nw_ucla --source nw_ucla.tar.xz --out DIR [--overwrite]
    python -m data_prep.nw_ucla --source nw_ucla.tar.xz --videos DIR --out DIR [--images DIR] [--boxes yolo ...]

The file name carries what the clip is, as `a05_s04_e02_v01`: action, subject, replication, camera. Inside, `skeletons`
is (T, 20, 3) in metres and `label` repeats the action as 1 to 10. Cameras 1 and 2 train, camera 3 tests: 1,020 and 464
clips.

`--videos` holds the RGB videos in either form in which they are distributed: `multiview_action_videos` with files as
`a05/v01_s04_e02.avi`, or `multiview_action` with folders as `view_1/a05_s04_e02` of pictures `frame_9_..._rgb.jpg`; all
that counts is that folders and name together say action, subject, replication and camera. Mosaics of the person are
made in the work folder `--images` (`--shard`, `--boxes` and the rest as for NTU RGB+D). By default the skeleton finds
the person: its coordinates are the camera's own, and projected with the nominal Kinect v1 colour camera they lie in the
picture in all but one of three thousand frames.
"""

import functools
import itertools
import json
import pathlib
import re

import numpy as np

from data_prep.formats import sources
from data_prep.images import image_request, mosaics, videos
from data_prep.text import text_sets
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import plain_errors

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
# Parts of a path that tell of a clip; of several, the last one counts.
_PARTS = {
    part: re.compile(rf"(?<![a-z0-9])(?:{spelling})(\d{{1,3}})(?![a-z0-9])", re.IGNORECASE)
    for part, spelling in (("a", "a"), ("s", "s"), ("e", "e"), ("v", "v|view_?"))
}


def read_clip(path: pathlib.Path) -> records.Clip:
    """One JSON file as a clip of one body, skeleton (T, 1, 20, 3).

    Raises: SourceFileError, saying why, where the file is not as distributed. A label that contradicts the name is such
    a case: there is no telling which of the two is right.
    """
    named = _NAME.fullmatch(path.stem)
    if not named:
        raise sources.SourceFileError("the name is not of the form a05_s04_e02_v01")
    action, subject, replication, camera = map(int, named.groups())
    if action not in ACTIONS:
        raise sources.SourceFileError(f"action {action} in the name, expected one of {list(ACTIONS)}")
    label = list(ACTIONS).index(action)
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        skeleton = np.array(contents["skeletons"], dtype=np.float32)
        stored_label = contents["label"]
    except OSError as error:
        raise sources.SourceFileError(f"cannot be read ({error})") from error
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
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
    """The clip of a JSON file with its mosaic, if there is a folder of them, and what had to be set aside."""
    try:
        clip = read_clip(path)
    except sources.SourceFileError as error:
        return [records.SetAside(path.name, str(error))]
    return mosaics.with_mosaic(clip, folder)


def name_of(video: pathlib.Path) -> str | None:
    """The clip's name, as a05_s04_e02_v01, that the path of a video spells; None where it spells none."""
    told = {part: pattern.findall(str(video.with_suffix(""))) for part, pattern in _PARTS.items()}
    return "_".join(f"{part}{int(numbers[-1]):02d}" for part, numbers in told.items()) if all(told.values()) else None


def find_track(path: pathlib.Path) -> mosaics.Track:
    """Where the skeleton of a JSON file is in the colour video. Raises: SourceFileError."""
    try:
        return mosaics.kinect_v1_track(read_clip(path).skeleton[:, 0])
    except sources.SourceFileError as error:
        raise sources.SourceFileError(f"its skeleton cannot be used ({error})") from error


def find_footage(files: dict[str, pathlib.Path], root: pathlib.Path) -> list[mosaics.Footage]:
    """What the mosaics of those clips are made of whose videos lie beneath `root`. Raises: PreparationError."""
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
    """Of records whose mosaics, if any, come from `folder`."""
    images = folder is not None and bool(folder.done())
    pictures = f"; {folder.describe('the projected skeleton')}" if images else ""
    return records.DatasetInfo(
        dataset="nw_ucla",
        layout="nw_ucla",
        units="metres",
        class_names=tuple(ACTIONS.values()),
        image_source="rgb" if images else None,
        preprocessing="skeletons as distributed, untouched" + pictures,
    )


def prepare(
    source,
    out=None,
    request: image_request.Request = image_request.NO_IMAGES,
    *,
    text=None,
    overwrite: bool = False,
    workers: int | None = None,
) -> None:
    """Makes mosaics where there are videos, then the records folder `out`; of a shard, the mosaics alone.

    Args:
      source: the archive or folder of the JSON files.
      out: the records folder; not used with a shard.
      request: what is to be done about images.
      text: folder of text features; they are added to the records.
      overwrite: replace existing records, after the new ones are complete.
      workers: processes that make mosaics; by default one for each core.

    Raises: PreparationError.
    """
    out = request.check(out, text, overwrite)
    with sources.open_source(source, ".json", request.scratch(out)) as (files, set_aside):
        request.make(functools.partial(find_footage, files), out, workers or sources.usable_cores())
        if request.shard is not None:
            return
        folder = request.folder(out)
        clips = itertools.chain.from_iterable(read_clip_and_image(path, folder) for path in files.values())
        info = dataset_info(folder)
        records.write_records(out, info, clips, total=len(files), set_aside=set_aside, overwrite=overwrite)
    if text is not None:
        text_sets.join(out, text)
    sources.print_counts(out, "xview", NUM_CLIPS)


def main(arguments: list[str] | None = None) -> None:
    parser = sources.argument_parser(__doc__, out_required=False)
    image_request.add_arguments(parser)
    parsed = parser.parse_args(arguments)
    request = image_request.parse(parser, parsed)
    with plain_errors():
        prepare(parsed.source, parsed.out, request, text=parsed.text, overwrite=parsed.overwrite)


if __name__ == "__main__":
    main()
