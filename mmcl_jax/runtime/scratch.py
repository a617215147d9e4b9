"""Scratch folders beside an output: each has a name of its own and a mark, so that no user's folder is ever touched."""

import contextlib
import pathlib
import re
import shutil
import uuid
from collections.abc import Callable, Iterator

from mmcl_jax.runtime.files import make_folder
from mmcl_jax.runtime.locks import LockedError, exclusive

MARK = ".mmcl_jax_scratch"  # the lock of the process that works in the folder
_OWN_NAME = re.compile(r"-[0-9a-f]{8}")


@contextlib.contextmanager
def scratch_folder(prefix: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a new folder, named `prefix`, a hyphen and eight digits, which is removed afterwards.

    Folders of the same prefix that killed processes left behind are removed first. Folders without the mark of this
    program, links and the folders of running processes stay as they are.

    Raises: PreparationError if it cannot be created.
    """
    remove_leftovers(prefix)
    folder = prefix.with_name(f"{prefix.name}-{uuid.uuid4().hex[:8]}")
    make_folder(folder)
    try:
        with exclusive(folder / MARK, what=f"working in {folder}", remedy="run again"):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(prefix: pathlib.Path, rescue: Callable[[pathlib.Path], None] | None = None) -> None:
    """Removes the scratch folders of `prefix` that killed processes of this host left behind.

    Args:
      prefix: as for `scratch_folder`.
      rescue: called with each such folder before it is removed.
    """
    for folder in leftovers(prefix):
        lock = exclusive(folder / MARK, what=f"removing {folder}", remedy="leave it")
        with contextlib.suppress(LockedError), lock:  # its process is at work, or on another host
            if rescue is not None:
                rescue(folder)
            shutil.rmtree(folder, ignore_errors=True)


def leftovers(prefix: pathlib.Path) -> list[pathlib.Path]:
    """The folders of `prefix` that carry the mark of this program, those of running processes included."""
    if not prefix.parent.is_dir():
        return []
    found = [path for path in prefix.parent.iterdir() if path.name.startswith(prefix.name)]
    found = [path for path in found if _OWN_NAME.fullmatch(path.name[len(prefix.name) :])]
    return sorted(path for path in found if not path.is_symlink() and _is_file(path / MARK))


def _is_file(path: pathlib.Path) -> bool:
    try:
        return path.is_file() and not path.is_symlink()
    except OSError:  # a folder that may not be entered is not ours
        return False
