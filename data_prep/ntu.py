"""Prepares NTU RGB+D 60 and 120 from `.skeleton` files and, optionally, RGB videos: records for all four benchmarks.

    python -m data_prep.ntu --skeletons DIR [--videos DIR] [--images DIR] [--text DIR] --out DIR [--overwrite]
    python -m data_prep.ntu --skeletons DIR --videos DIR --images DIR --shard 3/16

`--skeletons` is a folder with the `.skeleton` files anywhere beneath it, or the archive of NTU RGB+D 60. For NTU RGB+D
120, unpack both archives into a folder. The skeletons are denoised and translated as in the published preprocessing.
The 535 clips whose skeletons the authors list as missing are left out.

`--videos` is the folder of the `..._rgb.avi` files. Five frames of each clip are cropped around the person and put side
by side in one JPEG per clip. The skeleton's coordinates in the color video locate the person or, with `--boxes yolo`, a
detector does. The mosaics are stored in the work folder `--images` (default: OUT.images). Existing mosaics are not made
again, so an interrupted run continues where it stopped. `--shard i/n` (i from 0) makes only the i-th of n shares of the
mosaics and no records: run all n shards on any machines, then the command once without `--shard`. `--images` without
`--videos` uses the mosaics already in that folder. `--text` adds text features to the records; it names the `--out`
folder of `data_prep.text_features`.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from data_prep.formats import sources, worker_processes
from data_prep.formats.ntu_clips import (
    ACTIONS,
    LAST_SETUP_OF_60,
    NUM_CLIPS,
    TWO_PERSON_ACTIONS,
    inventory,
    missing_skeletons,
    out_of_range,
    parse_name,
)
from data_prep.images import mosaics, person_crops
from data_prep.preparation import commands, image_request, video_dataset
from mmcl_jax.data import ntu_skeletons, records
from mmcl_jax.runtime.errors import plain_errors

COLOR_SIZE = (1080, 1920)  # of the videos as distributed, to which the skeletons' color coordinates refer
_VIDEO_SUFFIX = "_rgb"


def person_box(actors: tuple[tuple[ntu_skeletons.Body, ...], ...], frame: int) -> person_crops.Box | None:
    """The box around the given actors in a frame of the color video; None if none of them is in that frame."""
    persons = [body.colors[at] for bodies in actors for body in bodies for at in np.flatnonzero(body.frames == frame)]
    return person_crops.persons_to_box(persons, COLOR_SIZE, mosaics.MARGIN)


def find_track(skeleton: pathlib.Path, num_persons: int) -> mosaics.Track:
    """Where a `.skeleton` file has its first `num_persons` actors in the color video. Raises: SourceFileError."""
    clip = ntu_skeletons.read(skeleton)
    actors = ntu_skeletons.denoise(clip).bodies[:num_persons]
    return mosaics.Track(clip.num_frames, COLOR_SIZE, functools.partial(person_box, actors), frame_by_frame=True)


def find_footage(skeletons: dict[str, pathlib.Path], root: pathlib.Path) -> list[mosaics.Footage]:
    """The footage of the clips whose videos are beneath `root`. Raises: PreparationError if there is none."""
    found = {path.stem.removesuffix(_VIDEO_SUFFIX): path for path in sorted(root.rglob(f"*{_VIDEO_SUFFIX}.avi"))}
    footages = []
    for name in mosaics.match(skeletons, found, root, f"{next(iter(skeletons), 'NAME')}{_VIDEO_SUFFIX}.avi"):
        num_persons = 2 if parse_name(name).action in TWO_PERSON_ACTIONS else 1
        track = functools.partial(find_track, skeletons[name], num_persons)
        footages.append(mosaics.Footage(name, found[name], track, num_persons))
    return footages


@dataclasses.dataclass(frozen=True)
class _Task:
    """One clip to read: its file, and the folder of the mosaics (None: no images)."""

    path: pathlib.Path
    folder: mosaics.ImageFolder | None


def read_clip(task: _Task) -> list[records.Clip | records.SetAside]:
    """The clip of a `.skeleton` file, and what is set aside. A clip without a mosaic is kept."""
    name = parse_name(task.path.stem)
    try:
        actors = ntu_skeletons.denoise(ntu_skeletons.read(task.path))
        skeleton = ntu_skeletons.translate(actors.joints)
    except sources.SourceFileError as error:
        return [records.SetAside(task.path.name, str(error))]
    clip = records.Clip(str(name), name.action - 1, **name.fields, skeleton=skeleton)
    return mosaics.with_mosaic(clip, task.folder)


def read_clips(
    files: Iterable[pathlib.Path], folder: mosaics.ImageFolder | None, workers: int
) -> Iterator[records.Clip | records.SetAside]:
    """Yields the clips of `.skeleton` files in order, read by `workers` processes."""
    for items in worker_processes.map_in_order(read_clip, (_Task(path, folder) for path in files), workers):
        yield from items


def select_files(
    files: dict[str, pathlib.Path],
) -> tuple[dict[str, pathlib.Path], list[records.SetAside], list[records.SetAside]]:
    """The files of clips, by name; the files set aside for their names; those that the authors list as missing."""
    clips, odd, listed = {}, [], []
    for stem, path in files.items():
        if parse_name(stem) is None:
            form = f"S001C002P003R002A013, actions 1 to {len(ACTIONS)}"
            odd.append(records.SetAside(path.name, f"the name is not of the form {form}"))
        elif stem in missing_skeletons():
            listed.append(records.SetAside(path.name, "the dataset's authors list it as without a whole skeleton"))
        else:
            clips[stem] = path
    return clips, odd, listed


def dataset_info(folder: mosaics.ImageFolder | None) -> records.DatasetInfo:
    """Describes the dataset; the images come from `folder`, if it has any."""
    pictures = mosaics.describe_images(folder, "the skeleton's color coordinates")
    return records.DatasetInfo(
        dataset="ntu",
        layout="ntu",
        units="metres",
        class_names=ACTIONS,
        image_source="rgb" if pictures else None,
        preprocessing="denoised and translated to joint 2 of the first frame, as published for CTR-GCN; "
        + (pictures or "no images"),
    )


def read_contents(
    files: dict[str, pathlib.Path], folder: mosaics.ImageFolder | None, workers: int
) -> video_dataset.Contents:
    """The contents of the `.skeleton` files."""
    clips, odd, listed = select_files(files)
    return video_dataset.Contents(
        find_footage=functools.partial(find_footage, clips),
        # Every copy of the dataset lacks the listed clips, so they come last: only the first set aside are printed.
        clips=itertools.chain(read_clips(clips.values(), folder, workers), listed),
        num_clips=len(clips) + len(listed),
        info=functools.partial(dataset_info, folder),
        set_aside=odd,
    )


def prepare(skeletons, out=None, request: image_request.Request = image_request.NO_IMAGES, **options) -> None:
    """Prepares the dataset from the folder or archive `skeletons`; see `video_dataset.prepare`."""
    written = video_dataset.prepare(skeletons, ".skeleton", read_contents, out, request, **options)
    if written is None:
        return
    names = records.Records(written).index["name"].tolist()
    print("\n".join([*inventory(names), *out_of_range(names)]))
    for protocol, expected in NUM_CLIPS.items():
        if protocol.startswith("ntu60") or any(parse_name(name).setup > LAST_SETUP_OF_60 for name in names):
            commands.print_counts(written, protocol, expected)


def main(arguments: list[str] | None = None) -> None:
    parser = video_dataset.argument_parser(
        __doc__, option="--skeletons", source="the folder of the .skeleton files, or a zip or tar archive of it"
    )
    parsed, request = video_dataset.parse(parser, arguments)
    with plain_errors():
        prepare(parsed.skeletons, parsed.out, request, text=parsed.text, overwrite=parsed.overwrite)


if __name__ == "__main__":
    main()
