"""Writing records: clips in, one pass, several small TFDS datasets out (ArrayRecord, no TensorFlow).

At any time the destination is either as it was before or complete: everything is written into a
scratch folder beside it, `OUT.incomplete-` and eight digits, which does not open as records, and renamed at the end. A
lock beside the destination lets one process at a time write there. `schema` describes the folder.
"""

import dataclasses
import hashlib
import io
import json
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mmcl_jax.data.records import checks
from mmcl_jax.data.records.reading import count_rows
from mmcl_jax.data.records.schema import (
    COORDINATES_DIGEST,
    IMAGES,
    INDEX_FIELDS,
    RECORDS_VERSION,
    SKELETONS,
    SPLIT,
    TEXT,
    DatasetInfo,
    name_fault,
)
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.runtime.files import clear_disk_errors, make_folder, printable
from mmcl_jax.runtime.locks import exclusive
from mmcl_jax.runtime.progress import progress_bar
from mmcl_jax.runtime.scratch import leftovers, remove_leftovers, scratch_folder
from mmcl_jax.runtime.words import counted

_EXAMPLES_PER_SHARD = 16384
_JPEG_START = b"\xff\xd8\xff"
_CLIP_FIELDS = INDEX_FIELDS[:-2]  # the others are counted
_TEXT_SET = re.compile(r"(?!.*(^|/)\.)[\w.-]+/[\w.-]+/[\w.-]+")
_LONGEST_NAME = 180  # bytes of the destination's name; those of the lock and the scratch folder are longer
_NEW, _REPLACED = "records", "replaced"  # beneath the scratch folder
_BUFFERED_EXAMPLES = 128  # TFDS rewrites a dataset's metadata at every call, so calls are few


@dataclasses.dataclass
class Clip:
    """One clip as written: `skeleton` float32 (T, M, V, C) with only the bodies that are present."""

    name: str
    label: int
    subject: int
    camera: int
    setup: int
    replication: int
    skeleton: np.ndarray
    image: bytes | None = None  # the mosaic, already JPEG
    texts: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)  # 'model/question/feature' -> float32 (D,)
    fold: int = 0  # which of the groups that the dataset's own divisions keep together; 0 where there are none


@dataclasses.dataclass(frozen=True)
class SetAside:
    """A source file or clip that was left out, and why; with `keeps_clip`, only the image of a clip that is kept."""

    name: str
    reason: str
    keeps_clip: bool = False

    def __post_init__(self):
        for field in ("name", "reason"):  # a file name that is not UTF-8 could not be stored
            object.__setattr__(self, field, printable(str(getattr(self, field))))


def write_records(
    out: str | pathlib.Path,
    info: DatasetInfo,
    clips: Iterable[Clip | SetAside],
    *,
    total: int | None = None,
    set_aside: Sequence[SetAside] = (),
    overwrite: bool = False,
) -> None:
    """Writes `clips` to the records folder `out`, in one pass and in the order given.

    Args:
      out: the folder to create.
      info: what is stored about the dataset.
      clips: may be a generator larger than memory. It yields SetAside in place of a clip it could not read; a clip
        that is not fit to be stored (see `_RecordsWriter.fault`) is set aside here.
      total: number of items in `clips`, for the progress bar.
      set_aside: what was left out before; stored with the rest in `set_aside.json`.
      overwrite: replace existing records, after the new ones are complete.

    Raises:
      PreparationError: `out` exists and may not be replaced, no clip is left, or the disk is full.
      LockedError: another process is writing records to `out`.
    """
    out = check_destination(out, overwrite)
    set_aside = list(set_aside)
    make_folder(out.parent)
    lock = exclusive(
        out.with_name(f".{out.name}.lock"),
        what=f"preparing records in {out}",
        remedy="choose another --out",
    )
    with clear_disk_errors(_scratch(out)), lock, scratch_folder(_scratch(out)) as scratch:
        check_destination(out, overwrite)  # another process may have finished since
        (scratch / _NEW).mkdir()
        summary = _write(scratch / _NEW, out, info, clips, total, set_aside)
        check_destination(out, overwrite)  # a program that knows no lock may have put something there
        _move_into_place(scratch, out)
    print(f"{out}: {summary}")
    print_set_aside(set_aside, out / "set_aside.json")


def check_destination(out: str | pathlib.Path, overwrite: bool) -> pathlib.Path:
    """The absolute path of `out`, if records may be written there.

    Records that a killed process was about to replace are put back first.

    Raises: PreparationError where `out` holds records and `overwrite` is off, or holds anything else, or its name is
    not one that a new folder can have.
    """
    try:
        out = pathlib.Path(out).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links is a RuntimeError
        raise PreparationError(f"{out}: not a path that can be used ({error}); choose another --out") from error
    if not out.name:
        raise PreparationError(f"{out}: the root of the disk cannot be a records folder; choose another --out")
    length = len(os.fsencode(out.name))
    if length > _LONGEST_NAME:
        raise PreparationError(
            f"{out.parent}: the folder name {out.name[:20]}... of {length} bytes is too long; choose an --out whose "
            f"name has at most {_LONGEST_NAME}"
        )
    _put_back(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return out
    if not (out / "info.json").is_file():
        raise PreparationError(
            f"{out}: exists and is not a records folder; it will not be replaced, choose another --out"
        )
    if not overwrite:
        raise PreparationError(f"{out}: exists already; choose another --out, or pass --overwrite to replace it")
    return out


def print_set_aside(set_aside: Sequence[SetAside], path: pathlib.Path) -> None:
    """Prints how many were set aside and the first few of them."""
    if not set_aside:
        return
    kept = sum(item.keeps_clip for item in set_aside)
    images = f"{counted(kept, 'clip')} kept without an image" if kept else ""
    left_out = f"set aside: {len(set_aside) - kept}" if kept < len(set_aside) else ""
    print(f"{'; '.join(filter(None, (left_out, images)))}, listed in {path}")
    for item in set_aside[:10]:
        print(f"  {item.name}: {item.reason}")
    if len(set_aside) > 10:
        print(f"  and {len(set_aside) - 10} more")


class DatasetWriter:
    """Writes one TFDS dataset of a records folder, row by row, and remembers the clip name of each row."""

    def __init__(self, folder: pathlib.Path, features: dict, info: DatasetInfo):
        """Creates the dataset in `folder` with the TFDS `features` beside the clip's name."""
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core import dataset_info

        folder.mkdir(parents=True)
        self.folder = folder
        self.names: list[str] = []
        self._buffer: list[dict] = []
        identity = dataset_info.DatasetIdentity(
            name=folder.name if folder.name in (SKELETONS, IMAGES) else TEXT,
            version=tfds.core.Version(RECORDS_VERSION),
            data_dir=str(folder),
            module_name="",
        )
        description = dataset_info.DatasetInfo(
            builder=identity,
            description=printable(f"{info.dataset}: {info.preprocessing}"),
            features=tfds.features.FeaturesDict({"name": tfds.features.Text(), **features}),
            metadata=tfds.core.MetadataDict(info.to_json()),
        )
        self._writer = tfds.core.SequentialWriter(
            description, max_examples_per_shard=_EXAMPLES_PER_SHARD, file_format="array_record"
        )
        self._writer._serializer = _repeatable_serializer(description.features)
        self._writer.initialize_splits([SPLIT])

    def add(self, name: str, **values: Any) -> None:
        """Appends the row of clip `name`."""
        self.names.append(name)
        self._buffer.append({"name": name, **values})
        if len(self._buffer) == _BUFFERED_EXAMPLES:
            self._flush()

    def close(self) -> None:
        """Completes the dataset. Raises: PreparationError where fewer rows reached the disk than were added."""
        self._flush()
        self._writer.close_all()
        written = count_rows(self.folder)
        if written != len(self.names):
            raise PreparationError(
                f"{self.folder}: {written} of {len(self.names)} rows were written; is the disk full?"
            )

    def save_names(self) -> None:
        """Stores the clip name of each row beside a dataset that the index does not name."""
        np.save(self.folder / "names.npy", np.array(self.names))

    def _flush(self) -> None:
        if self._buffer:
            self._writer.add_examples({SPLIT: self._buffer})
            self._buffer = []


def _repeatable_serializer(features):
    """TFDS's serializer, but with the same bytes in every process; protobuf leaves the order of a map's entries open.

    TFDS has no option for it, so `DatasetWriter` puts this in the place of the writer's own.
    """
    from tensorflow_datasets.core import example_serializer

    class Repeatable(example_serializer.ExampleSerializer):
        def serialize_example(self, example):
            return self.get_tf_example(example).SerializeToString(deterministic=True)

    return Repeatable(features.get_serialized_info())


def _write(
    folder: pathlib.Path,
    destination: pathlib.Path,
    info: DatasetInfo,
    clips: Iterable[Clip | SetAside],
    total: int | None,
    set_aside: list[SetAside],
) -> str:
    """Writes all of the records folder `folder`, which will be `destination`, and extends `set_aside`.

    Returns: a line that sums it up.
    """
    writer = _RecordsWriter(folder, info)
    with progress_bar(total=total, unit="clip", desc=info.dataset) as bar:
        for clip in clips:
            reason = None if isinstance(clip, SetAside) else writer.fault(clip)
            if isinstance(clip, SetAside):
                set_aside.append(clip)
            elif reason:
                set_aside.append(SetAside(clip.name, reason))
            else:
                writer.add(clip)
            bar.update(not (isinstance(clip, SetAside) and clip.keeps_clip))
    if not writer.names:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in set_aside[:3]) or "the source is empty"
        raise PreparationError(
            f"{destination}: no clip is left to write, {len(set_aside)} set aside ({reasons}); is the source right?"
        )
    _write_json(folder / "set_aside.json", [{"name": item.name, "reason": item.reason} for item in set_aside])
    writer.close()
    return ", ".join(f"{len(dataset.names)} {kind}" for kind, dataset in writer.datasets.items())


class _RecordsWriter:
    """Distributes clips over the datasets of a records folder, each created at the first clip that has a part in it."""

    def __init__(self, folder: pathlib.Path, info: DatasetInfo):
        self.folder = folder
        self.info = info
        self.datasets: dict[str, DatasetWriter] = {}  # by path beneath the records folder
        self.names: set[str] = set()
        self.widths: dict[str, int] = {}  # of the text sets
        self._index: list[tuple[int, ...]] = []
        self._digest = hashlib.sha256()

    def fault(self, clip: Clip) -> str | None:
        """Why a clip must not be stored, or None."""
        return (
            _identity_fault(clip, self.info, self.names)
            or checks.skeleton_fault(clip.skeleton, self.info)
            or ("the image is not a JPEG" if clip.image is not None and clip.image[:3] != _JPEG_START else None)
            or _text_fault(clip.texts, self.widths)
        )

    def add(self, clip: Clip) -> None:
        """Appends a clip without fault."""
        from tensorflow_datasets import features

        self.names.add(clip.name)
        num_frames, num_bodies = clip.skeleton.shape[:2]
        fields = (*(int(getattr(clip, field)) for field in _CLIP_FIELDS), num_bodies, num_frames)
        self._index.append(fields)
        shape = (None, None, *self.info.joint_shape)
        tensor = features.Tensor(shape=shape, dtype=np.float32, encoding=features.Encoding.BYTES)
        schema = {"skeleton": tensor, **dict.fromkeys(INDEX_FIELDS, np.int64)}
        skeleton = np.ascontiguousarray(clip.skeleton, dtype=np.float32)
        self._digest.update(skeleton.data)
        numbers = dict(zip(INDEX_FIELDS, fields, strict=True))
        self._dataset(SKELETONS, schema).add(clip.name, skeleton=skeleton, **numbers)
        if clip.image is not None:
            schema = {"image": features.Image(shape=(None, None, 3), encoding_format="jpeg")}
            # A file object is stored as it is; an array would be encoded by TensorFlow.
            self._dataset(IMAGES, schema).add(clip.name, image=io.BytesIO(clip.image))
        for text_set, feature in clip.texts.items():
            self.widths[text_set] = len(feature)
            schema = {"feature": features.Tensor(shape=feature.shape, dtype=np.float32)}
            dataset = self._dataset(f"{TEXT}/{text_set}", schema)
            dataset.add(clip.name, feature=np.asarray(feature, dtype=np.float32))

    def close(self) -> None:
        """Completes the datasets and writes the indexes; `info.json`, without which nothing opens, comes last."""
        for kind, dataset in self.datasets.items():
            dataset.close()
            if kind != SKELETONS:
                dataset.save_names()
        columns = dict(zip(INDEX_FIELDS, np.array(self._index, dtype=np.int64).T, strict=True))
        np.savez(self.folder / "index.npz", name=np.array(self.datasets[SKELETONS].names), **columns)
        stored = {
            "records_version": RECORDS_VERSION,
            "num_joints": self.info.joint_shape[0],
            "num_channels": self.info.joint_shape[1],
            "info": self.info.to_json(),
            COORDINATES_DIGEST: self._digest.hexdigest(),
        }
        _write_json(self.folder / "info.json", stored)

    def _dataset(self, kind: str, schema: dict) -> DatasetWriter:
        if kind not in self.datasets:
            self.datasets[kind] = DatasetWriter(self.folder / kind, schema, self.info)
        return self.datasets[kind]


def _identity_fault(clip: Clip, info: DatasetInfo, names: set[str]) -> str | None:
    fault = name_fault(clip.name)
    if fault is None and clip.name in names:
        fault = "duplicate: a clip of this name came before"
    return fault or checks.fields_fault({field: getattr(clip, field) for field in _CLIP_FIELDS}, info)


def _text_fault(texts: dict[str, np.ndarray], widths: dict[str, int]) -> str | None:
    for text_set, feature in texts.items():
        if not _TEXT_SET.fullmatch(text_set):
            return f"text set {text_set!r}, expected 'model/question/feature' of letters, digits, '.', '_' and '-'"
        if feature.ndim != 1 or not len(feature) or not np.isfinite(feature).all():
            return f"text feature {text_set} of shape {feature.shape}, expected a vector of finite numbers"
        if widths.get(text_set, len(feature)) != len(feature):
            return f"text feature {text_set} of width {len(feature)}, earlier clips have {widths[text_set]}"
    return None


def _move_into_place(scratch: pathlib.Path, out: pathlib.Path) -> None:
    """Renames the complete folder to `out`; the old folder is removed only after that, with the scratch folder."""
    if out.exists():
        out.rename(scratch / _REPLACED)
    try:
        (scratch / _NEW).rename(out)
    except BaseException:
        if (scratch / _REPLACED).exists() and not out.exists():
            (scratch / _REPLACED).rename(out)
        raise


def _put_back(out: pathlib.Path) -> None:
    """Renames the records back that a killed process left between two renames.

    Raises: PreparationError if that process ran on another host, where it cannot be seen whether it has ended.
    """

    def rescue(scratch: pathlib.Path) -> None:
        if (scratch / _REPLACED).is_dir() and not out.exists():
            (scratch / _REPLACED).rename(out)

    remove_leftovers(_scratch(out), rescue)
    if not out.exists():
        for scratch in leftovers(_scratch(out)):
            if (scratch / _REPLACED).is_dir():
                raise PreparationError(
                    f"{out}: missing; {scratch / _REPLACED} holds records that a process of another host was replacing."
                    f" If it has ended, rename that folder to {out}, or remove {scratch}"
                )


def _scratch(out: pathlib.Path) -> pathlib.Path:
    """The prefix of scratch folders beside `out`."""
    return out.with_name(f"{out.name}.incomplete")


def _write_json(path: pathlib.Path, value) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", errors="backslashreplace")  # JSON's escape of a lone surrogate
