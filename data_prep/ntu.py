"""NTU RGB+D 60 and 120: `.skeleton` files, and if wanted RGB videos -> records for all four benchmarks.

    python -m data_prep.ntu --skeletons DIR [--videos DIR] [--images DIR] [--text DIR] --out DIR [--overwrite]
    python -m data_prep.ntu --skeletons DIR --videos DIR --images DIR --shard 3/16

`--skeletons` holds the `.skeleton` files anywhere beneath it (NTU RGB+D 120 is what both archives unpack to; NTU RGB+D
60 the first). They are denoised and translated as the published preprocessing does it; the 535 clips whose skeletons
the authors list as missing stay out.

`--videos` holds the `..._rgb.avi` files. Of each clip five frames are cut out around the person, by the skeleton's own
coordinates in the colour video, and put side by side: one JPEG a clip in the work folder `--images` (default:
OUT.images). What is there is not made again, so that an interrupted run goes on where it stopped. `--shard i/n` (i from
0) makes the i-th of n shares of them and no records: run n of these anywhere, then once without it. `--images` alone
takes what lies there. `--text` adds the text features that lie there, the `--out` of `data_prep.text_features`.
"""

import argparse
import collections
import dataclasses
import functools
import io
import itertools
import os
import pathlib
import re
import textwrap
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image
from tqdm import tqdm

from data_prep import builders, ntu_skeletons, person_crops, sources, text_features, videos
from mmcl_jax import records

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
_MARGIN = 0.1  # of the box around the joints, which lie inside the body
_LEAST_JOINTS = 13  # of one person within the camera's reach
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
    points = []
    for body in (body for bodies in actors for body in bodies):
        colours = body.colours[body.frames == frame]
        colours = colours[np.isfinite(colours).all(axis=-1)]
        if len(colours) >= _LEAST_JOINTS:
            points.append(colours)
    return person_crops.joints_to_box(np.concatenate(points), COLOUR_SIZE, _MARGIN) if points else None


def clip_mosaic(name: ClipName, skeleton: pathlib.Path, video: pathlib.Path) -> bytes:
    """The mosaic of a clip, as JPEG: the main actor's, or both actors' in the two-person actions.

    Raises: SourceFileError where skeleton or video cannot be used, or the skeleton is nowhere in the picture.
    """
    try:
        clip = ntu_skeletons.read(skeleton)
        actors = ntu_skeletons.denoise(clip).bodies
    except sources.SourceFileError as error:
        raise sources.SourceFileError(f"its skeleton cannot be used ({error})") from error
    shown = actors if name.action in TWO_PERSON_ACTIONS else actors[:1]
    frames = person_crops.sampled_frames(clip.num_frames, functools.partial(person_box, shown))
    if frames is None:
        raise sources.SourceFileError("nobody in it: the skeleton's colour coordinates are nowhere in the picture")
    pictures = videos.read_frames(video, [frame for frame, _ in frames])
    crops = [person_crops.crop_and_resize(pictures[frame], _scaled(box, pictures[frame])) for frame, box in frames]
    return person_crops.encode_jpeg(person_crops.mosaic(crops))


def _scaled(box: person_crops.Box, picture: np.ndarray) -> person_crops.Box:
    """A box in the video as distributed -> in `picture`, of a video that may have been made smaller."""
    height, width = picture.shape[0] / COLOUR_SIZE[0], picture.shape[1] / COLOUR_SIZE[1]
    left, top = int(box[0] * width), int(box[1] * height)
    return left, top, max(left + 1, round(box[2] * width)), max(top + 1, round(box[3] * height))


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """The work folder of mosaics: NAME.jpg, or NAME.set_aside, which says why there is none."""

    path: pathlib.Path

    def write(self, name: str, jpeg: bytes) -> None:
        self._write(f"{name}.jpg", jpeg)
        (self.path / f"{name}.set_aside").unlink(missing_ok=True)

    def set_aside(self, name: str, reason: str) -> None:
        self._write(f"{name}.set_aside", reason.encode())

    def _write(self, file: str, contents: bytes) -> None:
        """Whoever is killed in here leaves no half a file of that name."""
        partial = self.path / f"{file}.partial"
        partial.write_bytes(contents)
        os.replace(partial, self.path / file)

    def done(self) -> set[str]:
        """Names of the clips with a mosaic."""
        return {path.stem for path in self.path.glob("*.jpg")}

    def read(self, name: str) -> bytes:
        """The mosaic of a clip, decoded once to see that it is whole. Raises: SourceFileError."""
        try:
            contents = (self.path / f"{name}.jpg").read_bytes()
        except FileNotFoundError:
            raise sources.SourceFileError(self._reason(name)) from None
        expected = (person_crops.CROP_WIDTH * person_crops.CROPS, person_crops.CROP_HEIGHT)
        try:
            with Image.open(io.BytesIO(contents), formats=["JPEG"]) as picture:
                size = picture.size
                picture.draft("RGB", (size[0] // 8, size[1] // 8))  # an eighth of the size is faster, and fails alike
                picture.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise sources.SourceFileError(f"a broken JPEG ({error}); delete it and run again") from error
        if size != expected:
            raise sources.SourceFileError(f"a mosaic of {size[0]}x{size[1]}, expected {expected[0]}x{expected[1]}")
        return contents

    def _reason(self, name: str) -> str:
        try:
            return (self.path / f"{name}.set_aside").read_text()
        except FileNotFoundError:
            return "no mosaic of this clip"


@dataclasses.dataclass(frozen=True)
class _Crop:
    """The task of making one mosaic."""

    name: str
    skeleton: pathlib.Path
    video: pathlib.Path
    folder: ImageFolder


def _make_crop(task: _Crop) -> bool:
    """Makes a mosaic, or writes down why not; whether there is one now."""
    try:
        jpeg = clip_mosaic(parse_name(task.name), task.skeleton, task.video)
    except sources.SourceFileError as error:
        task.folder.set_aside(task.name, f"{task.video.name}: {error}")
        return False
    task.folder.write(task.name, jpeg)
    return True


def make_crops(
    skeletons: dict[str, pathlib.Path],
    video_root: pathlib.Path,
    folder: ImageFolder,
    shard: tuple[int, int] = (0, 1),
    workers: int | None = None,
) -> None:
    """Makes the mosaics that `folder` lacks of a share of the clips. Raises: PreparationError."""
    if not video_root.is_dir():
        raise builders.PreparationError(f"{video_root}: no such folder; give --videos the folder of the .avi files")
    found = {path.stem.removesuffix(_VIDEO_SUFFIX): path for path in sorted(video_root.rglob(f"*{_VIDEO_SUFFIX}.avi"))}
    common = sorted(skeletons.keys() & found.keys())
    if not common:
        raise builders.PreparationError(
            f"{video_root}: no video of any of the {len(skeletons)} clips, expected {next(iter(skeletons), 'NAME')}"
            f"{_VIDEO_SUFFIX}.avi and the like; give --videos the folder of the .avi files"
        )
    print(f"{video_root}: videos of {len(common)} of {len(skeletons)} clips")
    folder.path.mkdir(parents=True, exist_ok=True)
    done = folder.done()
    number, shards = shard
    share = common[number::shards]
    tasks = [_Crop(name, skeletons[name], found[name], folder) for name in share if name not in done]
    if len(tasks) < len(share):
        print(f"{folder.path}: {len(share) - len(tasks)} of {len(share)} mosaics are there, {len(tasks)} to make")
    with builders.clear_disk_errors(folder.path):
        results = sources.map_in_order(_make_crop, tasks, workers or sources.usable_cores())
        made = sum(tqdm(results, total=len(tasks), unit="clip", desc="mosaics"))
    print(f"{folder.path}: {made} mosaics made, {len(tasks) - made} set aside (NAME.set_aside says why)")


@dataclasses.dataclass(frozen=True)
class _Task:
    """The task of reading one clip."""

    path: pathlib.Path
    folder: ImageFolder | None


def read_clip(task: _Task) -> list[builders.Clip | builders.SetAside]:
    """The clip of a `.skeleton` file, and what had to be set aside of it. Without a mosaic, a clip is kept."""
    name = parse_name(task.path.stem)
    try:
        actors = ntu_skeletons.denoise(ntu_skeletons.read(task.path))
        skeleton = ntu_skeletons.translate(actors.joints)
    except sources.SourceFileError as error:
        return [builders.SetAside(task.path.name, str(error))]
    clip = builders.Clip(
        name=str(name),
        label=name.action - 1,
        subject=name.performer,
        camera=name.camera,
        setup=name.setup,
        replication=name.replication,
        skeleton=skeleton,
    )
    if task.folder is None:
        return [clip]
    try:
        clip.image = task.folder.read(clip.name)
    except sources.SourceFileError as error:
        return [clip, builders.SetAside(f"{clip.name}.jpg", f"{error}; the clip is kept, without an image")]
    return [clip]


def read_clips(
    files: Iterable[pathlib.Path], folder: ImageFolder | None, workers: int
) -> Iterator[builders.Clip | builders.SetAside]:
    """The clips of `.skeleton` files, in order, read by `workers` processes."""
    for items in sources.map_in_order(read_clip, (_Task(path, folder) for path in files), workers):
        yield from items


def select_files(
    files: dict[str, pathlib.Path],
) -> tuple[dict[str, pathlib.Path], list[builders.SetAside], list[builders.SetAside]]:
    """The files that are clips, by name; what is set aside for its name; and for being listed as missing."""
    clips, odd, listed = {}, [], []
    for stem, path in files.items():
        if parse_name(stem) is None:
            form = f"S001C002P003R002A013, actions 1 to {len(ACTIONS)}"
            odd.append(builders.SetAside(path.name, f"the name is not of the form {form}"))
        elif stem in missing_skeletons():
            listed.append(builders.SetAside(path.name, "the dataset's authors list it as without a whole skeleton"))
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


def dataset_info(images: bool) -> records.DatasetInfo:
    mosaics = "five RGB frames, person cropped by the skeleton's colour coordinates" if images else "no images"
    return records.DatasetInfo(
        dataset="ntu",
        layout="ntu",
        units="metres",
        class_names=ACTIONS,
        image_source="rgb" if images else None,
        preprocessing="denoised and translated to joint 2 of the first frame, as published for CTR-GCN; " + mosaics,
    )


def prepare(
    skeletons,
    out=None,
    *,
    video_root=None,
    images=None,
    text=None,
    shard: tuple[int, int] | None = None,
    overwrite: bool = False,
    workers: int | None = None,
) -> None:
    """Makes mosaics where there are videos, then the records folder `out`; of a `shard`, the mosaics alone.

    Args:
      skeletons: folder or archive of the `.skeleton` files.
      out: the records folder; not used with a shard.
      video_root: folder of the videos.
      images: work folder of the mosaics; by default OUT.images where there are videos.
      text: folder of text features; they are added to the records.
      shard: (i, n), the i-th (from 0) of n shares.
      overwrite: replace existing records, after the new ones are complete.
      workers: processes; by default one for each core.

    Raises: PreparationError.
    """
    workers = workers or sources.usable_cores()
    if text is not None and not pathlib.Path(text).is_dir():
        raise builders.PreparationError(f"{text}: no such folder; --text names the --out of data_prep.text_features")
    if shard is None:
        out = builders.check_destination(out, overwrite)
        images = images or (out.with_name(out.name + ".images") if video_root else None)
    folder = ImageFolder(pathlib.Path(images).resolve()) if images else None
    scratch = pathlib.Path(out or images).resolve()
    scratch = scratch.with_name(scratch.name + (".unpacked" if shard is None else f".unpacked{shard[0]}"))
    with sources.open_source(skeletons, ".skeleton", scratch) as (files, set_aside):
        clips, odd, listed = select_files(files)
        if video_root:
            make_crops(clips, pathlib.Path(video_root), folder, shard or (0, 1), workers)
        if shard is not None:
            return
        if folder is not None and not folder.path.is_dir():
            raise builders.PreparationError(f"{folder.path}: no such folder; give --images the folder of the mosaics")
        info = dataset_info(images=folder is not None and bool(folder.done()))
        # What everybody lacks comes last: of what was set aside, the first few are printed.
        items = itertools.chain(read_clips(clips.values(), folder, workers), listed)
        set_aside = [*set_aside, *odd]
        builders.write_records(out, info, items, total=len(clips), set_aside=set_aside, overwrite=overwrite)
    if text is not None:
        text_features.join(out, text)
    names = records.Records(out).index["name"].tolist()
    print("\n".join(inventory(names)))
    for protocol, expected in NUM_CLIPS.items():
        if protocol.startswith("ntu60") or any(parse_name(name).setup > _LAST_SETUP_OF_60 for name in names):
            builders.print_counts(out, protocol, expected)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skeletons", required=True, help="the folder of the .skeleton files, or a tar archive of it")
    parser.add_argument("--videos", help="the folder of the RGB videos; without, no mosaics are made")
    parser.add_argument("--images", help="the work folder of the mosaics, a JPEG a clip (default OUT.images)")
    parser.add_argument("--text", help="a folder of text features (--out of data_prep.text_features) to add")
    parser.add_argument("--out", help="the records folder to create")
    parser.add_argument("--shard", type=sources.shard, help="i/n: only the i-th (from 0) of n shares of the mosaics")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the records in --out once the new are complete"
    )
    parsed = parser.parse_args(arguments)
    if parsed.shard and not (parsed.videos and parsed.images):
        parser.error("--shard makes mosaics: it needs --videos and --images")
    if not parsed.shard and not parsed.out:
        parser.error("--out is needed (or --shard, for mosaics alone)")
    with builders.plain_errors():
        prepare(
            parsed.skeletons,
            parsed.out,
            video_root=parsed.videos,
            images=parsed.images,
            text=parsed.text,
            shard=parsed.shard,
            overwrite=parsed.overwrite,
        )


if __name__ == "__main__":
    main()
