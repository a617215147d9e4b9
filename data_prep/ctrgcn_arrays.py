"""Imports CTR-GCN's arrays of NTU RGB+D (`NTU60_CS.npz` and so on), which many published methods share.

    python -m data_prep.ctrgcn_arrays --source NTU60_CS.npz --out DIR [--benchmark ntu60_xsub] [--overwrite]
    python -m data_prep.ctrgcn_arrays --source NTU120_CSub.npz --train_names FILE --test_names FILE --out DIR

`x_train` and `x_test` are (N, T, 150): two bodies of 25 joints, denoised, translated to joint 2 of the first frame and
padded with zeros. `y_train` and `y_test` are one-hot. The import removes the padding and an absent second body, which
is stored as zeros or as a copy of the first body. One case is kept: in files that store copies (NTU RGB+D 120 as
published), a second body of all zeros means that a second actor was expected but not tracked. `data_prep.ntu` stores
such clips in the same way.

A file belongs to one benchmark. Its name tells which (NTU60_CS, NTU60_CV, NTU120_CSub, NTU120_CSet), or `--benchmark`
does. The file's own division becomes the protocol of that benchmark, so that configs such as `configs/ntu60.py:xsub`
train on the records. The file has no clip names, so clips are named by their row (`NTU60_CS_train_000000`), and
subject, camera, setup and replication are stored as 0. `--train_names` and `--test_names` supply the names: one per
line, as S001C002P003R002A013, in the order of the rows (the released MMCL code reads such lists). With names, every
protocol of NTU RGB+D works, and images and text features can be joined by name. The file is read row by row, so it may
be larger than the memory.

Arrays of other actions, in the same form, need `--class_names`: a file with one name per line, in the order of the
labels. The file's division then becomes the protocol `split`.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np

from data_prep.formats import npz_rows, ntu_clips, sources
from data_prep.preparation import commands
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import PreparationError, plain_errors
from mmcl_jax.runtime.files import printable, read_text
from mmcl_jax.runtime.words import counted

OWN = "split"  # the protocol of arrays that belong to no benchmark
BENCHMARKS = {  # protocol -> file as published
    "ntu60_xsub": "NTU60_CS",
    "ntu60_xview": "NTU60_CV",
    "ntu120_xsub": "NTU120_CSub",
    "ntu120_xset": "NTU120_CSet",
}
_PARTS = {"train": 1, "test": 2}  # part of the file -> fold
_BODIES, _JOINTS, _CHANNELS = 2, 25, 3
_WIDTH = _BODIES * _JOINTS * _CHANNELS
_LOOKED_AT = 1000  # clips of each part searched for copies; the first clips of NTU include single-person actions


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A checked `.npz` file whose arrays are not loaded.

    Attributes:
      path: the file.
      benchmark: a key of BENCHMARKS, or OWN.
      class_names: by label.
      x: by part ('train', 'test'), float (N, T, 150).
      y: by part, one-hot (N, K).
      copies: whether clips of a single body store a copy of it as the second body.
    """

    path: pathlib.Path
    benchmark: str
    class_names: tuple[str, ...]
    x: dict[str, npz_rows.Member]
    y: dict[str, npz_rows.Member]
    copies: bool

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def num_clips(self) -> int:
        return sum(member.shape[0] for member in self.x.values())


def _num_classes(benchmark: str) -> int:
    return records.PROTOCOLS["ntu"][benchmark].num_classes or len(ntu_clips.ACTIONS)


def find_benchmark(path: pathlib.Path) -> str:
    """The benchmark that the name of a file tells. Raises: PreparationError for any other name."""
    named = [benchmark for benchmark, stem in BENCHMARKS.items() if path.stem.lower() == stem.lower()]
    if not named:
        raise PreparationError(
            f"{path}: the name is not one of {', '.join(f'{stem}.npz' for stem in BENCHMARKS.values())}; name the "
            f"benchmark with --benchmark, one of {', '.join(BENCHMARKS)}, or the classes of other actions with "
            "--class_names"
        )
    return named[0]


def open_arrays(path: pathlib.Path, benchmark: str, class_names: tuple[str, ...] | None = None) -> Arrays:
    """Checks the shapes and types of the arrays in a file.

    Args:
      path: the file.
      benchmark: a key of BENCHMARKS, or OWN.
      class_names: by label, for OWN.

    Raises: PreparationError, saying what is wrong.
    """
    members = npz_rows.members(path)
    names = [f"{kind}_{part}" for part in _PARTS for kind in "xy"]
    missing = [name for name in names if name not in members]
    if missing:
        raise PreparationError(
            f"{path}: the file has no {' and no '.join(missing)}, only {', '.join(sorted(members)) or 'nothing'}; "
            f"expected {', '.join(names)}, as CTR-GCN's seq_transformation.py writes them"
        )
    class_names = class_names or ntu_clips.ACTIONS[: _num_classes(benchmark)]
    num_classes = len(class_names)
    for part in _PARTS:
        x, y = members[f"x_{part}"], members[f"y_{part}"]
        if len(x.shape) != 3 or x.shape[2] != _WIDTH or x.dtype.kind not in "fiu":
            raise PreparationError(
                f"{path}: x_{part} is {x.dtype} of shape {x.shape}, expected numbers of shape (clips, frames, {_WIDTH})"
            )
        if len(y.shape) != 2 or y.dtype.kind not in "fiub":
            raise PreparationError(
                f"{path}: y_{part} is {y.dtype} of shape {y.shape}, expected one-hot labels (clips, {num_classes})"
            )
        if y.shape != (x.shape[0], num_classes):
            raise PreparationError(
                f"{path}: y_{part} is of shape {y.shape}, expected {(x.shape[0], num_classes)}: {x.shape[0]} clips as "
                f"in x_{part} and {num_classes} classes{f' as in {benchmark}' * (benchmark != OWN)}; if the file is of "
                "another benchmark, name it with --benchmark; if of other actions, name its classes with --class_names"
            )
    x = {part: members[f"x_{part}"] for part in _PARTS}
    y = {part: members[f"y_{part}"] for part in _PARTS}
    return Arrays(
        path,
        benchmark,
        class_names,
        x,
        y,
        copies=num_classes == len(ntu_clips.ACTIONS) and any(map(_has_copies, x.values())),
    )


def _has_copies(member: npz_rows.Member) -> bool:
    """Whether any of the first clips stores its first body twice."""
    for row, _ in zip(member.rows(), range(_LOOKED_AT), strict=False):
        first, second = np.split(row, _BODIES, axis=1)
        if first.any() and np.array_equal(first, second):
            return True
    return False


def read_names(path, count: int) -> list[ntu_clips.ClipName]:
    """Reads clip names, one per line. Raises: PreparationError unless the file holds exactly `count` names."""
    path = pathlib.Path(path)
    try:
        lines = read_text(path).split()
    except (OSError, ValueError) as error:
        raise PreparationError(f"{path}: not a readable list of names ({error})") from error
    names = [ntu_clips.parse_name(line.removesuffix(".skeleton")) for line in lines]
    if None in names:
        odd = names.index(None)
        raise PreparationError(
            f"{path}: word {odd + 1} is {lines[odd][:40]!r}, expected a clip name such as S001C002P003R002A013"
        )
    if len(names) != count:
        raise PreparationError(
            f"{path}: {len(names)} names, but the array has {count} clips; give one name per clip, in order"
        )
    return names


class Importer:
    """Turns the rows of arrays into clips, and counts what it leaves out."""

    def __init__(self, arrays: Arrays, names: dict[str, list[ntu_clips.ClipName]] | None):
        """`names`: names of the clips by part ('train', 'test'), in the order of the rows; None: unknown."""
        self._arrays = arrays
        self._names = names
        self.counts: collections.Counter[str] = collections.Counter()

    def clips(self) -> Iterator[records.Clip | records.SetAside]:
        """Yields the clips, training part first, with a SetAside in place of each clip that cannot be used."""
        for part in _PARTS:
            rows = zip(self._arrays.x[part].rows(), self._arrays.y[part].rows(), strict=True)
            for place, (x, y) in enumerate(rows):
                name = str(self._names[part][place]) if self._names else f"{self._arrays.path.stem}_{part}_{place:06d}"
                try:
                    yield self._clip(name, part, place, x, y)
                except sources.SourceFileError as error:
                    yield records.SetAside(name, f"row {place} of x_{part}: {error}")

    def _clip(self, name: str, part: str, place: int, x: np.ndarray, y: np.ndarray) -> records.Clip:
        """Reads one clip. Raises: SourceFileError."""
        label = _label(y)
        if self._names is None:
            fields = {"subject": 0, "camera": 0, "setup": 0, "replication": 0, "fold": _PARTS[part]}
        else:
            fields = self._fields(self._names[part][place], part, label)
        return records.Clip(name, label, **fields, skeleton=self._skeleton(x))

    def _fields(self, name: ntu_clips.ClipName, part: str, label: int) -> dict[str, int]:
        """Subject, camera, setup and replication from the name. Raises: SourceFileError if name and file disagree."""
        if label != name.action - 1:
            raise sources.SourceFileError(
                f"label {label} in the file, but the name says {name.action - 1} (A{name.action:03d}); is the list the "
                "file's, in its order?"
            )
        fields = name.fields
        protocol = records.PROTOCOLS["ntu"][self._arrays.benchmark]
        if (fields[protocol.field] in protocol.train) != (part == "train"):
            raise sources.SourceFileError(
                f"in the {part} part, where {protocol.field} {fields[protocol.field]} does not belong in "
                f"{self._arrays.benchmark}"
            )
        return fields

    def _skeleton(self, x: np.ndarray) -> np.ndarray:
        """float32 [T, M, 25, 3] without padding and absent body. Raises: SourceFileError if nothing is left."""
        frames = np.flatnonzero(x.any(axis=1))
        if not len(frames):
            raise sources.SourceFileError("every joint of every frame is zero")
        length = int(frames[-1]) + 1
        with np.errstate(over="ignore"):  # becomes infinite, which is refused later
            skeleton = x[:length].reshape(length, _BODIES, _JOINTS, _CHANNELS).astype(np.float32)
        self.counts["padded"] += length < len(x)
        if np.array_equal(skeleton[:, 0], skeleton[:, 1]):
            self.counts["copies"] += 1
            return skeleton[:, :1]
        if not skeleton[:, 1].any():
            self.counts["never seen" if self._arrays.copies else "zeros"] += 1
            return skeleton if self._arrays.copies else skeleton[:, :1]
        return skeleton

    def report(self) -> str:
        """One or two lines that say what was left out."""
        counts = self.counts
        lines = [
            f"removed padding from {counted(counts['padded'], 'clip')}, and absent second bodies: "
            f"{counts['zeros']:,} stored as zeros, {counts['copies']:,} as copies of the first"
        ]
        if counts["never seen"]:
            lines.append(
                f"{counted(counts['never seen'], 'clip keeps', 'clips keep')} a second body of zeros: a second actor "
                "was expected but not tracked"
            )
        return "\n".join(lines)


def _label(y: np.ndarray) -> int:
    """The class of a one-hot row. Raises: SourceFileError if the row is not one-hot."""
    hot = np.flatnonzero(y != 0)
    if len(hot) != 1 or y[hot[0]] != 1:
        raise sources.SourceFileError(
            f"its label is not one-hot: {len(hot)} of {len(y)} entries are not 0, expected a single 1"
        )
    return int(hot[0])


def dataset_info(arrays: Arrays, named: bool) -> records.DatasetInfo:
    """Describes the dataset. Named clips have NTU RGB+D's protocols; unnamed ones only the file's division."""
    protocol = records.Protocol("fold", (_PARTS["train"],), arrays.num_classes, test=(_PARTS["test"],))
    return records.DatasetInfo(
        dataset="ntu"
        if named
        else "ntu_arrays"
        if arrays.benchmark != OWN
        else f"arrays_{printable(arrays.path.stem)}",
        layout="ntu",
        units="metres",
        class_names=arrays.class_names,
        image_source=None,
        preprocessing=f"imported from CTR-GCN's {printable(arrays.path.name)}: denoised and translated to joint 2 of "
        "the first frame as published; padding and absent second bodies left out; no images",
        protocols={} if named else {arrays.benchmark: protocol},
    )


def prepare(
    source,
    out,
    *,
    benchmark: str | None = None,
    class_names=None,
    train_names=None,
    test_names=None,
    overwrite: bool = False,
) -> None:
    """Writes the records folder `out` from the file `source`.

    Args:
      source: the `.npz` file.
      out: the records folder.
      benchmark: a key of BENCHMARKS; by default the one that the file's name tells.
      class_names: file of class names, one per line, by label, for arrays that belong to no benchmark.
      train_names, test_names: files of clip names, in the order of the rows; both or neither.
      overwrite: replace existing records after the new ones are complete.

    Raises: PreparationError.
    """
    out = records.check_destination(out, overwrite)
    source = pathlib.Path(source)
    if class_names is not None:
        arrays = open_arrays(source, OWN, commands.read_class_names(pathlib.Path(class_names)))
    else:
        arrays = open_arrays(source, benchmark or find_benchmark(source))
    names = None
    if train_names is not None:
        lists = {"train": train_names, "test": test_names}
        names = {part: read_names(path, arrays.x[part].shape[0]) for part, path in lists.items()}
    importer = Importer(arrays, names)
    info = dataset_info(arrays, named=names is not None)
    records.write_records(out, info, importer.clips(), total=arrays.num_clips, overwrite=overwrite)
    print(importer.report())
    commands.print_counts(out, arrays.benchmark, ntu_clips.NUM_CLIPS.get(arrays.benchmark))


def main(arguments: list[str] | None = None) -> None:
    parser = commands.argument_parser(__doc__, source="the .npz file")
    parser.add_argument(
        "--benchmark", choices=BENCHMARKS, help="the benchmark of the file (default: the one that its name tells)"
    )
    parser.add_argument(
        "--train_names", help="a file with the clip names of x_train, one per line, in the order of its rows"
    )
    parser.add_argument("--test_names", help="the same for x_test")
    parser.add_argument(
        "--class_names",
        help="for arrays of other actions: a file of class names, one per line, in the order of the labels",
    )
    parsed = parser.parse_args(arguments)
    if parsed.class_names is not None and (parsed.benchmark or parsed.train_names or parsed.test_names):
        parser.error(
            "--class_names is for arrays that belong to no benchmark: it excludes --benchmark and names of clips"
        )
    if (parsed.train_names is None) != (parsed.test_names is None):
        parser.error("--train_names and --test_names must be given together")
    with plain_errors():
        prepare(
            parsed.source,
            parsed.out,
            benchmark=parsed.benchmark,
            class_names=parsed.class_names,
            train_names=parsed.train_names,
            test_names=parsed.test_names,
            overwrite=parsed.overwrite,
        )


if __name__ == "__main__":
    main()
