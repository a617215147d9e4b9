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

import argparse
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
from data_prep.images import image_request, mosaics, person_crops
from data_prep.text import text_sets
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
    try:
        clip = ntu_skeletons.read(skeleton)
        actors = ntu_skeletons.denoise(clip).bodies[:num_persons]
    except sources.SourceFileError as error:
        raise sources.SourceFileError(f"its skeleton cannot be used ({error})") from error
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
    clip = records.Clip(
        name=str(name),
        label=name.action - 1,
        subject=name.performer,
        camera=name.camera,
        setup=name.setup,
        replication=name.replication,
        skeleton=skeleton,
    )
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
    images = folder is not None and bool(folder.done())
    pictures = folder.describe("the skeleton's colour coordinates") if images else "no images"
    return records.DatasetInfo(
        dataset="ntu",
        layout="ntu",
        units="metres",
        class_names=ACTIONS,
        image_source="rgb" if images else None,
        preprocessing="denoised and translated to joint 2 of the first frame, as published for CTR-GCN; " + pictures,
    )


def prepare(
    skeletons,
    out=None,
    request: image_request.Request = image_request.NO_IMAGES,
    *,
    text=None,
    overwrite: bool = False,
    workers: int | None = None,
) -> None:
    """Makes mosaics where there are videos, then the records folder `out`; of a shard, the mosaics alone.

    Args:
      skeletons: folder or archive of the `.skeleton` files.
      out: the records folder; not used with a shard.
      request: what is to be done about images.
      text: folder of text features; they are added to the records.
      overwrite: replace existing records, after the new ones are complete.
      workers: processes; by default one for each core.

    Raises: PreparationError.
    """
    workers = workers or sources.usable_cores()
    out = request.check(out, text, overwrite)
    with sources.open_source(skeletons, ".skeleton", request.scratch(out)) as (files, set_aside):
        clips, odd, listed = select_files(files)
        request.make(functools.partial(find_footage, clips), out, workers)
        if request.shard is not None:
            return
        folder = request.folder(out)
        # What everybody lacks comes last: of what was set aside, the first few are printed.
        items = itertools.chain(read_clips(clips.values(), folder, workers), listed)
        set_aside = [*set_aside, *odd]
        info = dataset_info(folder)
        records.write_records(out, info, items, total=len(clips), set_aside=set_aside, overwrite=overwrite)
    if text is not None:
        text_sets.join(out, text)
    names = records.Records(out).index["name"].tolist()
    print("\n".join(inventory(names)))
    for protocol, expected in NUM_CLIPS.items():
        if protocol.startswith("ntu60") or any(parse_name(name).setup > LAST_SETUP_OF_60 for name in names):
            sources.print_counts(out, protocol, expected)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skeletons", required=True, help="the folder of the .skeleton files, or a tar archive of it")
    parser.add_argument("--out", help="the records folder to create")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the records in --out once the new are complete"
    )
    image_request.add_arguments(parser)
    parsed = parser.parse_args(arguments)
    request = image_request.parse(parser, parsed)
    with plain_errors():
        prepare(parsed.skeletons, parsed.out, request, text=parsed.text, overwrite=parsed.overwrite)


if __name__ == "__main__":
    main()
