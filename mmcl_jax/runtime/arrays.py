"""Reads arrays from `.npz` and `.npy` files of any origin: no code is run, and every kind of damage is one error."""

import pathlib
import zipfile
from collections.abc import Collection

import numpy as np

from mmcl_jax.runtime.files import check_regular

LARGEST = 1 << 31  # bytes; a few compressed bytes may declare any number


def read_arrays(
    path: pathlib.Path, names: Collection[str] | None = None, largest: int | None = None
) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file.

    Args:
      path: the file.
      names: the arrays to read, those that are missing left out; None: all.
      largest: bytes that the arrays may take; None: LARGEST.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is damaged, declares more than `largest`, or holds anything but arrays of numbers and text.
    """
    check_regular(path)
    largest = LARGEST if largest is None else largest
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
        if declared > largest:
            raise ValueError(f"{declared:,} bytes declared")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in (stored.files if names is None else names) if name in stored}
    except Exception as error:  # numpy and zipfile raise anything from KeyError to NotImplementedError
        raise _damaged(error) from error
    for name, value in arrays.items():
        if not isinstance(value, np.ndarray):
            raise ValueError(f"its member {name!r} is no array")
    return arrays


def read_array(path: pathlib.Path) -> np.ndarray:
    """The array of an `.npy` file. Raises: OSError; ValueError, as `read_arrays`."""
    check_regular(path)
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # as above
        raise _damaged(error) from error
    if not isinstance(array, np.ndarray):
        raise ValueError("an archive, not a single array")
    return array


def _damaged(error: Exception) -> Exception:
    if isinstance(error, OSError) and error.filename is not None:
        return error
    return error if type(error) is ValueError else ValueError(f"{type(error).__name__}: {error}")
