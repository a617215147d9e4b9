"""What records may hold: checked when they are written, and again when they are read."""

import numbers
from typing import Any

import numpy as np

from mmcl_jax.data.records.schema import INDEX_FIELDS, DatasetInfo

# Beyond these, a coordinate is no person's: the text that names the unit in `DatasetInfo.units` -> largest absolute
# value. The first that occurs in the units applies. Pictures have at most 30,000 pixels a side; halves of a picture are
# of joints outside of it.
BOUNDS = {"milli": 100_000.0, "centi": 10_000.0, "metre": 100.0, "meter": 100.0, "pixel": 100_000.0, "half": 100.0,
          "halves": 100.0}  # fmt: skip
OTHER_BOUND = 1e6  # of units that are not known


def largest_coordinate(units: str) -> float:
    """The largest absolute value of a coordinate in `units`."""
    return next((bound for unit, bound in BOUNDS.items() if unit in units.lower()), OTHER_BOUND)


def fields_fault(fields: dict[str, Any], info: DatasetInfo) -> str | None:
    """Why a clip cannot have these `fields` of the index ('label' and so on), or None."""
    for field, value in fields.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            return f"{field} {str(value)[:40]!r}, expected a whole number"
        if not -(2**63) <= int(value) < 2**63:
            return f"{field} beyond 64 bits"
    if not 0 <= fields["label"] < len(info.class_names):
        return f"label {fields['label']}, expected 0 to {len(info.class_names) - 1}"
    return None


def skeleton_fault(skeleton: np.ndarray, info: DatasetInfo) -> str | None:
    """Why a skeleton [T, M, V, C] cannot be used, or None."""
    if not isinstance(skeleton, np.ndarray) or skeleton.dtype.kind not in "fiu":
        return f"a skeleton of {getattr(skeleton, 'dtype', type(skeleton).__name__)}, expected an array of numbers"
    if skeleton.ndim != 4 or 0 in skeleton.shape[1:]:
        return f"skeleton of shape {skeleton.shape}, expected (frames, bodies, joints, channels)"
    if not len(skeleton):
        return "a skeleton of zero frames"
    if skeleton.shape[2:] != info.joint_shape:
        return f"joints and channels {skeleton.shape[2:]}, layout and channels of the dataset say {info.joint_shape}"
    with np.errstate(over="ignore"):
        values = skeleton.astype(np.float32, copy=False)
    finite = np.asarray(np.isfinite(values).all(axis=(1, 2, 3)))
    if not finite.all():
        return f"NaN or infinite values in {np.sum(~finite)} of {len(finite)} frames"
    coordinates = values[..., : info.num_coordinates]
    bound = largest_coordinate(info.units)
    largest = max(coordinates.max(), -coordinates.min())
    if largest > bound:
        frame, _, joint, _ = np.argwhere(np.abs(coordinates) == largest)[0].tolist()
        return (
            f"a coordinate of {largest:g} (frame {frame}, joint {joint + 1}), more than {bound:g}; units: {info.units}"
        )
    if not largest:
        return "every joint of every frame is zero"
    return None


def index_fault(index: dict[str, np.ndarray], info: DatasetInfo) -> str | None:
    """Why records cannot have this index (a column by field), or None."""
    lengths = {field: len(values) if values.ndim == 1 else values.shape for field, values in index.items()}
    if len(set(lengths.values())) != 1 or lengths["name"] in (0, ()):
        return f"columns of lengths {lengths}"
    kinds = {field: values.dtype.str for field, values in index.items()}
    if index["name"].dtype.kind != "U" or any(index[field].dtype.kind not in "iu" for field in INDEX_FIELDS):
        return f"columns of types {kinds}, expected text for the names and whole numbers for the rest"
    names, counts = np.unique(index["name"], return_counts=True)
    if counts.max() > 1 or not names[0]:
        return f"clip name {str(names[counts.argmax()] if counts.max() > 1 else '')!r} is empty or not unique"
    for field, least, most in (
        ("label", 0, len(info.class_names) - 1),
        ("num_bodies", 1, None),
        ("num_frames", 1, None),
    ):
        wrong = (index[field] < least) | (index[field] > most if most is not None else False)
        if wrong.any():
            row = int(wrong.argmax())
            expected = (
                f"{least} to {most}, one of the {most + 1} class names" if most is not None else f"at least {least}"
            )
            return f"{field} {index[field][row]} of clip {index['name'][row]}, expected {expected}"
    return None
