"""Records: the schema of prepared data, and reading it back. Small TFDS datasets, joined by clip name.

    ROOT/info.json       DatasetInfo, records version, numbers of joints and channels
    ROOT/index.npz       one row per clip: name, label, subject, camera, setup, replication, fold, and its size
    ROOT/skeletons/      TFDS dataset (ArrayRecord), rows in index order: float32 (T, M, V, C), real bodies only
    ROOT/images/         TFDS dataset of JPEG mosaics, with its own names.npy (row -> clip name)
    ROOT/text/<model>/<question>/<feature>/   TFDS dataset of float32 (D,) vectors, with its own names.npy; those of a
                         model also the answer of each clip and about.json: model, question, width

`data_prep.builders` and `data_prep.text_features` write this. A run on skeletons opens neither images nor text.
"""

import dataclasses
import hashlib
import io
import json
import pathlib
import threading
import zipfile

import numpy as np

from mmcl_jax.data.layouts import LAYOUTS, Layout
from mmcl_jax.runtime.errors import MMCLError

RECORDS_VERSION = "1.0.0"
SPLIT = "clips"  # the one split of every dataset; train and test are filters on the index ('all' is reserved by TFDS)
INDEX_FIELDS = ("label", "subject", "camera", "setup", "replication", "fold", "num_bodies", "num_frames")
IMAGES = "images"
SKELETONS = "skeletons"
TEXT = "text"


class RecordsError(MMCLError, ValueError):
    """A records folder, or a question asked of it, that cannot be used. Names the file, the value and the remedy."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A train/test division: clips whose index field `field` is one of `train` train the model, all others test it.

    With `test`, only clips whose field is one of those test it, and the rest takes no part. With `num_classes`, only
    the clips of the first so many classes take part, and the model knows no others.
    """

    field: str
    train: tuple[int, ...]
    num_classes: int | None = None
    test: tuple[int, ...] | None = None

    def __post_init__(self):
        if self.field not in INDEX_FIELDS:
            raise ValueError(f"protocol: field {self.field!r} is not one of {', '.join(INDEX_FIELDS)}")
        both = sorted(set(self.train) & set(self.test or ()))
        if both:
            raise ValueError(f"protocol: clips of {self.field} {both} would both train and test")

    def masks(self, index: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Which clips of an index train and which test: bool [clips] each."""
        inside = np.ones(len(index["label"]), bool) if self.num_classes is None else index["label"] < self.num_classes
        train = np.isin(index[self.field], self.train)
        test = ~train if self.test is None else np.isin(index[self.field], self.test)
        return inside & train, inside & test


# What a joint may consist of: two or three coordinates, then a pose estimator's confidence, which is none.
CONFIDENCE = "confidence"
CHANNELS = (("x", "y", "z"), ("x", "y"), ("x", "y", CONFIDENCE), ("x", "y", "z", CONFIDENCE))


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What a records folder holds; stored in `info.json` and in the metadata of every TFDS dataset beside it.

    Raises: ValueError where layout or channels are none that this program knows.
    """

    dataset: str  # its name; key of PROTOCOLS, unless it brings its own
    layout: str | Layout  # key of mmcl_jax.data.layouts.LAYOUTS, or a layout of its own
    units: str  # of the coordinates
    class_names: tuple[str, ...]  # by label
    image_source: str | None  # what the mosaics were made from ('rgb', 'depth', 'drawn'); None: no images
    preprocessing: str  # one line: what was done to the raw data
    channels: tuple[str, ...] = CHANNELS[0]  # of a joint, one of CHANNELS
    protocols: dict[str, Protocol] = dataclasses.field(default_factory=dict)  # the dataset's own, by name

    def __post_init__(self):
        if isinstance(self.layout, str) and self.layout not in LAYOUTS:
            raise ValueError(f"layout {self.layout!r} is not one of {', '.join(LAYOUTS)}, and not a Layout")
        if self.channels not in CHANNELS:
            known = ", ".join(str(channels) for channels in CHANNELS)
            raise ValueError(f"channels {self.channels!r} are not one of {known}")

    @property
    def skeleton_layout(self) -> Layout:
        """The layout, its own or the one that is called so."""
        return LAYOUTS[self.layout] if isinstance(self.layout, str) else self.layout

    @property
    def num_coordinates(self) -> int:
        """How many of a joint's channels are coordinates; they come first."""
        return len(self.channels) - self.channels.count(CONFIDENCE)

    @property
    def joint_shape(self) -> tuple[int, int]:
        """(V, C) of every clip."""
        return self.skeleton_layout.num_joints, len(self.channels)

    def to_json(self) -> dict:
        """What `from_json` reads; lists for tuples."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, stored: dict) -> "DatasetInfo":
        """Reads `to_json`'s dict. Raises: KeyError, TypeError, ValueError."""
        stored = {**stored, "class_names": tuple(stored["class_names"])}
        if isinstance(stored["layout"], dict):
            own = dict(stored["layout"])
            pairs = {name: tuple(map(tuple, own.pop(name, ()))) for name in ("bones", "links")}
            stored["layout"] = Layout(joints=tuple(own.pop("joints")), **pairs, **own)
        if "channels" in stored:  # records of an earlier program have neither this nor protocols
            stored["channels"] = tuple(stored["channels"])
        protocols = stored.get("protocols", {}).items()
        stored["protocols"] = {name: _protocol(own) for name, own in protocols}
        return cls(**stored)


def _protocol(stored: dict) -> Protocol:
    """A protocol from its JSON, in which tuples are lists."""
    return Protocol(**{key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()})


_NTU60_SUBJECTS = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
_NTU120_SUBJECTS = (
    *_NTU60_SUBJECTS,
    *(45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94),
    *(95, 97, 98, 100, 103),
)

PROTOCOLS: dict[str, dict[str, Protocol]] = {
    "ntu": {  # the first 60 classes are NTU RGB+D 60: setups 1 to 17, in which the others do not occur
        "ntu60_xsub": Protocol("subject", _NTU60_SUBJECTS, num_classes=60),
        "ntu60_xview": Protocol("camera", (2, 3), num_classes=60),
        "ntu120_xsub": Protocol("subject", _NTU120_SUBJECTS),
        "ntu120_xset": Protocol("setup", tuple(range(2, 33, 2))),
    },
    "synthetic": {"xsub": Protocol("subject", (1, 2, 3, 5, 6, 8, 9))},
    "nw_ucla": {"xview": Protocol("camera", (1, 2))},
    "utd_mhad": {"xsub": Protocol("subject", (1, 3, 5, 7))},
}


class Records:
    """Random access to one records folder. Reads are lazy and thread-safe; pickling stores the path alone.

    Attributes: `info` (DatasetInfo); `index`, name -> array with one entry per clip (`name` is str, the rest int64), in
    the row order of the skeletons; `max_frames`, `max_bodies`, `num_joints`, `num_channels`; `has_images`; `text_sets`.
    """

    def __init__(self, root):
        """Opens the folder `root`.

        Raises: RecordsError, naming file, value and remedy, where the folder is missing, is no records folder, is of
        another records version, its index is corrupt, its skeletons are missing, or the two disagree in length.
        """
        self.root = pathlib.Path(root)
        stored = _read_info(self.root)
        self.info = DatasetInfo.from_json(stored["info"])
        self.num_joints, self.num_channels = self.info.joint_shape
        self.index = _read_index(self.root / "index.npz")
        self.max_frames = int(self.index["num_frames"].max())
        self.max_bodies = int(self.index["num_bodies"].max())
        self.has_images = (self.root / IMAGES).is_dir()
        self.text_sets = _text_sets(self.root)
        self._lock = threading.Lock()
        self._joined: dict[str, _NamedDataset] = {}
        self._skeletons = _NamedDataset(self.root / SKELETONS, self.index["name"], decoded=("name", "skeleton"))

    def __reduce__(self):
        return Records, (self.root,)

    def __len__(self) -> int:
        return len(self.index["name"])

    def fingerprint(self) -> str:
        """A digest of the clips' names, labels and lengths, in order: other clips, another fingerprint.

        A layout of the records' own, or other channels than x, y, z, are part of it. (Where there are none it is as it
        was before records could have them, so that earlier runs resume.)
        """
        digest = hashlib.sha256()
        for field in ("name", "label", "subject", "camera", "num_frames"):
            digest.update("\n".join(map(str, self.index[field].tolist())).encode())
        if not isinstance(self.info.layout, str) or self.info.channels != CHANNELS[0]:
            digest.update(repr((self.info.skeleton_layout, self.info.channels)).encode())
        return digest.hexdigest()[:16]

    @property
    def protocols(self) -> dict[str, Protocol]:
        """The protocols that `protocol` knows, by name."""
        return {**PROTOCOLS.get(self.info.dataset, {}), **self.info.protocols}

    def protocol(self, name: str) -> Protocol:
        """The protocol `name` of this dataset. Raises: RecordsError listing those that there are."""
        known = self.protocols
        if name not in known:
            raise RecordsError(
                f"{self.root}: protocol {name!r} is not one of {sorted(known)} (dataset {self.info.dataset!r})"
            )
        return known[name]

    def class_names(self, protocol: str) -> tuple[str, ...]:
        """Names of the classes that a protocol tells apart, by label. Raises: RecordsError for an unknown protocol."""
        return self.info.class_names[: self.protocol(protocol).num_classes]

    def select(self, protocol: str, part: str, validation_subjects=()) -> np.ndarray:
        """Rows (int64) of one part of a protocol, in index order.

        Args:
          protocol: key of `info.protocols` or `PROTOCOLS[info.dataset]`.
          part: 'train', 'validation' or 'test'.
          validation_subjects: training subjects whose training clips are validation instead (empty: no such part).

        Raises: RecordsError for an unknown protocol or part, for a validation subject that is none of the training
        subjects, and for an empty training or test part.
        """
        division = self.protocol(protocol)
        train, test = division.masks(self.index)
        subjects = set(self.index["subject"][train].tolist())
        strangers = sorted(set(validation_subjects) - subjects)
        if strangers:
            raise RecordsError(
                f"{self.root}: validation subjects {strangers} are not among the training subjects {sorted(subjects)} "
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
        """The skeleton of clip `row`: float32 [M, T, V, C], M the bodies that are there, T its own length."""
        clip = self._skeletons.read(int(row))["skeleton"]
        return np.ascontiguousarray(clip.transpose(1, 0, 2, 3))

    def image(self, row: int, size: int) -> np.ndarray:
        """The mosaic of clip `row`: uint8 RGB [H, W, 3], the shorter side resized to `size` (bilinear, antialiased).

        Raises: RecordsError naming the clips that have no image where this one has none, or where its JPEG is broken.
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
        """The JPEG file of clip `row`'s mosaic, as it was stored. Raises: RecordsError where this clip has none."""
        return self._dataset(IMAGES).read(self._joined_row(row, IMAGES))["image"]

    def text(self, row: int, text_set: str) -> np.ndarray:
        """The text feature of clip `row`: float32 [D].

        Raises: RecordsError for an unknown set, or naming the clips that have no such feature where this one has none.
        """
        joined = self._joined_row(row, text_set)
        return self._dataset(text_set).read(joined)["feature"]

    def answer(self, row: int, text_set: str) -> str | None:
        """What the model said of clip `row`; None where the set keeps no answers. Raises: RecordsError, as `text`."""
        joined = self._joined_row(row, text_set)
        stored = self._dataset(text_set).read(joined).get("answer")
        return None if stored is None else stored.decode()

    def text_width(self, text_set: str) -> int:
        """D, the width of a text set's features. Raises: RecordsError for an unknown set."""
        return self._dataset(text_set).features["feature"].shape[0]

    def clips_without(self, rows, kind: str) -> list[str]:
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
                    f"{folder}: missing; these records have no images. Prepare with images, or run without"
                )
        elif kind in self.text_sets:
            folder = self.root / TEXT / kind
        else:
            raise RecordsError(f"{self.root / TEXT}: no text set {kind!r}; there are {list(self.text_sets) or 'none'}")
        return _NamedDataset(folder, _read_names(folder / "names.npy"))


class _NamedDataset:
    """One TFDS dataset with the clip name of each of its rows."""

    def __init__(self, folder: pathlib.Path, names: np.ndarray, decoded: tuple[str, ...] | None = None):
        """Opens `folder`; `read` decodes the features `decoded` (None: all).

        Raises: RecordsError where it is missing, unreadable or not as long as `names`.
        """
        import tensorflow_datasets as tfds

        if not (folder / "dataset_info.json").is_file():
            raise RecordsError(f"{folder}: missing; expected a dataset of {len(names)} clips here. Prepare again")
        self.folder = folder
        self.names = names
        self.rows = {name: row for row, name in enumerate(names.tolist())}
        try:
            builder = tfds.builder_from_directory(folder)
            self.features = builder.info.features
            # Not tfds.decode.PartialDecoding, which needs TensorFlow.
            self._decoded = tfds.features.FeaturesDict({name: self.features[name] for name in decoded or self.features})
            self._decoders = {"image": tfds.decode.SkipDecoding()} if "image" in self.features else None
            self._source = builder.as_data_source(SPLIT, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
            counted = count_rows(folder)
        except (
            Exception
        ) as error:  # TFDS and ArrayRecord raise anything from KeyError to RuntimeError on a damaged file
            raise RecordsError(f"{folder}: cannot be opened ({error}); prepare again") from error
        if counted != len(names) or len(self._source) != len(names):
            raise RecordsError(f"{folder}: {counted} rows, but the index has {len(names)} clips; prepare again")

    def read(self, row: int) -> dict:
        """The example in `row`. Raises: RecordsError where it is damaged or belongs to another clip."""
        name = str(self.names[row])
        try:
            example = self._decoded.deserialize_example_np(self._source[row], decoders=self._decoders)
        except Exception as error:  # as above
            raise RecordsError(
                f"{self.folder}: row {row} (clip {name}) cannot be read ({error}); prepare again"
            ) from error
        stored = example["name"].decode()
        if stored != name:
            raise RecordsError(f"{self.folder}: row {row} holds clip {stored}, the index says {name}; prepare again")
        return example


def count_rows(folder: pathlib.Path) -> int:
    """Rows that the ArrayRecord files of the TFDS dataset in `folder` really hold."""
    from array_record.python import array_record_module

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
        stored = json.loads(path.read_text())
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


def _read_index(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Contents of `index.npz`, checked."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            index = {field: stored[field] for field in ("name", *INDEX_FIELDS) if field != "fold" or field in stored}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RecordsError(f"{path}: missing or corrupt ({error!r}); prepare again") from error
    index.setdefault("fold", np.zeros(len(index["name"]), np.int64))  # records of an earlier program have none
    lengths = {field: len(values) for field, values in index.items()}
    if len(set(lengths.values())) != 1 or not lengths["name"]:
        raise RecordsError(f"{path}: corrupt, columns of lengths {lengths}; prepare again")
    return index


def _read_names(path: pathlib.Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RecordsError(f"{path}: missing or corrupt ({error!r}); prepare again") from error


def _text_sets(root: pathlib.Path) -> tuple[str, ...]:
    """Names '<model>/<question>/<feature>' of the text datasets beneath `root`."""
    found = (root / TEXT).glob("*/*/*/dataset_info.json")
    return tuple(sorted(path.parent.relative_to(root / TEXT).as_posix() for path in found))


def _shorten(names: list[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
