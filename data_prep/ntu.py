"""NTU RGB+D 60 and 120: `.skeleton` files, and if wanted RGB videos -> records for all four benchmarks.

    python -m data_prep.ntu --skeletons DIR [--videos DIR] [--images DIR] [--text DIR] --out DIR [--overwrite]
    python -m data_prep.ntu --skeletons DIR --videos DIR --images DIR --shard 3/16

`--skeletons` holds the `.skeleton` files anywhere beneath it (NTU RGB+D 120 is what both archives unpack to; NTU RGB+D
60 the first). They are denoised and translated as the published preprocessing does it; the 535 clips whose skeletons
the authors list as missing stay out.

`--videos` holds the `..._rgb.avi` files. Of each clip five frames are cut out around the person, by the skeleton's own
coordinates in the colour video or, with `--boxes yolo`, by a detector, and put side by side: one JPEG a clip in the
work folder `--images` (default: OUT.images). What is there is not made again, so that an interrupted run goes on where
it stopped. `--shard i/n` (i from 0) makes the i-th of n shares of them and no records: run n of these anywhere, then
once without it. `--images` alone takes what lies there. `--text` adds the text features that lie there, the `--out` of
`data_prep.text_features`.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from data_prep.formats import ntu_skeletons, sources
from data_prep.formats.ntu_clips import (
    ACTIONS,
    LAST_SETUP_OF_60,
    NUM_CLIPS,
    TWO_PERSON_ACTIONS,
    inventory,
    missing_skeletons,
    parse_name,
)
from data_prep.images import mosaics, person_crops
from data_prep.preparation import commands, image_request, video_dataset
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import plain_errors

COLOUR_SIZE = (1080, 1920)  # of the videos as distributed, to which the skeletons' colour coordinates refer
_VIDEO_SUFFIX = "_rgb"


def person_box(actors: tuple[tuple[ntu_skeletons.Body, ...], ...], frame: int) -> person_crops.Box | None:
    """The box around the given actors in a frame of the file, in the colour video; None where it shows none of them."""
    persons = [body.colours[at] for bodies in actors for body in bodies for at in np.flatnonzero(body.frames == frame)]
    return person_crops.persons_to_box(persons, COLOUR_SIZE, mosaics.MARGIN)


def find_track(skeleton: pathlib.Path, num_persons: int) -> mosaics.Track:
    """Where a `.skeleton` file has its main actor in the colour video, or both actors. Raises: SourceFileError."""
    clip = ntu_skeletons.read(skeleton)
    actors = ntu_skeletons.denoise(clip).bodies[:num_persons]
    return mosaics.Track(clip.num_frames, COLOUR_SIZE, functools.partial(person_box, actors), frame_by_frame=True)


def find_footage(skeletons: dict[str, pathlib.Path], root: pathlib.Path) -> list[mosaics.Footage]:
    """What the mosaics of those clips are made of whose videos lie beneath `root`. Raises: PreparationError."""
    found = {path.stem.removesuffix(_VIDEO_SUFFIX): path for path in sorted(root.rglob(f"*{_VIDEO_SUFFIX}.avi"))}
    footages = []
    for name in mosaics.match(skeletons, found, root, f"{next(iter(skeletons), 'NAME')}{_VIDEO_SUFFIX}.avi"):
        num_persons = 2 if parse_name(name).action in TWO_PERSON_ACTIONS else 1
        track = functools.partial(find_track, skeletons[name], num_persons)
        footages.append(mosaics.Footage(name, found[name], track, num_persons))
    return footages


@dataclasses.dataclass(frozen=True)
class _Task:
    """The task of reading one clip."""

    path: pathlib.Path
    folder: mosaics.ImageFolder | None


def read_clip(task: _Task) -> list[records.Clip | records.SetAside]:
    """The clip of a `.skeleton` file, and what had to be set aside of it. Without a mosaic, a clip is kept."""
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
    """The clips of `.skeleton` files, in order, read by `workers` processes."""
    for items in sources.map_in_order(read_clip, (_Task(path, folder) for path in files), workers):
        yield from items


def select_files(
    files: dict[str, pathlib.Path],
) -> tuple[dict[str, pathlib.Path], list[records.SetAside], list[records.SetAside]]:
    """The files that are clips, by name; what is set aside for its name; and for being listed as missing."""
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
    """Of records whose mosaics, if any, come from `folder`."""
    pictures = mosaics.describe_images(folder, "the skeleton's colour coordinates")
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
        num_clips=len(clips),
        info=functools.partial(dataset_info, folder),
        set_aside=odd,
    )


def prepare(skeletons, out=None, request: image_request.Request = image_request.NO_IMAGES, **options) -> None:
    """Prepares the dataset from the folder or archive `skeletons`; see `video_dataset.prepare`."""
    written = video_dataset.prepare(skeletons, ".skeleton", read_contents, out, request, **options)
    if written is None:
        return
    names = records.Records(written).index["name"].tolist()
    print("\n".join(inventory(names)))
    for protocol, expected in NUM_CLIPS.items():
        if protocol.startswith("ntu60") or any(parse_name(name).setup > LAST_SETUP_OF_60 for name in names):
            commands.print_counts(written, protocol, expected)


def main(arguments: list[str] | None = None) -> None:
    parser = video_dataset.argument_parser(
        __doc__, option="--skeletons", source="the folder of the .skeleton files, or a tar archive of it"
    )
    parsed, request = video_dataset.parse(parser, arguments)
    with plain_errors():
        prepare(parsed.skeletons, parsed.out, request, text=parsed.text, overwrite=parsed.overwrite)


if __name__ == "__main__":
    main()
