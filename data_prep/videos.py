"""Prepares your own videos: poses, images of the person, and divisions by person, as records to train on.

    python -m data_prep.videos --videos=DIR --out=RECORDS [--subjects=names] [--folds=5] [--images]
    python -m data_prep.videos --videos=DIR --labels=clips.csv --out=RECORDS
    python -m data_prep.videos --videos=DIR --work=WORK --shard=3/16

The videos are DIR/CLASS/CLIP.mp4, or DIR/CLASS/PERSON_CLIP.mp4 with `--subjects=names` (the person's name ends at the
first underscore); any format that FFmpeg reads. Or `--labels` lists them in a CSV file with the columns file and label
and, if wanted, subject, start and end (seconds): several clips of a long video are several lines.

A pose estimator (`--pose_model`, see docs/poses.md) finds and follows everybody at `--fps` frames a second at most, 15
by default; the records state the rate that the clips then have. `--persons` keeps the one or two who act most, by how
long and surely they are seen, how large they are and how much they move. Records hold x and y in pixels, y downwards,
and the confidence of each joint, in the estimator's own layout or mapped to another one (`--layout=coco`). `--images`
adds five moments of these persons, cropped, for FAM.

Poses and images are kept in the work folder `--work` (default: OUT.work). What is in it is not made again, so an
interrupted run continues where it stopped, and other divisions or layouts take seconds. `--shard i/n` (i from 0) makes
only the i-th of n shares, and no records: run all n shards on any machines, then the command once without `--shard`.
Videos that cannot be read, and clips in which nobody is seen, are set aside with the reason. To try one again, remove
its `.set_aside` file from the work folder.

Divisions become protocols of the records. Clips of a person, or of a video if persons are unknown, stay together.

  (default)           `split`: a quarter of the clips test (`--test_fraction`), drawn at random
  --folds=5           `fold_1` to `fold_5`: each person tests in one of them
  --test_subjects=A,B `split`: these persons test
  --split=FILE        a JSON file of lists of clip names or files: {"train": [...], "test": [...]}; if there is
                      only one of the two, the clips in no list are the other

With `--validation_fraction=0.1`, that share validates: `split` then trains without it and tests with the test part, and
`split_validation` tests with the validation part.
"""

import argparse
import collections
import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping

from data_prep.formats import dealing, division, sources, video_lists
from data_prep.formats.dealing import Division
from data_prep.formats.video_lists import ListedClip, Listing
from data_prep.images import mosaics
from data_prep.preparation import commands
from data_prep.preparation.video_poses import Settings, WorkFolder, check_seen, estimate, shard_of, to_skeleton
from mmcl_jax.data import records
from mmcl_jax.data.layouts import LAYOUTS, joint_mapping, map_joints
from mmcl_jax.runtime.errors import PreparationError, plain_errors
from mmcl_jax.runtime.files import write_whole
from mmcl_jax.runtime.options import positive
from mmcl_jax.runtime.words import counted

_PROTOCOL = "split"
_SAME_RATE = 0.01  # frame rates count as the same up to this share
_PARTS = {"train": "train", "test": "test", "val": "validation", "validation": "validation"}
_TEST_FRACTION = 0.25


@dataclasses.dataclass(frozen=True)
class Divide:
    """How the clips are divided; the first of `split`, `test_subjects`, `folds` and `test_fraction` that is given.

    Attributes:
      split: JSON file of lists of clip names or files, by part.
      test_subjects: persons who test.
      folds: number of divisions, each of which tests with other groups.
      test_fraction: share of the clips that test, drawn at random by group.
      validation_fraction: share of the clips that validate; 0: there is no such part.
      seed: of the draws.
    """

    split: pathlib.Path | None = None
    test_subjects: tuple[str, ...] = ()
    folds: int | None = None
    test_fraction: float = _TEST_FRACTION
    validation_fraction: float = 0.0
    seed: int = 0


def prepare(
    videos,
    out=None,
    *,
    labels=None,
    named_subjects: bool = False,
    settings: Settings | None = None,
    divide: Divide | None = None,
    layout: str | None = None,
    images: bool = False,
    work=None,
    shard: tuple[int, int] | None = None,
    overwrite: bool = False,
    workers: int | None = None,
) -> None:
    """Makes poses and mosaics of videos, then the records folder `out`; for a shard, only the former.

    Args:
      videos: the folder of the videos.
      out: the records folder; not used with a shard.
      labels: CSV file that lists the clips; None: the folder has a folder for each class.
      named_subjects: names of videos begin with the person, see `video_lists.in_folders`.
      settings: of the poses.
      divide: into those that train and those that test.
      layout: of the records' joints; None: the estimator's.
      images: add mosaics.
      work: the work folder; None: beside the records.
      shard: (i, n), the share of the clips, with i from 0.
      overwrite: replace existing records after the new ones are complete.
      workers: number of processes; by default one per core.

    Raises: PreparationError, PosesError, LayoutError, RecordsError.
    """
    root, settings, divide = pathlib.Path(videos), settings or Settings(), divide or Divide()
    if work is None and (out is None or shard is not None):
        raise PreparationError("no folder to work in; set --out or, with --shard, --work")
    out = records.check_destination(out, overwrite) if out is not None and shard is None else None
    listing = video_lists.in_folders(root, named_subjects) if labels is None else video_lists.in_table(labels, root)
    check_division(listing, divide)
    place = pathlib.Path(work) if out is None or work is not None else out.with_name(f"{out.name}.work")
    folder = WorkFolder(place, settings)
    folder.claim()
    estimate(shard_of(listing.clips, shard or (0, 1)), folder, images, workers)
    if out is None:
        return
    clips, faults = _usable(listing, folder)
    divided = divisions(clips, divide)
    if divide.validation_fraction and not all(each.validation for each in divided.values()):
        raise PreparationError(
            f"--validation_fraction={divide.validation_fraction:g}: too few persons or videos for a validation part"
        )
    protocols, folds = dealing.protocols(divided, [clip.name for clip in clips])
    rates = {clip.name: folder.poses(clip.key).frame_rate or 0.0 for clip in clips}
    info = _dataset_info(listing, clips, folder, layout, images, protocols, root.resolve().name, common_rate(rates))
    records.write_records(
        out,
        info,
        _records_clips(clips, listing, folder, info, images, folds),
        total=len(clips),
        set_aside=[*listing.set_aside, *faults],
        overwrite=overwrite,
    )
    for protocol in protocols:
        commands.print_counts(out, protocol)
    print("\n".join([*_report(listing, clips, protocols, folds, folder), *_rate_notes(rates, info.frame_rate)]))


def divisions(clips: list[ListedClip], divide: Divide) -> dict[str, Division]:
    """The divisions of clips, by the name of the protocol. Raises: PreparationError."""
    groups = {clip.name: clip.group for clip in clips}
    labels = {clip.name: clip.label for clip in clips}
    if divide.split is not None:
        return {_PROTOCOL: _listed_division(clips, divide.split)[0]}
    if divide.folds is not None:
        if len(set(groups.values())) < divide.folds:
            raise PreparationError(
                f"--folds={divide.folds}: more than the persons or videos left to divide, {len(set(groups.values()))}"
            )
        found = dealing.folds(groups, labels, divide.folds, divide.validation_fraction, divide.seed)
        return {f"fold_{number}": each for number, each in enumerate(found, 1)}
    if not divide.test_subjects:
        return {
            _PROTOCOL: dealing.random_division(
                groups, labels, divide.test_fraction, divide.validation_fraction, divide.seed
            )
        }
    test = frozenset(clip.name for clip in clips if clip.subject in divide.test_subjects)
    others = {name: group for name, group in groups.items() if name not in test}
    if not divide.validation_fraction:
        return {_PROTOCOL: Division(frozenset(others), test)}
    drawn = dealing.random_division(others, labels, divide.validation_fraction, 0.0, divide.seed)
    return {_PROTOCOL: Division(drawn.train, test, drawn.test)}


def check_division(listing: Listing, divide: Divide) -> None:
    """Refuses, before any work is done, what cannot be divided. Raises: PreparationError."""
    unknown = sorted(set(divide.test_subjects) - set(listing.subjects))
    if unknown:
        known = ", ".join(listing.subjects[:20]) or "none; name them with --subjects=names or a column `subject`"
        raise PreparationError(f"--test_subjects: {unknown[0]!r} is none of the persons ({known})")
    groups = {clip.group for clip in listing.clips}
    if divide.folds is not None and len(groups) < divide.folds:
        raise PreparationError(f"--folds={divide.folds}: more than the persons or videos to divide, {len(groups)}")
    if divide.split is not None:
        for note in _listed_division(listing.clips, divide.split)[1]:
            print(note)


def _listed_division(clips, path: pathlib.Path) -> tuple[Division, list[str]]:
    """The division that a JSON file of lists states, and what does not fit. Raises: PreparationError."""
    parts = {"train": set(), "test": set(), "validation": set()}
    for part, listed in division.read_splits(path).items():
        if part not in _PARTS:
            raise PreparationError(f"{path}: the part {part!r} is not one of {', '.join(_PARTS)}")
        parts[_PARTS[part]] |= listed
    by_name = {clip.name: clip.name for clip in clips}
    whole = collections.Counter(clip.path for clip in clips)
    by_file = {clip.name + clip.path.suffix: clip.name for clip in clips if whole[clip.path] == 1}
    known = {**by_file, **by_name}
    found = {part: {known[name] for name in listed if name in known} for part, listed in parts.items()}
    for part, listed in parts.items():
        if listed and not found[part]:
            raise PreparationError(
                f"{path}: none of the {counted(len(listed), 'name')} in {part} is a clip's: {min(listed)!r} in the "
                f"list, {min(by_name)!r} among the clips"
            )
    for one, other in (("train", "test"), ("train", "validation"), ("test", "validation")):
        both = sorted(found[one] & found[other])
        if both:
            raise PreparationError(f"{path}: {both[0]!r} is in both {one} and {other}")
    lacking = [part for part in ("train", "test") if not parts[part]]
    if len(lacking) == 2:
        raise PreparationError(f"{path}: lists neither clips that train nor clips that test; list one of them, or both")
    notes = []
    for part in lacking:
        found[part] = set(by_name).difference(*found.values())
        notes.append(f"{path}: there is no list {part}, so the clips in no other list {part} ({len(found[part])})")
    unknown, unlisted = set().union(*parts.values()) - known.keys(), set(by_name).difference(*found.values())
    if unknown:
        notes.append(
            f"NOTE: {path}: {counted(len(unknown), 'name is', 'names are')} no clip's, among them {min(unknown)!r}"
        )
    if unlisted:
        one, many = (
            "clip is in no list, so it neither trains nor tests",
            "clips are in no list, so they neither train nor test",
        )
        notes.append(f"NOTE: {path}: {counted(len(unlisted), one, many)}, among them {min(unlisted)!r}")
    return Division(*(frozenset(found[part]) for part in ("train", "test", "validation"))), notes


def _usable(listing: Listing, folder: WorkFolder) -> tuple[list[ListedClip], list[records.SetAside]]:
    """The clips in which somebody acts, and the others with the reason. Raises: PreparationError if there are none."""
    clips, faults = [], []
    for clip in listing.clips:
        try:
            check_seen(folder.poses(clip.key), folder.settings.persons)
        except sources.SourceFileError as error:
            faults.append(records.SetAside(clip.name, str(error)))
        else:
            clips.append(clip)
    if not clips:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in faults[:3])
        raise PreparationError(f"no clip is left, {len(faults)} set aside ({reasons})")
    return clips, faults


def common_rate(rates: Mapping[str, float]) -> float:
    """The frame rate of most of the clips, from the rates by clip; of several, the highest."""
    counts = collections.Counter(rates.values())

    def alike(rate: float) -> int:
        return sum(count for other, count in counts.items() if math.isclose(rate, other, rel_tol=_SAME_RATE))

    return max(counts, key=lambda rate: (alike(rate), counts[rate], rate))


def _rate_notes(rates: Mapping[str, float], stated: float) -> Iterator[str]:
    """Says which clips have another frame rate than the `stated` one."""
    others = {name: rate for name, rate in rates.items() if not math.isclose(rate, stated, rel_tol=_SAME_RATE)}
    if others:
        shown = ", ".join([f"{name} ({rate:.4g})" for name, rate in others.items()][:5] + ["..."] * (len(others) > 5))
        yield (
            f"NOTE: the records state {stated:.4g} frames a second, as most of the clips have; "
            f"{counted(len(others), 'clip has', 'clips have')} another rate: {shown}. With --fps="
            f"{math.floor(min(rates.values()) * 100) / 100:g} and another --work, all have the same"
        )


def _dataset_info(listing, clips, folder, layout, images, protocols, name, frame_rate) -> records.DatasetInfo:
    """Describes the records. Raises: LayoutError if the joints of `layout` cannot be computed."""
    settings, own = folder.settings, folder.poses(clips[0].key).layout
    rate = f"at most {settings.fps:g} frames a second" if settings.fps else "all frames"
    persons = "the person who acts most" if settings.persons == 1 else "the two persons who act most"
    mapped = f"mapped from {own} to {layout}, " if layout not in (None, own) else ""
    pictures = f"five RGB frames, cropped around {persons}" if images else "no images"
    return records.DatasetInfo(
        dataset=f"videos_{name}",
        layout=layout or own,
        units="pixels",
        class_names=listing.class_names,
        image_source="rgb" if images else None,
        preprocessing=f"poses by {pathlib.Path(settings.pose_model).name}, {rate}, {persons}, {mapped}"
        f"y downwards, gaps of up to half a second filled; {pictures}",
        channels=("x", "y", records.CONFIDENCE),
        protocols=protocols,
        frame_rate=frame_rate,
    )


def _records_clips(
    clips: list[ListedClip],
    listing: Listing,
    folder: WorkFolder,
    info: records.DatasetInfo,
    images: bool,
    folds: dict[str, int],
) -> Iterator[records.Clip | records.SetAside]:
    """The clips of the records. A clip without a mosaic is kept, and the reason is set aside."""
    labels = {name: label for label, name in enumerate(info.class_names)}
    subjects = {name: number for number, name in enumerate(listing.subjects, 1)}
    for listed in clips:
        key = listed.key
        poses = folder.poses(key)
        skeleton, _ = to_skeleton(poses, folder.settings.persons)
        if poses.layout != info.layout:
            skeleton = map_joints(skeleton, joint_mapping(poses.skeleton_layout, info.skeleton_layout), 2)
        subject = subjects.get(listed.subject, 0)
        clip = records.Clip(listed.name, labels[listed.label], subject, 0, 0, 0, skeleton, fold=folds[listed.name])
        yield from mosaics.with_mosaic(clip, folder.images if images else None, key)


def _report(listing, clips, protocols, folds, folder: WorkFolder) -> Iterator[str]:
    """Lines that say what the records are; what was changed in clips is listed in the work folder."""
    if listing.subjects:
        listed = ", ".join(f"{number} {name}" for number, name in enumerate(listing.subjects[:20], 1))
        more = len(listing.subjects) - 20
        yield f"subjects: {listed}{f' and {more} more' if more > 0 else ''}"
    for name, protocol in protocols.items():
        for part, members in (("train", protocol.train), ("test", protocol.test or ())):
            present = {clip.label for clip in clips if folds[clip.name] in members}
            lacking = [label for label in listing.class_names if label not in present]
            if lacking:
                yield f"NOTE: {name}: no clip of {', '.join(lacking[:5])} to {part}"
    notes = []
    for clip in clips:
        poses = folder.poses(clip.key)
        changed = to_skeleton(poses, folder.settings.persons)[1]
        notes += [f"{clip.name}: {note}" for note in (*poses.notes, *changed)]
    if notes:
        path = folder.path / "notes.txt"
        write_whole(path, "\n".join(notes) + "\n")
        changed = len({note.partition(": ")[0] for note in notes})
        yield f"{counted(changed, 'clip was changed or has', 'clips were changed or have')} faults; see {path}"


def _rate(text: str) -> float | None:
    """Frames a second, or 'all'. Raises: ArgumentTypeError."""
    return None if text == "all" else _number(text, 240.0, "a number of frames a second up to 240, or all")


def _fraction(text: str) -> float:
    """A share between 0 and 1. Raises: ArgumentTypeError."""
    value = _number(text, 1.0, "a number between 0 and 1")
    if value == 1:
        raise argparse.ArgumentTypeError(f"{text!r} is all clips; expected less than 1")
    return value


def _number(text: str, most: float, expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
    return value


def _folds(text: str) -> int:
    number = positive(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"{text!r}: expected at least 2 folds")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = commands.argument_parser(
        __doc__, option="--videos", source="the folder of the videos", out_required=False, type=pathlib.Path
    )
    parser.add_argument("--labels", type=pathlib.Path, help="a CSV file: file, label, subject, start, end")
    parser.add_argument(
        "--subjects", choices=("none", "names"), default="none", help="names: PERSON_CLIP.mp4 (default none)"
    )
    parser.add_argument("--work", type=pathlib.Path, help="the work folder of poses and images (default OUT.work)")
    parser.add_argument("--shard", type=commands.shard, help="i/n: make only the i-th (from 0) of n shares")
    parser.add_argument("--images", action="store_true", help="add five moments of the persons to each clip, for FAM")
    group = parser.add_argument_group("poses")
    group.add_argument("--pose_model", default="full", help="lite, full, heavy, or a file (default full)")
    group.add_argument("--fps", type=_rate, default=15.0, help="frames a second at most, or all (default 15)")
    group.add_argument("--persons", type=int, choices=(1, 2), default=1, help="that are kept at most (default 1)")
    group.add_argument("--layout", choices=tuple(LAYOUTS), help="of the joints (default: the estimator's own)")
    group = parser.add_argument_group("divisions")
    ways = group.add_mutually_exclusive_group()
    ways.add_argument("--split", type=pathlib.Path, help="a JSON file of lists of clips: train, test, validation")
    ways.add_argument("--test_subjects", help="the persons who test, separated by commas")
    ways.add_argument("--folds", type=_folds, help="number of divisions; each person tests in one of them")
    ways.add_argument("--test_fraction", type=_fraction, default=_TEST_FRACTION, help="share that tests (default 0.25)")
    group.add_argument("--validation_fraction", type=_fraction, default=0.0, help="share that validates (default none)")
    group.add_argument("--seed", type=int, default=0, help="of the random divisions (default 0)")
    return parser


def main(arguments: list[str] | None = None) -> None:
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.shard and not parsed.work:
        parser.error("--shard makes poses and images: it needs --work")
    if not parsed.shard and not parsed.out:
        parser.error("--out is needed (or --shard, to make only poses and images)")
    if parsed.labels and parsed.subjects == "names":
        parser.error("--labels has a column `subject`; leave --subjects out")
    if parsed.split and parsed.validation_fraction:
        parser.error("--split lists the validation part; leave --validation_fraction out")
    drawn = not (parsed.split or parsed.test_subjects or parsed.folds)
    if drawn and parsed.test_fraction + parsed.validation_fraction >= 1:
        parser.error("--test_fraction and --validation_fraction leave no clip to train")
    if parsed.seed < 0:
        parser.error(f"--seed {parsed.seed}: expected a seed of at least 0")
    subjects = tuple(filter(None, (name.strip() for name in (parsed.test_subjects or "").split(","))))
    with plain_errors("interrupted; finished clips are kept, and the same command continues"):
        prepare(
            parsed.videos,
            parsed.out,
            labels=parsed.labels,
            named_subjects=parsed.subjects == "names",
            settings=Settings(parsed.pose_model, parsed.fps, parsed.persons),
            divide=Divide(
                parsed.split,
                subjects,
                parsed.folds,
                parsed.test_fraction,
                parsed.validation_fraction,
                parsed.seed,
            ),
            layout=parsed.layout,
            images=parsed.images,
            work=parsed.work,
            shard=parsed.shard,
            overwrite=parsed.overwrite,
        )


if __name__ == "__main__":
    main()
