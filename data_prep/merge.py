"""Joins several records into one: joints on one layout, classes by name, one frame rate, subjects kept apart.

    python -m data_prep.merge --records DIR DIR ... --out DIR [--layout NAME] [--joint_rules RULES]
        [--classes FILE.csv] [--rates N N ... --rate N] [--travel CLASS:LEAST,LARGEST ...] [--restyle CLASS:COPIES ...]
        [--at_least N] [--test_subjects DATASET:1,2 ...] [--overwrite]

`--layout` is the layout of the result, the first records' by default. Joints that a dataset lacks are computed from its
others; `--joint_rules` gives your own rules, such as "nose = 0.7 head + 0.3 spine". The coordinates stay as they are,
so all records need the same channels and units.

Classes of the same name become one. With `--classes`, a CSV file with the header `dataset,class,joined`, each row gives
a class of a dataset (empty: of every dataset that has it) its new name; an empty `joined` leaves the class out. Every
class needs a row then, so that none is joined or lost by accident. Labels follow the order of the first use.

`--rate` is the frame rate of the result, in frames per second: clips are resampled linearly. `--rates` are those of
each of the records, not needed where the records say them. Without `--rate` the records must not say different ones.

Sensors see only a few square meters, so datasets show walking on the spot. `--travel` adds, for each such clip of a
class of the result, a copy that moves ahead while its legs move, at a speed between two numbers, in units of the
coordinates per second (it needs `--rate`, and y that points up). The direction is that of the face, give or take. A
class that is named twice gets two copies. `--restyle` adds copies of training clips in which the arms are held in
another way, and the trunk leans forward where the knees bend, for actions that the legs make. With `--at_least`, clips
of classes with fewer training clips are stored several times. Test clips have none of these copies but travel.

Subjects are numbered on: the second records' subject 1 comes after the last of the first, and an unknown subject, 0,
comes before that one. The result has one protocol,
`xsub`: subjects that are named by `--test_subjects` test, the others train. A clip's `setup` is the number of the
records that it comes from, its name begins with their dataset. Images and text features are not copied.
"""

import argparse
import collections
import dataclasses
import pathlib
import zlib
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from data_prep.preparation import commands, variations
from mmcl_jax.data import records
from mmcl_jax.data.layouts import LAYOUTS, Layout, joint_mapping, map_joints
from mmcl_jax.runtime.errors import PreparationError, plain_errors
from mmcl_jax.runtime.tables import TableError, read_table

_COLUMNS = ("dataset", "class", "joined")
_SPREAD = 0.4  # radians between the directions of travel and of the face, standard deviation


@dataclasses.dataclass(frozen=True)
class Source:
    """One of the records to join.

    Attributes:
      opened: the records.
      mapping: float32 `[V', V]`, onto the joints of the result.
      labels: label here -> label of the result; classes that are left out are absent.
      first_subject: what is added to its subjects' numbers.
      speed: its frames per second divided by the result's.
    """

    opened: records.Records
    mapping: np.ndarray
    labels: dict[int, int]
    first_subject: int
    speed: float


def read_classes(path: pathlib.Path) -> dict[tuple[str, str], str]:
    """The table of a CSV file: (dataset or '', class) -> new name or ''. Raises: PreparationError."""
    try:
        rows = read_table(path, _COLUMNS)
    except TableError as error:
        raise PreparationError(str(error)) from error
    table: dict[tuple[str, str], str] = {}
    for line, cells in rows:
        dataset, name, joined = (cells[column] for column in _COLUMNS)
        if not name or (dataset, name) in table:
            raise PreparationError(f"{path}, line {line}: {name!r} is empty or a repeated class")
        table[dataset, name] = joined
    return table


def join_classes(
    opened: Sequence[records.Records], table: dict[tuple[str, str], str] | None
) -> tuple[tuple[str, ...], list[dict[int, int]]]:
    """The classes of the result, and for each of the records its labels -> those of the result.

    Raises: PreparationError for a class without a row in the table, or a row that fits no class.
    """
    names: list[str] = []
    found: list[dict[int, int]] = []
    used = set()
    for source in opened:
        labels = {}
        for label, name in enumerate(source.info.class_names):
            keys = [(source.info.dataset, name), ("", name)]
            key = next((key for key in keys if table and key in table), None)
            if table is not None and key is None:
                raise PreparationError(
                    f"the class {name!r} of {source.root} ({source.info.dataset}) has no row in the table of classes; "
                    "add one, with an empty last column to leave the class out"
                )
            used.add(key)
            joined = name if table is None or key is None else table[key]
            if joined:
                labels[label] = names.index(joined) if joined in names else len(names)
                names += [joined] if joined not in names else []
        found.append(labels)
    unused = [key for key in table or {} if key not in used]
    if unused:
        raise PreparationError(f"the table of classes names {unused[0]}, which none of the records has")
    return tuple(names), found


def resample(clip: np.ndarray, speed: float) -> np.ndarray:
    """A clip `[M, T, ...]` at another frame rate, linear between frames: T becomes about T / `speed`."""
    frames = clip.shape[1]
    places = np.linspace(0, frames - 1, max(round((frames - 1) / speed) + 1, 1))
    left = np.floor(places).astype(int)
    weight = (places - left).reshape(-1, 1, 1).astype(np.float32)
    return clip[:, left] * (1 - weight) + clip[:, np.minimum(left + 1, frames - 1)] * weight


@dataclasses.dataclass(frozen=True)
class Travel:
    """Clips of class `label` that move on the spot get a copy that moves at `speed` to `fastest` per frame."""

    label: int
    speed: float
    fastest: float


@dataclasses.dataclass(frozen=True)
class Restyle:
    """Training clips of class `label` get so many `copies` with other arms and another lean of the trunk."""

    label: int
    copies: int


def read_clips(
    sources: Sequence[Source],
    travels: Sequence[Travel],
    restyles: Sequence[Restyle],
    layout: Layout,
    test: Collection[int],
) -> Iterator[records.Clip]:
    """The clips of all sources, in their order, and after each the copies that travel or have another style."""
    for clip in _joined(sources):
        yield clip
        draws = np.random.default_rng(zlib.crc32(clip.name.encode()))  # the same in every run
        for number, travel in enumerate(travels, start=1):
            if travel.label != clip.label:
                continue
            speed, turn = draws.uniform(travel.speed, travel.fastest), draws.normal(scale=_SPREAD)
            moved = variations.travelling(clip.skeleton.transpose(1, 0, 2, 3), layout, speed, turn)
            if moved is not None:
                name, skeleton = f"{clip.name}_travelling{number}", moved.transpose(1, 0, 2, 3)
                yield dataclasses.replace(clip, name=name, skeleton=skeleton)
        for style in restyles:
            for number in range(style.copies if style.label == clip.label and clip.subject not in test else 0):
                changed = variations.restyled(clip.skeleton.transpose(1, 0, 2, 3), layout, draws)
                name, skeleton = f"{clip.name}_restyled{number + 1}", changed.transpose(1, 0, 2, 3)
                yield dataclasses.replace(clip, name=name, skeleton=skeleton)


def repeated(clips: Iterator[records.Clip], at_least: int, test: set[int]) -> Iterator[records.Clip]:
    """The clips, and further copies of training clips until each of their classes has `at_least` or more."""
    training: dict[int, list[records.Clip]] = collections.defaultdict(list)
    for clip in clips:
        yield clip
        if clip.subject not in test:
            training[clip.label].append(clip)
    for found in training.values():
        for number in range(len(found), at_least):
            clip = found[number % len(found)]
            yield dataclasses.replace(clip, name=f"{clip.name}_copy{number // len(found)}")


def _joined(sources: Sequence[Source]) -> Iterator[records.Clip]:
    for setup, source in enumerate(sources, start=1):
        index, info = source.opened.index, source.opened.info
        for row in np.flatnonzero(np.isin(index["label"], list(source.labels))):
            clip = map_joints(source.opened.skeleton(row), source.mapping, info.num_coordinates)
            yield records.Clip(
                name=f"{info.dataset}_{index['name'][row]}",
                label=source.labels[int(index["label"][row])],
                subject=int(index["subject"][row]) + source.first_subject,
                camera=int(index["camera"][row]),
                setup=setup,
                replication=int(index["replication"][row]),
                skeleton=resample(clip, source.speed).transpose(1, 0, 2, 3),
            )


def _check_alike(opened: Sequence[records.Records]) -> None:
    first = opened[0]
    for source in opened[1:]:
        for what in ("channels", "units"):
            here, there = getattr(first.info, what), getattr(source.info, what)
            if here != there:
                raise PreparationError(f"{first.root} and {source.root} have different {what}: {here} and {there}")


def _speeds(opened: Sequence[records.Records], rates: Sequence[float], rate: float | None) -> tuple[list[float], float]:
    """Frames per second of each of the records divided by those of the result; and those of the result, 0 if unknown.

    Raises: PreparationError for rates that are missing or too many, or that differ where none is asked for.
    """
    said = [source.info.frame_rate for source in opened]
    if rates and (rate is None or len(rates) != len(opened)):
        raise PreparationError(f"--rates needs one number for each of {len(opened)} records, and --rate")
    if rate is None:
        if len(set(said) - {0.0}) > 1:
            listed = ", ".join(f"{source.root} {own:g}" for source, own in zip(opened, said, strict=True) if own)
            raise PreparationError(f"the records have different frame rates ({listed}); --rate joins them at one")
        return [1.0] * len(opened), said[0] if len(set(said)) == 1 else 0.0
    for source, own in zip(opened, rates or said, strict=True):
        if not own:
            raise PreparationError(
                f"{source.root} does not say its frame rate; --rates needs one for each of the records"
            )
    return [own / rate for own in rates or said], rate


def first_subjects(opened: Sequence[records.Records]) -> list[int]:
    """What is added to the subjects of each of the records, so that none is one of another's.

    A subject 0, who is unknown, gets a number of its own, too, except in the first records.
    """
    added, used = [], 0
    for number, source in enumerate(opened):
        subjects = source.index["subject"]
        added.append(used + int(number > 0 and subjects.min() == 0))
        used = added[-1] + int(subjects.max())
    return added


def test_subjects(texts: Sequence[str], opened: Sequence[records.Records], firsts: Sequence[int]) -> set[int]:
    """Subjects of the result that `DATASET:1,2` texts name. Raises: PreparationError for one that does not exist."""
    chosen = set()
    for text in texts:
        dataset, _, numbers = text.partition(":")
        named = [pair for pair in zip(opened, firsts, strict=True) if pair[0].info.dataset == dataset]
        if not named:
            raise PreparationError(f"--test_subjects {text!r}: none of the records is of the dataset {dataset!r}")
        source, first = named[0]
        known = set(source.index["subject"].tolist())
        for number in numbers.split(","):
            if not number.isdecimal() or int(number) not in known:
                raise PreparationError(f"--test_subjects {text!r}: {dataset} has the subjects {sorted(known)}")
            chosen.add(int(number) + first)
    return chosen


def read_travels(texts: Sequence[str], class_names: Sequence[str], rate: float | None) -> list[Travel]:
    """The `CLASS:LEAST,LARGEST` texts. Raises: PreparationError for an unknown class or a range that is none."""
    found = []
    for text in texts:
        name, _, speeds = text.rpartition(":")
        try:
            least, largest = (float(number) for number in speeds.split(","))
        except ValueError:
            least, largest = 1.0, 0.0
        if rate is None or name not in class_names or not 0 <= least <= largest < float("inf"):
            raise PreparationError(
                f"--travel {text!r} is not CLASS:LEAST,LARGEST with one of {', '.join(class_names)} and two speeds "
                "per second, or --rate is missing"
            )
        found.append(Travel(class_names.index(name), least / rate, largest / rate))
    return found


def read_restyles(texts: Sequence[str], class_names: Sequence[str]) -> list[Restyle]:
    """The `CLASS:COPIES` texts. Raises: PreparationError for an unknown class or no number."""
    found = []
    for text in texts:
        name, _, copies = text.rpartition(":")
        if name not in class_names or not copies.isdecimal():
            raise PreparationError(f"--restyle {text!r} is not CLASS:COPIES, of one of {', '.join(class_names)}")
        found.append(Restyle(class_names.index(name), int(copies)))
    return found


def merge(
    roots: Sequence[str],
    out: str,
    *,
    layout: str | None = None,
    classes: pathlib.Path | None = None,
    rates: Sequence[float] = (),
    rate: float | None = None,
    travel: Sequence[str] = (),
    restyle: Sequence[str] = (),
    at_least: int = 0,
    tested: Sequence[str] = (),
    joint_rules: str = "",
    overwrite: bool = False,
) -> None:
    """Joins the records `roots` into `out`; see the module. Raises: PreparationError, RecordsError, LayoutError."""
    opened = [records.Records(root) for root in roots]
    _check_alike(opened)
    speeds, frame_rate = _speeds(opened, rates, rate)
    table = None if classes is None else read_classes(classes)
    class_names, labels = join_classes(opened, table)
    firsts = first_subjects(opened)
    target = opened[0].info.layout if layout is None else layout
    if isinstance(target, str) and target not in LAYOUTS:
        raise PreparationError(f"--layout {target!r} is not one of {', '.join(LAYOUTS)}")
    joints = LAYOUTS[target] if isinstance(target, str) else target
    sources = [
        Source(
            opened=source,
            mapping=joint_mapping(source.info.skeleton_layout, joints, joint_rules),
            labels=own,
            first_subject=first,
            speed=speed,
        )
        for source, own, first, speed in zip(opened, labels, firsts, speeds, strict=True)
    ]
    travels, restyles = read_travels(travel, class_names, rate), read_restyles(restyle, class_names)
    test = test_subjects(tested, opened, firsts)
    subjects = {int(s) + first for source, first in zip(opened, firsts, strict=True) for s in source.index["subject"]}
    parts = ", ".join(f"{s.opened.info.dataset} ({s.opened.info.preprocessing})" for s in sources)
    info = records.DatasetInfo(
        dataset="merged",
        layout=target,
        units=opened[0].info.units,
        class_names=class_names,
        preprocessing=f"joined: {parts}"
        + (f"; {rate:g} frames per second" if rate is not None else "")
        + "".join(f"; travelling copies of {text}" for text in travel)
        + "".join(f"; restyled copies of {text}" for text in restyle),
        channels=opened[0].info.channels,
        protocols={"xsub": records.Protocol("subject", tuple(sorted(subjects - test)))},
        frame_rate=frame_rate,
    )
    total = sum(int(np.isin(source.opened.index["label"], list(source.labels)).sum()) for source in sources)
    clips = repeated(read_clips(sources, travels, restyles, joints, test), at_least, test)
    records.write_records(
        out, info, clips, total=None if travels or restyles or at_least else total, overwrite=overwrite
    )
    for source in sources:
        print(f"{source.opened.info.dataset}: subject 1 is subject {source.first_subject + 1}")
    commands.print_counts(out, "xsub")


def main(arguments: list[str] | None = None) -> None:
    parser = commands.argument_parser(
        __doc__, option="--records", source="records folders to join", nargs="+", metavar="DIR"
    )
    parser.add_argument("--layout", help="the layout of the result (default: the first records')")
    parser.add_argument("--classes", type=pathlib.Path, help="a CSV file, dataset,class,joined")
    parser.add_argument("--rates", type=_rate, nargs="+", default=[], help="frames per second of each of the records")
    parser.add_argument("--rate", type=_rate, help="frames per second of the result")
    parser.add_argument(
        "--travel", nargs="+", default=[], metavar="CLASS:LEAST,LARGEST", help="classes to make move on, and speeds"
    )
    parser.add_argument(
        "--restyle", nargs="+", default=[], metavar="CLASS:COPIES", help="classes to store with other arms and lean"
    )
    parser.add_argument("--at_least", type=int, default=0, metavar="N", help="training clips of each class")
    parser.add_argument("--joint_rules", default="", metavar="RULES", help="rules for joints of the result")
    parser.add_argument("--test_subjects", nargs="+", default=[], metavar="DATASET:1,2", help="subjects that test")
    parsed = parser.parse_args(arguments)
    with plain_errors():
        merge(
            parsed.records,
            parsed.out,
            layout=parsed.layout,
            classes=parsed.classes,
            rates=parsed.rates,
            rate=parsed.rate,
            travel=parsed.travel,
            restyle=parsed.restyle,
            at_least=parsed.at_least,
            joint_rules=parsed.joint_rules,
            tested=parsed.test_subjects,
            overwrite=parsed.overwrite,
        )


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of frames per second")
    return value


if __name__ == "__main__":
    main()
