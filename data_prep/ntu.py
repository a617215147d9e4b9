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
import collections
import dataclasses
import functools
import itertools
import pathlib
import re
import textwrap
from collections.abc import Iterable, Iterator

import numpy as np

from data_prep import image_request, mosaics, ntu_skeletons, person_crops, sources, text_sets
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import plain_errors

ACTIONS = (
    "drink water",
    "eat meal/snack",
    "brushing teeth",
    "brushing hair",
    "drop",
    "pickup",
    "throw",
    "sitting down",
    "standing up",
    "clapping",
    "reading",
    "writing",
    "tear up paper",
    "wear jacket",
    "take off jacket",
    "wear a shoe",
    "take off a shoe",
    "wear on glasses",
    "take off glasses",
    "put on a hat/cap",
    "take off a hat/cap",
    "cheer up",
    "hand waving",
    "kicking something",
    "put/take something inside/out of pocket",
    "hopping",
    "jump up",
    "make/answer a phone call",
    "playing with phone/tablet",
    "typing on a keyboard",
    "pointing to something with finger",
    "taking a selfie",
    "check time (from watch)",
    "rub two hands together",
    "nod head/bow",
    "shake head",
    "wipe face",
    "salute",
    "put the palms together",
    "cross hands in front",
    "sneeze/cough",
    "staggering",
    "falling",
    "touch head (headache)",
    "touch chest (heart pain)",
    "touch back (backache)",
    "touch neck (neckache)",
    "nausea or vomiting",
    "use a fan/feeling warm",
    "punching/slapping other person",
    "kicking other person",
    "pushing other person",
    "pat on back of other person",
    "point finger at the other person",
    "hugging other person",
    "giving something to other person",
    "touch other person's pocket",
    "handshaking",
    "walking towards each other",
    "walking apart from each other",
    "put on headphone",
    "take off headphone",
    "shoot at the basket",
    "bounce ball",
    "tennis bat swing",
    "juggling table tennis balls",
    "hush",
    "flick hair",
    "thumb up",
    "thumb down",
    "make ok sign",
    "make victory sign",
    "staple book",
    "counting money",
    "cutting nails",
    "cutting paper",
    "snapping fingers",
    "open bottle",
    "sniff",
    "squat down",
    "toss a coin",
    "fold paper",
    "ball up paper",
    "play magic cube",
    "apply cream on face",
    "apply cream on hand back",
    "put on bag",
    "take off bag",
    "put something into a bag",
    "take something out of a bag",
    "open a box",
    "move heavy objects",
    "shake fist",
    "throw up cap/hat",
    "hands up",
    "cross arms",
    "arm circles",
    "arm swings",
    "running on the spot",
    "butt kicks",
    "cross toe touch",
    "side kick",
    "yawn",
    "stretch oneself",
    "blow nose",
    "hit other person with something",
    "wield knife towards other person",
    "knock over other person",
    "grab other person's stuff",
    "shoot at other person with a gun",
    "step on foot",
    "high-five",
    "cheers and drink",
    "carry something with other person",
    "take a photo of other person",
    "follow other person",
    "whisper in other person's ear",
    "exchange things with other person",
    "support somebody with hand",
    "finger-guessing game",
)
TWO_PERSON_ACTIONS = frozenset((*range(50, 61), *range(106, 121)))
NUM_CLIPS = {  # of the complete datasets, clips with missing skeletons left out
    "ntu60_xsub": {"train": 40_091, "test": 16_487},
    "ntu60_xview": {"train": 37_646, "test": 18_932},
    "ntu120_xsub": {"train": 63_026, "test": 50_919},
    "ntu120_xset": {"train": 54_468, "test": 59_477},
}
COLOUR_SIZE = (1080, 1920)  # of the videos as distributed, to which the skeletons' colour coordinates refer
_RECORDINGS = {60: 316, 120: 320}  # (setup, performer, replication); the first by last class: A001-A060, A061-A120
_CAMERAS = (1, 2, 3)
_LAST_SETUP_OF_60 = 17
_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")
_VIDEO_SUFFIX = "_rgb"
_MISSING_LIST = pathlib.Path(__file__).with_name("ntu_missing_skeletons.txt")


@dataclasses.dataclass(frozen=True)
class ClipName:
    """What the name of a clip says, as in S001C002P003R001A050; numbers count from 1."""

    setup: int
    camera: int
    performer: int
    replication: int
    action: int

    def __str__(self) -> str:
        return f"S{self.setup:03d}C{self.camera:03d}P{self.performer:03d}R{self.replication:03d}A{self.action:03d}"


def parse_name(stem: str) -> ClipName | None:
    """The parts of a clip's name; None where it is no such name."""
    named = _NAME.fullmatch(stem)
    if not named:
        return None
    name = ClipName(*map(int, named.groups()))
    return name if min(dataclasses.astuple(name)) >= 1 and name.action <= len(ACTIONS) else None


@functools.cache
def missing_skeletons() -> frozenset[str]:
    """Names of the 535 clips, 302 of them of NTU RGB+D 60, that the authors list as without (whole) skeletons."""
    return frozenset(_MISSING_LIST.read_text(encoding="ascii").split())


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


def inventory(names: Iterable[str]) -> list[str]:
    """Lines that say how many clips of NTU RGB+D 60 and 120 there are, and what is missing where.

    All names of the datasets are known but for who performed in which setup; so clips are counted as missing by class,
    and by setup within the recordings (setup, performer, replication) of which there is anything.
    """
    clips = {clip for clip in map(parse_name, names) if clip}
    missing = {parse_name(name) for name in missing_skeletons()}
    lines = []
    for dataset, blocks in ((60, (60,)), (120, (60, 120))):
        if dataset == 120 and all(clip.setup <= _LAST_SETUP_OF_60 for clip in clips):
            continue
        complete = collections.Counter()
        for block in blocks:
            for action in range(block - 59, block + 1):
                complete[action] = _RECORDINGS[block] * len(_CAMERAS)
        complete.subtract(clip.action for clip in missing if clip.action in complete)
        found = collections.Counter(clip.action for clip in clips if clip.action in complete)
        total, lacking = complete.total(), {action: complete[action] - found[action] for action in complete}
        lines.append(f"NTU RGB+D {dataset}: {found.total():,} of {total:,} clips")
        if any(lacking.values()):
            lines.append(_list("missing by class", {f"A{k:03d}": v for k, v in lacking.items() if v > 0}))
    gaps = _gaps(clips, missing)
    if gaps:
        lines.append(_list("missing by setup, of the recordings that are there in part", gaps))
    return lines


def _gaps(clips: set[ClipName], missing: set[ClipName]) -> dict[str, int]:
    """How many clips each setup lacks of its recordings of which there is anything."""
    gaps = collections.Counter()
    for setup, performer, replication in {(clip.setup, clip.performer, clip.replication) for clip in clips}:
        first = 1 if setup <= _LAST_SETUP_OF_60 else 61
        for action in range(first, first + 60):
            for camera in _CAMERAS:
                clip = ClipName(setup, camera, performer, replication, action)
                gaps[f"S{setup:03d}"] += clip not in clips and clip not in missing
    return {setup: count for setup, count in sorted(gaps.items()) if count}


def _list(title: str, counts: dict[str, int]) -> str:
    text = f"{title}: " + ", ".join(f"{key} {count}" for key, count in counts.items())
    return textwrap.fill(text, 120, initial_indent="  ", subsequent_indent="    ")


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
        if protocol.startswith("ntu60") or any(parse_name(name).setup > _LAST_SETUP_OF_60 for name in names):
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
