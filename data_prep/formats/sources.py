"""Opens raw data as distributed: archives and folders, MATLAB files, many files read ahead."""

import collections
import concurrent.futures
import contextlib
import os
import pathlib
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from data_prep.formats import tar_stream, zip_files
from mmcl_jax.data.records import SetAside
from mmcl_jax.runtime.errors import PreparationError, SourceFileError
from mmcl_jax.runtime.files import clear_disk_errors, is_disk_full
from mmcl_jax.runtime.progress import progress_bar
from mmcl_jax.runtime.scratch import scratch_folder

LINKED_FOLDER = "a link to a folder, which is not followed; put the folder itself in its place"
_LARGEST_FILE = 1 << 31  # bytes; a few compressed bytes may declare any number


def _stem(path: pathlib.PurePath) -> str:
    return path.stem


@contextlib.contextmanager
def open_source(
    source, suffix: str, scratch, name_of: Callable[[pathlib.PurePath], str] = _stem
) -> Iterator[tuple[dict[str, pathlib.Path], list[SetAside]]]:
    """Opens a dataset: `source` is an archive (.tar, .tar.xz, .tar.gz, .zip) or a folder.

    Args:
      source: archive or folder; the files may be anywhere beneath it.
      suffix: end of the data files' names, such as '.json'. All other files, and hidden ones, are ignored and never
        opened.
      scratch: prefix of the folder into which an archive is unpacked while the context is open (see
        `mmcl_jax.runtime.scratch`).
      name_of: the name of a file, from its path beneath `source`; by default the stem of the file name.

    Yields: the files by name, sorted, and what was set aside: members that lead outside the archive, links, duplicates.
    Raises: PreparationError if `source` is missing, truncated, not an archive, or has no such files.
    """
    source, scratch = pathlib.Path(source), pathlib.Path(scratch)
    if source.is_dir():
        yield _files_beneath(source, source, suffix, name_of, [])
        return
    if not source.is_file():
        raise PreparationError(f"{source}: no such file or folder; give the archive, or the folder that it unpacks to")
    with clear_disk_errors(scratch), scratch_folder(scratch) as folder:
        unpacked = folder / "files"
        unpacked.mkdir()
        set_aside = _unpack(source, suffix, unpacked)
        yield _files_beneath(unpacked, source, suffix, name_of, set_aside)


def _unpack(archive: pathlib.Path, suffix: str, folder: pathlib.Path) -> list[SetAside]:
    """Unpacks the data files of `archive` into `folder`, never outside it; returns the members set aside.

    The archive is read to its end, so that every checksum of its compression is compared. Raises: PreparationError if
    it is damaged anywhere.
    """
    is_zip = zip_files.is_zip(archive)
    try:
        return (_unpack_zip if is_zip else _unpack_tar)(archive, suffix, folder)
    # A damaged header makes tarfile and zipfile raise anything from KeyError to NotImplementedError.
    except Exception as error:
        if is_disk_full(error) or getattr(error, "filename", None) is not None:  # a file cannot be opened or written
            raise
        kind = "" if is_zip else " or not a tar archive"
        raise PreparationError(f"{archive}: truncated, corrupt{kind} ({error}); download it again") from error


def _unpack_tar(archive: pathlib.Path, suffix: str, folder: pathlib.Path) -> list[SetAside]:
    set_aside = []
    bar = progress_bar(total=archive.stat().st_size, unit="B", unit_scale=True, desc=f"unpacking {archive.name}")
    with bar, open(archive, "rb") as file:
        stream = tar_stream.TarStream(file)
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                reason = _unpack_member(tar, member, suffix, folder)
                if reason:
                    set_aside.append(SetAside(f"{archive.name}: {member.name}", reason))
                bar.update(file.tell() - bar.n)
            stream.check_end(tar.offset)
        bar.update(bar.total - bar.n)
    return set_aside


def _unpack_zip(archive: pathlib.Path, suffix: str, folder: pathlib.Path) -> list[SetAside]:
    members = zip_files.unpack(archive, folder, lambda name: _is_data(name, suffix), _LARGEST_FILE)
    bar = progress_bar(members, unit="file", desc=f"unpacking {archive.name}")
    return [SetAside(f"{archive.name}: {name}", reason) for name, reason in bar if reason]


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str, folder: pathlib.Path) -> str | None:
    """Unpacks one member if it is a data file; returns why it was set aside, or None."""
    if "\0" in member.name:
        return "a NUL character in its name"
    try:
        tarfile.data_filter(member, str(folder))
    except tarfile.FilterError as error:
        return f"leads outside the archive or is no plain file ({error})"
    if member.isdir() or not _is_data(pathlib.PurePosixPath(member.name), suffix):
        return None
    if not member.isfile():
        return "a link or a device, not a file"
    if member.sparse is not None:
        return f"a sparse file of {member.size:,} bytes, which is not supported; pack it as a plain file"
    if member.size > _LARGEST_FILE:
        return f"{member.size:,} bytes, more than {_LARGEST_FILE:,}; not a file of this dataset"
    try:
        if (folder / member.name).exists():
            return "duplicate: an earlier member has this name"
        tar.extract(member, folder, set_attrs=False, filter="data")  # its time may be one that no file can have
    except OSError as error:
        if isinstance(error, tarfile.TarError) or is_disk_full(error):
            raise
        return f"cannot be unpacked ({error})"
    return None


def _files_beneath(folder, source, suffix: str, name_of: Callable, set_aside: list[SetAside]):
    """The data files beneath `folder` by name, sorted, and `set_aside` with the duplicates added."""
    files: dict[str, pathlib.Path] = {}
    linked = [path.relative_to(folder) for path in _linked_folders(folder)]
    set_aside += [SetAside(str(path), LINKED_FOLDER) for path in linked if _is_data(path / f"x{suffix}", suffix)]
    for path in sorted(folder.rglob(f"*{suffix}")):
        relative = path.relative_to(folder)
        if not _is_data(relative, suffix):
            continue
        if not path.is_file():
            set_aside.append(SetAside(str(relative), "a folder, a broken link or a device, not a file"))
            continue
        name = name_of(relative)
        if name in files:
            first = files[name].relative_to(folder)
            set_aside.append(SetAside(str(relative), f"duplicate: {first} has the same name and came before"))
            continue
        files[name] = path
    if not files:
        raise PreparationError(f"{source}: no *{suffix} files; give the dataset as distributed")
    return dict(sorted(files.items())), set_aside


def _linked_folders(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The links to folders beneath `folder`, sorted within each folder; `rglob` passes them over."""
    for within, names, _ in os.walk(folder):
        yield from (pathlib.Path(within, name) for name in sorted(names) if os.path.islink(os.path.join(within, name)))


def _is_data(path: pathlib.PurePath, suffix: str) -> bool:
    """Whether a path names a data file: it has the suffix, is not hidden, and was not added by macOS ('__MACOSX/x')."""
    return path.name.endswith(suffix) and not any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def read_mat(path: pathlib.Path, variable: str, dtype_kinds: str) -> np.ndarray:
    """Reads the numeric array `variable` of a MATLAB file, and nothing else.

    Args:
      path: the .mat file.
      variable: name of the variable.
      dtype_kinds: accepted kinds of numpy dtypes, such as 'fiu'.

    Raises: SourceFileError if the file is unreadable, or the variable is missing or not a plain numeric array.
    """
    import scipy.io

    if not path.stat().st_size:
        raise SourceFileError("an empty file")
    try:
        contents = scipy.io.loadmat(path, variable_names=[variable])
    except Exception as error:  # scipy raises anything from TypeError to zlib.error on a damaged file
        raise SourceFileError(f"not a readable .mat file ({error!r})") from error
    value = contents.get(variable)
    if value is None:
        raise SourceFileError(f"no variable {variable!r}")
    if not isinstance(value, np.ndarray) or value.dtype.kind not in dtype_kinds:
        raise SourceFileError(f"variable {variable!r} is not a numeric array")
    return value


def read_mat_skeleton(path: pathlib.Path, variable: str, num_joints: int) -> np.ndarray:
    """The skeleton `variable` of a MATLAB file, stored as (num_joints, 3, T): float32 (T, num_joints, 3).

    Raises: SourceFileError where it cannot be read, has another shape or has no frames.
    """
    skeleton = read_mat(path, variable, "fiu")
    if skeleton.ndim != 3 or skeleton.shape[:2] != (num_joints, 3):
        raise SourceFileError(f"{variable} of shape {skeleton.shape}, expected ({num_joints}, 3, T)")
    if not skeleton.shape[2]:
        raise SourceFileError("a clip of zero frames")
    with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, and writing the records refuses it
        return np.ascontiguousarray(skeleton.transpose(2, 0, 1), dtype=np.float32)


def read_ahead(load: Callable, items: Iterable, workers: int) -> Iterator[tuple]:
    """Yields (item, load(item)) in order; `workers` threads run `load` that many items ahead."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting: collections.deque = collections.deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(load, item)))
                if len(waiting) > workers:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def clear_memory_errors(what: str, option: str):
    """Turns PyTorch's out-of-memory error for `what` into a PreparationError that names the option to lower."""
    try:
        yield
    except RuntimeError as error:
        if not re.search("out of memory|alloc", str(error), re.IGNORECASE):
            raise
        raise PreparationError(
            f"not enough memory for {what} at a time ({str(error).splitlines()[0]}); "
            f"choose a smaller {option}. Finished clips are kept"
        ) from error


def usable_cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
