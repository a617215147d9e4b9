"""Reading records: random access to small TFDS datasets, joined by clip name. `schema` describes the folder.

A run on skeletons opens neither images nor text.
"""

import hashlib
import io
import pathlib
import threading
from collections.abc import Collection
from typing import Any

import numpy as np

from mmcl_jax.data.records import checks
from mmcl_jax.data.records.protocols import PROTOCOLS
from mmcl_jax.data.records.schema import (
    CHANNELS,
    COORDINATES_DIGEST,
    IMAGES,
    INDEX_FIELDS,
    RECORDS_VERSION,
    SKELETONS,
    SPLIT,
    TEXT,
    DatasetInfo,
    Protocol,
    RecordsError,
)
from mmcl_jax.runtime.arrays import read_array, read_arrays
from mmcl_jax.runtime.files import check_regular, read_json

# The classes that TFDS writes into features.json for the features of `writing`.
_CLASSES = frozenset(
    f"tensorflow_datasets.core.features.{name}"
    for name in ("features_dict.FeaturesDict", "image_feature.Image", "tensor_feature.Tensor", "text_feature.Text")
)
# The keys whose value is a class ('type' in files of old versions), and those whose value is JSON within a string.
_NAMES_A_CLASS = ("pythonClassName", "python_class_name", "type")
_HIDES_CLASSES = ("jsonFeature", "json_feature")


class Records:
    """Random access to one records folder. Reads are lazy and thread-safe; pickling stores only the path.

    Attributes:
      root: the folder.
      info: DatasetInfo.
      index: name -> array with one entry per clip (`name` is str, the rest int64), in the row order of the skeletons.
      max_frames, max_bodies: T of the longest clip, M of the clip with most bodies.
      num_joints, num_channels: V and C of every clip.
      has_images: whether there are mosaics.
      text_sets: names 'model/question/feature' of the text sets.
    """

    def __init__(self, root: str | pathlib.Path):
        """Opens the folder `root`.

        Raises: RecordsError, naming file, value and remedy, if the folder is missing, is not a records folder, has
        another records version, its index is corrupt, its skeletons are missing, or the two differ in length.
        """
        self.root = pathlib.Path(root)
        stored = _read_info(self.root)
        self.info = DatasetInfo.from_json(stored["info"])
        self._coordinates_digest = str(stored.get(COORDINATES_DIGEST, ""))
        self.num_joints, self.num_channels = self.info.joint_shape
        self.index = _read_index(self.root / "index.npz", self.info)
        self.max_frames = int(self.index["num_frames"].max())
        self.max_bodies = int(self.index["num_bodies"].max())
        self.has_images = (self.root / IMAGES).is_dir()
        self.text_sets = _text_sets(self.root)
        self._lock = threading.Lock()
        self._joined: dict[str, _NamedDataset] = {}
        self._skeletons = _NamedDataset(
            self.root / SKELETONS, self.index["name"], "skeleton", decoded=("name", "skeleton")
        )

    def __reduce__(self):
        return Records, (self.root,)

    def __len__(self) -> int:
        return len(self.index["name"])

    def fingerprint(self) -> str:
        """A digest of the clips' names, labels, lengths and coordinates: other clips have another fingerprint.

        It covers a layout of the records' own, and channels other than x, y, z. (Without these it is the same as before
        records could have them, so that earlier runs resume. Nor do earlier records store the digest of their
        coordinates.)
        """
        digest = hashlib.sha256()
        for field in ("name", "label", "subject", "camera", "num_frames"):
            digest.update("\n".join(map(str, self.index[field].tolist())).encode())
        if not isinstance(self.info.layout, str) or self.info.channels != CHANNELS[0]:
            digest.update(repr((self.info.skeleton_layout, self.info.channels)).encode())
        digest.update(self._coordinates_digest.encode())
        return digest.hexdigest()[:16]

    @property
    def protocols(self) -> dict[str, Protocol]:
        """The protocols that `protocol` knows, by name."""
        return {**PROTOCOLS.get(self.info.dataset, {}), **self.info.protocols}

    def protocol(self, name: str) -> Protocol:
        """The protocol `name` of this dataset. Raises: RecordsError, listing the known ones."""
        known = self.protocols
        if name not in known:
            raise RecordsError(
                f"{self.root}: protocol {name!r} is not one of {sorted(known)} (dataset {self.info.dataset!r})"
            )
        return known[name]

    def class_names(self, protocol: str) -> tuple[str, ...]:
        """Names of a protocol's classes, in the order of the labels. Raises: RecordsError for an unknown protocol."""
        return self.info.class_names[: self.protocol(protocol).num_classes]

    def select(self, protocol: str, part: str, validation_subjects: Collection[int] = ()) -> np.ndarray:
        """Rows (int64) of one part of a protocol, in index order.

        Args:
          protocol: key of `info.protocols` or `PROTOCOLS[info.dataset]`.
          part: 'train', 'validation' or 'test'.
          validation_subjects: training subjects whose training clips are validation instead (empty: no such part).

        Raises: RecordsError for an unknown protocol or part, for a validation subject that is not a training subject,
        and for an empty training or test part.
        """
        division = self.protocol(protocol)
        train, test = division.masks(self.index)
        subjects = set(self.index["subject"][train].tolist())
        unknown = sorted(set(validation_subjects) - subjects)
        if unknown:
            raise RecordsError(
                f"{self.root}: validation subjects {unknown} are not among the training subjects {sorted(subjects)} "
                f"of protocol {protocol!r}; choose some of those"
            )
        held_out = np.isin(self.index["subject"], list(validation_subjects))
        parts = {"train": train & ~held_out, "validation": train & held_out, "test": test}
        if part not in parts:
            raise RecordsError(f"part {part!r} is not one of {list(parts)}")
        rows = np.flatnonzero(parts[part]).astype(np.int64)
        if not len(rows) and part != "validation":
            raise RecordsError(
                f"{self.root}: no clip in part {part!r} of protocol {protocol!r} (validation subjects "
                f"{sorted(validation_subjects)}, {division.field}s here: "
                f"{sorted(set(self.index[division.field].tolist()))})"
            )
        return rows

    def skeleton(self, row: int) -> np.ndarray:
        """The skeleton of clip `row`: float32 `[M, T, V, C]`, M its real bodies, T its own length.

        Raises: RecordsError if it is damaged, or holds a value that no skeleton has.
        """
        clip = self._skeletons.read(int(row))["skeleton"]
        fault = checks.skeleton_fault(clip, self.info)
        if fault is not None:
            raise RecordsError(
                f"{self._skeletons.folder}: row {row} (clip {self.index['name'][row]}): {fault}; prepare again"
            )
        return np.ascontiguousarray(clip.transpose(1, 0, 2, 3))

    def image(self, row: int, size: int) -> np.ndarray:
        """The mosaic of clip `row`: uint8 RGB `[H, W, 3]`, the shorter side resized to `size` (bilinear, antialiased).

        Raises: RecordsError if the clip has no image, naming all clips without one, or if its JPEG is broken.
        """
        from PIL import Image

        try:
            picture = Image.open(io.BytesIO(self.image_file(row))).convert("RGB")
        except OSError as error:
            name = self.index["name"][row]
            raise RecordsError(
                f"{self.root / IMAGES}: the JPEG of clip {name} is broken ({error}); prepare again"
            ) from error
        width, height = picture.size
        short = min(width, height)
        resized = picture.resize((size * width // short, size * height // short), Image.Resampling.BILINEAR)
        return np.array(resized)

    def image_file(self, row: int) -> bytes:
        """The JPEG file of clip `row`'s mosaic, as it was stored. Raises: RecordsError if the clip has none."""
        return self._dataset(IMAGES).read(self._joined_row(row, IMAGES))["image"]

    def text(self, row: int, text_set: str) -> np.ndarray:
        """The text feature of clip `row`: float32 `[D]`.

        Raises: RecordsError for an unknown set, or if the clip has no such feature, naming all clips without one.
        """
        joined = self._joined_row(row, text_set)
        return self._dataset(text_set).read(joined)["feature"]

    def answer(self, row: int, text_set: str) -> str | None:
        """The model's answer for clip `row`; None if the set keeps no answers. Raises: RecordsError, as `text`."""
        joined = self._joined_row(row, text_set)
        stored = self._dataset(text_set).read(joined).get("answer")
        return None if stored is None else stored.decode()

    def text_width(self, text_set: str) -> int:
        """D, the width of a text set's features. Raises: RecordsError for an unknown set."""
        return self._dataset(text_set).features["feature"].shape[0]

    def clips_without(self, rows: np.ndarray, kind: str) -> list[str]:
        """Names of the clips among `rows` that lack 'images' or the text set `kind`. Raises: RecordsError."""
        names = self.index["name"][np.asarray(rows, dtype=np.int64)].tolist()
        if kind == IMAGES and not self.has_images:
            return names
        present = self._dataset(kind).rows
        return [name for name in names if name not in present]

    def _joined_row(self, row: int, kind: str) -> int:
        """Row of clip `row` in the dataset `kind`."""
        found = self._dataset(kind).rows.get(str(self.index["name"][row]))
        if found is None:
            missing = self.clips_without(np.arange(len(self)), kind)
            raise RecordsError(
                f"{self._dataset(kind).folder}: clip {self.index['name'][row]} is not in it; {len(missing)} of "
                f"{len(self)} clips are not: {_shorten(missing)}. Prepare them, or run without {kind}"
            )
        return found

    def _dataset(self, kind: str) -> "_NamedDataset":
        """The dataset 'images' or a text set, opened on first use."""
        with self._lock:
            if kind not in self._joined:
                self._joined[kind] = self._open(kind)
            return self._joined[kind]

    def _open(self, kind: str) -> "_NamedDataset":
        if kind == IMAGES:
            folder = self.root / IMAGES
            if not self.has_images:
                raise RecordsError(
                    f"{folder}: missing; these records have no images. Prepare them with images, or run without"
                )
        elif kind in self.text_sets:
            folder = self.root / TEXT / kind
        else:
            raise RecordsError(f"{self.root / TEXT}: no text set {kind!r}; known: {list(self.text_sets) or 'none'}")
        return _NamedDataset(folder, _read_names(folder / "names.npy"), "image" if kind == IMAGES else "feature")


class _NamedDataset:
    """One TFDS dataset with the clip name of each of its rows."""

    def __init__(self, folder: pathlib.Path, names: np.ndarray, needed: str, decoded: tuple[str, ...] | None = None):
        """Opens `folder`, which has the feature `needed`; `read` decodes the features `decoded` (None: all).

        Raises: RecordsError if it is missing, unreadable or not as long as `names`.
        """
        import tensorflow_datasets as tfds

        if not (folder / "dataset_info.json").is_file():
            raise RecordsError(f"{folder}: missing; expected a dataset of {len(names)} clips here. Prepare again")
        _check_files(folder)
        _check_classes(folder)
        self.folder = folder
        self.names = names
        self.rows = {name: row for row, name in enumerate(names.tolist())}
        try:
            builder: Any = tfds.builder_from_directory(folder)
            self.features = builder.info.features
            # Not tfds.decode.PartialDecoding, which needs TensorFlow.
            self._decoded = tfds.features.FeaturesDict({name: self.features[name] for name in decoded or self.features})
            self._decoders = {"image": tfds.decode.SkipDecoding()} if "image" in self.features else None
            self._source = builder.as_data_source(SPLIT, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
            counted = count_rows(folder)
            lacking = [name for name in ("name", needed) if name not in self.features]
            if lacking:
                raise ValueError(f"its features {', '.join(self.features)} lack {lacking[0]!r}")
        # TFDS and ArrayRecord raise anything from KeyError to RuntimeError on a damaged file.
        except Exception as error:
            raise RecordsError(f"{folder}: cannot be opened ({error}); prepare again") from error
        if counted != len(names) or len(self._source) != len(names):
            raise RecordsError(f"{folder}: {counted} rows, but the index has {len(names)} clips; prepare again")

    def read(self, row: int) -> dict:
        """The example in `row`. Raises: RecordsError if it is damaged or belongs to another clip."""
        name = str(self.names[row])
        try:
            example: Any = self._decoded.deserialize_example_np(self._source[row], decoders=self._decoders)
        except Exception as error:  # as above
            raise RecordsError(
                f"{self.folder}: row {row} (clip {name}) cannot be read ({error}); prepare again"
            ) from error
        stored = example["name"].decode()
        if stored != name:
            raise RecordsError(f"{self.folder}: row {row} holds clip {stored}, the index says {name}; prepare again")
        return example


def count_rows(folder: pathlib.Path) -> int:
    """Number of rows that the ArrayRecord files of the TFDS dataset in `folder` really hold."""
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  compiled

    total = 0
    for path in sorted(folder.glob(f"*-{SPLIT}.array_record-*")):
        reader = array_record_module.ArrayRecordReader(str(path))
        total += reader.num_records()
        reader.close()
    return total


def _read_info(root: pathlib.Path) -> dict:
    """Contents of `info.json`, checked."""
    path = root / "info.json"
    if not root.is_dir():
        raise RecordsError(f"{root}: no such folder; prepare it with python -m data_prep.<dataset> --out {root}")
    if not path.is_file():
        raise RecordsError(
            f"{root}: not a records folder (no info.json); prepare one with python -m data_prep.<dataset>"
        )
    try:
        stored = read_json(path)
        version = stored["records_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordsError(f"{path}: unreadable ({error!r}); prepare again") from error
    if version != RECORDS_VERSION:
        raise RecordsError(
            f"{path}: records version {version!r}, this program reads {RECORDS_VERSION!r}; prepare again"
        )
    try:
        expected = DatasetInfo.from_json(stored["info"]).joint_shape
        shape = stored["num_joints"], stored["num_channels"]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise RecordsError(f"{path}: incomplete or wrong ({error!r}); prepare again") from error
    if shape != expected:
        raise RecordsError(f"{path}: {shape} joints and channels, its layout has {expected}; prepare again")
    return stored


def _read_index(path: pathlib.Path, info: DatasetInfo) -> dict[str, np.ndarray]:
    """Contents of `index.npz`, checked."""
    try:
        index = read_arrays(path, ("name", *INDEX_FIELDS))
        missing = [field for field in ("name", *INDEX_FIELDS) if field != "fold" and field not in index]
        if missing:
            raise ValueError(f"no {missing[0]}")
    except (OSError, ValueError) as error:
        raise RecordsError(f"{path}: missing or corrupt ({error!r}); prepare again") from error
    index.setdefault("fold", np.zeros(index["name"].shape, np.int64))  # records of an earlier version have none
    fault = checks.index_fault(index, info)
    if fault is not None:
        raise RecordsError(f"{path}: corrupt, {fault}; prepare again")
    return {field: values if field == "name" else values.astype(np.int64) for field, values in index.items()}


def _check_files(folder: pathlib.Path) -> None:
    """Raises RecordsError where something else than files, which might be waited for forever, is in a dataset."""
    for path in sorted(folder.iterdir()):
        try:
            check_regular(path)
        except (OSError, ValueError) as error:
            raise RecordsError(f"{path}: cannot be read ({error}); prepare again") from error


def _check_classes(folder: pathlib.Path) -> None:
    """Raises RecordsError if a file of the dataset names a class that we do not write.

    TFDS imports the module of every class that `features.json` or `dataset_info.json` names, which runs its code.
    """
    for path in (folder / "features.json", folder / "dataset_info.json"):
        if not path.exists():
            continue  # TFDS says what is missing
        try:
            left = [read_json(path)]
        except (OSError, ValueError) as error:
            raise RecordsError(f"{path}: unreadable ({error}); prepare again") from error
        while left:
            value = left.pop()
            left.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
            for key, inner in value.items() if isinstance(value, dict) else ():
                is_class = key in _NAMES_A_CLASS and isinstance(inner, str)
                if key in _HIDES_CLASSES or (is_class and inner not in _CLASSES):
                    raise RecordsError(
                        f"{path}: {key!r} is {str(inner)[:200]!r}, not a class of records. To read it would import "
                        "the module and run its code; nothing was run. If you do not know who made this folder, do not "
                        "use it; otherwise prepare it again"
                    )


def _read_names(path: pathlib.Path) -> np.ndarray:
    try:
        names = read_array(path)
        if names.ndim != 1 or names.dtype.kind != "U":
            raise ValueError(f"{names.dtype} of shape {names.shape}, expected a list of names")
    except (OSError, ValueError) as error:
        raise RecordsError(f"{path}: missing or corrupt ({error!r}); prepare again") from error
    return names


def _text_sets(root: pathlib.Path) -> tuple[str, ...]:
    """Names '<model>/<question>/<feature>' of the text datasets below `root`."""
    found = (root / TEXT).glob("*/*/*/dataset_info.json")
    return tuple(sorted(path.parent.relative_to(root / TEXT).as_posix() for path in found))


def _shorten(names: list[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
