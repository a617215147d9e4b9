"""The schema of records, which reading and writing share: folders, datasets and protocols.

ROOT/info.json       DatasetInfo, records version, numbers of joints and channels
ROOT/index.npz       one row per clip: name, label, subject, camera, setup, replication, fold, and its size
ROOT/skeletons/      TFDS dataset (ArrayRecord), rows in index order: float32 (T, M, V, C), real bodies only
ROOT/images/         TFDS dataset of JPEG mosaics, with its own names.npy (row -> clip name)
ROOT/text/<model>/<question>/<feature>/   TFDS dataset of float32 (D,) vectors, with its own names.npy; those of a
                     model also the answer of each clip and about.json: model, question, width
"""

import dataclasses
import json
import math
from typing import Any

import numpy as np

from mmcl_jax.data.layouts import LAYOUTS, Layout
from mmcl_jax.runtime.errors import MMCLError

RECORDS_VERSION = "1.0.0"
SPLIT = "clips"  # the one split of every dataset; train and test are filters on the index ('all' is reserved by TFDS)
INDEX_FIELDS = ("label", "subject", "camera", "setup", "replication", "fold", "num_bodies", "num_frames")
IMAGES = "images"
SKELETONS = "skeletons"
TEXT = "text"
COORDINATES_DIGEST = "skeletons_sha256"  # key of info.json: SHA-256 of all clips' values, in order


class RecordsError(MMCLError, ValueError):
    """A records folder, a description of one or a query that cannot be used. Names the file, value and remedy."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A train/test division: clips whose index field `field` is one of `train` train the model, all others test it.

    With `test`, only clips whose field is one of those test it, and the others are not used. With `num_classes`, only
    the clips of the first `num_classes` classes are used, and the model knows no others.

    Raises: RecordsError if the field is unknown, or clips would both train and test.
    """

    field: str
    train: tuple[int, ...]
    num_classes: int | None = None
    test: tuple[int, ...] | None = None

    def __post_init__(self):
        if self.field not in INDEX_FIELDS:
            raise RecordsError(f"protocol: field {self.field!r} is not one of {', '.join(INDEX_FIELDS)}")
        both = sorted(set(self.train) & set(self.test or ()))
        if both:
            raise RecordsError(f"protocol: clips of {self.field} {both} would both train and test")

    def masks(self, index: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Which clips of an index train and which test: bool [clips] each."""
        inside = np.ones(len(index["label"]), bool) if self.num_classes is None else index["label"] < self.num_classes
        train = np.isin(index[self.field], self.train)
        test = ~train if self.test is None else np.isin(index[self.field], self.test)
        return inside & train, inside & test


# The channels of a joint: two or three coordinates, and perhaps a pose estimator's confidence.
CONFIDENCE = "confidence"
CHANNELS = (("x", "y", "z"), ("x", "y"), ("x", "y", CONFIDENCE), ("x", "y", "z", CONFIDENCE))


def name_fault(name: Any) -> str | None:
    """Why a clip or a class cannot have this name, or None."""
    if not isinstance(name, str):
        return f"a name that is no text but {type(name).__name__}"
    if not name:
        return "a clip without a name"
    if "\0" in name:
        return "a NUL character in its name"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "a name that is not UTF-8; rename it"
    return None


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What a records folder holds; stored in `info.json` and in the metadata of each of its TFDS datasets.

    Raises: RecordsError if the layout, the channels or the frame rate is invalid, or the class names are not a list of
    texts.
    """

    dataset: str  # its name; key of PROTOCOLS, unless the records bring their own
    layout: str | Layout  # key of mmcl_jax.data.layouts.LAYOUTS, or a layout of its own
    units: str  # of the coordinates
    class_names: tuple[str, ...]  # by label
    image_source: str | None = None  # what the mosaics were made from ('rgb', 'depth', 'drawn'); None: no images
    preprocessing: str = "none"  # one line: what was done to the raw data
    channels: tuple[str, ...] = CHANNELS[0]  # of a joint, one of CHANNELS
    protocols: dict[str, Protocol] = dataclasses.field(default_factory=dict)  # the dataset's own, by name
    frame_rate: float = 0.0  # frames a second of the clips, or of most of them; 0: unknown

    def __post_init__(self):
        if isinstance(self.layout, str) and self.layout not in LAYOUTS:
            raise RecordsError(f"layout {self.layout!r} is not one of {', '.join(LAYOUTS)}, and not a Layout")
        if self.channels not in CHANNELS:
            known = ", ".join(str(channels) for channels in CHANNELS)
            raise RecordsError(f"channels {self.channels!r} are not one of {known}")
        if not isinstance(self.frame_rate, int | float) or not 0 <= self.frame_rate < math.inf:
            raise RecordsError(f"frame rate {str(self.frame_rate)[:40]!r} is not a number of frames a second")
        if not self.class_names or any(name_fault(name) for name in self.class_names):
            odd = next((name for name in self.class_names if name_fault(name)), "none")
            raise RecordsError(f"class names: {str(odd)[:40]!r}, expected one text of Unicode for each class")

    @property
    def skeleton_layout(self) -> Layout:
        """The layout, its own or the known one of that name."""
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
        """The dict that `from_json` reads, with lists for tuples; with no frame rate, as earlier versions wrote it."""
        stored = json.loads(json.dumps(dataclasses.asdict(self)))
        return stored if self.frame_rate else {key: value for key, value in stored.items() if key != "frame_rate"}

    @classmethod
    def from_json(cls, stored: dict) -> "DatasetInfo":
        """Reads the dict of `to_json`. Raises: KeyError, TypeError, RecordsError, LayoutError."""
        stored = {**stored, "class_names": tuple(stored["class_names"])}
        if isinstance(stored["layout"], dict):
            own = dict(stored["layout"])
            pairs = {name: tuple(map(tuple, own.pop(name, ()))) for name in ("bones", "links")}
            stored["layout"] = Layout(joints=tuple(own.pop("joints")), **pairs, **own)
        if "channels" in stored:  # records of an earlier version have neither this nor protocols
            stored["channels"] = tuple(stored["channels"])
        protocols = stored.get("protocols", {}).items()
        stored["protocols"] = {name: _protocol(own) for name, own in protocols}
        return cls(**stored)


def _protocol(stored: dict[str, Any]) -> Protocol:
    """A protocol from its JSON, in which tuples are lists."""
    fields: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in stored.items()}
    return Protocol(**fields)
