"""Files: written whole or not at all, read with one kind of error for every kind of damage; a full disk, odd names."""

import contextlib
import errno
import json
import os
import pathlib
import stat
import uuid
from collections.abc import Iterator
from typing import Any

from mmcl_jax.runtime.errors import PreparationError

_DEEPEST = 100  # lists and objects within each other


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path; what the body writes there becomes `path` when it ends.

    A reader sees the old file or the new one, never a part, even if the process is killed. If the body raises, `path`
    stays as it was. Several processes may write the same file.
    """
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_whole(path: pathlib.Path, contents: bytes | str) -> None:
    """Writes bytes, or text as UTF-8, whole or not at all (see `whole_file`). Creates the folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        unfinished.write_bytes(contents.encode() if isinstance(contents, str) else contents)


def check_regular(path: pathlib.Path) -> None:
    """Raises ValueError for a pipe or a device, which could be read forever; OSError where there is nothing."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")


def read_text(path: pathlib.Path) -> str:
    """The contents of a UTF-8 file, without a byte order mark. Raises: OSError; ValueError if it is no text."""
    check_regular(path)
    return path.read_text(encoding="utf-8-sig")


def read_json(path: pathlib.Path) -> Any:
    """The contents of a JSON file, whatever they are. Raises: OSError; ValueError for every kind of damage."""
    text = read_text(path)
    if text.startswith("version https://git-lfs"):
        raise ValueError("a pointer of git-lfs, not the file; fetch it with git lfs pull")
    return parse_json(text)


def parse_json(text: str) -> Any:
    """What a JSON text holds. Raises: ValueError for every kind of damage."""
    try:
        contents = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    level, depth = [contents], 0
    while level:
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
        depth += 1
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
    return contents


def make_folder(folder: pathlib.Path) -> None:
    """Creates `folder` and its parents if necessary. Raises: PreparationError if that is not permitted."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise PreparationError(f"{folder}: cannot be created ({error}); choose another --out") from error


def user_cache(name: str) -> pathlib.Path:
    """The folder `name` of this program in the user's cache folder (XDG_CACHE_HOME, or ~/.cache)."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (pathlib.Path(cache) if cache else pathlib.Path.home() / ".cache") / "mmcl_jax" / name


def printable(text: str) -> str:
    """`text` with what is not Unicode (in names of files that are not UTF-8) as escapes, so that it can be stored."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@contextlib.contextmanager
def clear_disk_errors(folder: pathlib.Path):
    """Turns a failed write beneath `folder` into a PreparationError that says what to do."""
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise PreparationError(
            f"{folder}: the disk is full ({error}). Free some space or choose an --out on another disk, and run again; "
            "existing records are untouched, the incomplete ones are removed"
        ) from error


def is_disk_full(error: BaseException) -> bool:
    """Whether `error`, raised by Python or by ArrayRecord (which has only a message), says that no space is left."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(error)
