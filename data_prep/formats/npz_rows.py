"""Reads the arrays of an `.npz` row by row, because an array of a whole dataset may not fit into memory.

`numpy.load` cannot map an array inside an archive into memory. Here the member of the archive is read as a stream,
compressed or not. First the headers are checked against the archive's directory, so that a damaged file is refused
before it takes memory. Arrays of objects, which are pickles, are never loaded.
"""

import contextlib
import dataclasses
import math
import pathlib
import zipfile
from collections.abc import Iterator

import numpy as np

from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.runtime.files import is_disk_full

_CHUNK_BYTES = 1 << 24
_LARGEST_ROW = 1 << 25  # bytes
_SUFFIX = ".npy"


@dataclasses.dataclass(frozen=True)
class Member:
    """An array in the archive `path`; it is not loaded, `rows` reads it."""

    path: pathlib.Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    header_bytes: int

    def rows(self) -> Iterator[np.ndarray]:
        """Yields the rows [*shape[1:]] in order. Raises: PreparationError if the archive turns out to be damaged."""
        with (
            _clear_errors(self.path, self.name),
            zipfile.ZipFile(self.path) as archive,
            archive.open(self.name + _SUFFIX) as stream,
        ):
            yield from self._read(stream)

    def _read(self, stream) -> Iterator[np.ndarray]:
        stream.read(self.header_bytes)
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        chunk = max(1, _CHUNK_BYTES // max(1, row_bytes))
        for first in range(0, self.shape[0], chunk):
            length = min(chunk, self.shape[0] - first)
            contents = stream.read(length * row_bytes)
            if len(contents) != length * row_bytes:
                raise EOFError(f"it ends in row {first + len(contents) // row_bytes} of {self.shape[0]}")
            yield from np.frombuffer(contents, self.dtype).reshape(length, *self.shape[1:])


def members(path: pathlib.Path) -> dict[str, Member]:
    """The arrays of the archive `path`, by name. Raises: PreparationError if it is no valid `.npz`."""
    if not path.is_file():
        raise PreparationError(f"{path}: no such file; give the .npz file")
    with _clear_errors(path, ""), zipfile.ZipFile(path) as archive:
        found = [entry for entry in archive.infolist() if entry.filename.endswith(_SUFFIX)]
        return {entry.filename.removesuffix(_SUFFIX): _read_header(path, archive, entry) for entry in found}


def _read_header(path: pathlib.Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Member:
    """Reads the header of a member. Raises: PreparationError if the member cannot be read row by row."""
    name = entry.filename.removesuffix(_SUFFIX)
    with _clear_errors(path, name), archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"array format {version}, expected 1.0 or 2.0")
        shape, fortran_order, dtype = readers[version](stream)
        header_bytes = stream.tell()
    if dtype.hasobject:
        raise PreparationError(
            f"{path}: {name} is an array of objects, stored as a pickle, which can run code, so it is not "
            "loaded; save it as numbers"
        )
    if fortran_order and len(shape) > 1:
        raise PreparationError(f"{path}: {name} is stored in column order; save numpy.ascontiguousarray(array) instead")
    expected = header_bytes + math.prod(shape) * dtype.itemsize
    if entry.file_size != expected:
        raise PreparationError(
            f"{path}: {name} of shape {shape} should take {expected} bytes, but takes {entry.file_size}; the file is "
            "truncated or damaged; download or create it again"
        )
    if math.prod(shape[1:]) * dtype.itemsize > _LARGEST_ROW:
        raise PreparationError(
            f"{path}: {name} has rows of shape {shape[1:]}, more than {_LARGEST_ROW:,} bytes each; "
            "is it the right file?"
        )
    return Member(path, name, shape, dtype, header_bytes)


@contextlib.contextmanager
def _clear_errors(path: pathlib.Path, name: str):
    """Turns what zipfile and numpy raise for a damaged archive into a PreparationError that names the file."""
    try:
        yield
    except PreparationError:
        raise
    except Exception as error:  # numpy and zipfile raise anything from SyntaxError to struct.error
        if is_disk_full(error):
            raise
        place = f"{path}: {name}" if name else f"{path}"
        raise PreparationError(
            f"{place}: not a valid .npz, or truncated or damaged ({error}); download or create it again"
        ) from error
