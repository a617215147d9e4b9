"""Locks and scratch folders as a killed process leaves them."""

import pathlib
import subprocess
import sys

from mmcl_jax.runtime import scratch

_TAKE_AND_DIE = """
import os, pathlib, sys
from mmcl_jax.runtime.locks import exclusive
with exclusive(pathlib.Path(sys.argv[1]), what="testing", remedy="run again"):
    os._exit(1)
"""


def leave_lock(path: pathlib.Path) -> None:
    """Leaves the lock `path` of a process that is dead."""
    ended = subprocess.run([sys.executable, "-c", _TAKE_AND_DIE, str(path)], check=False)
    assert ended.returncode == 1 and path.is_file()


def leave_behind(folder: pathlib.Path, *beneath: str) -> None:
    """Leaves the scratch folder `folder` of a process that is dead, with the folders `beneath` it."""
    folder.mkdir()
    leave_lock(folder / scratch.MARK)
    for name in beneath:
        (folder / name).mkdir()
