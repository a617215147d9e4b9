"""One process at a time: a lock file names its holder, on this or another host, and ends with a process of this one.

A lock of the operating system would end with its process, but network disks keep it unreliably or not at all. A file
that is created whole or not at all works on all of them.
"""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
import stat
import subprocess
import uuid
from collections.abc import Iterator

from absl import logging

from mmcl_jax.runtime.errors import MMCLError

_held: dict[pathlib.Path, str] = {}  # lock files of this process, with what they contain
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
_LONGEST = 10_000  # bytes; no holder is described by more


class LockedError(MMCLError, RuntimeError):
    """Another process is at work, or may be. Names the lock file, the holder and the remedy."""


@dataclasses.dataclass(frozen=True)
class _Holder:
    """Who holds a lock.

    Attributes:
      host: name of the machine.
      namespace: of the process numbers: containers of one host count their processes separately.
      pid: number of the process.
      started: when that process started, as `_started` tells it; numbers are used again.
      since: when the lock was taken, for people.
      mark: differs between any two locks.
    """

    host: str
    namespace: str
    pid: int
    started: str
    since: str
    mark: str

    @classmethod
    def here(cls) -> "_Holder":
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        pid = os.getpid()
        return cls(socket.gethostname(), _namespace(), pid, _started(pid) or "", now, uuid.uuid4().hex)

    @classmethod
    def of(cls, contents: str) -> "_Holder":
        """The holder that a lock file describes. Raises: ValueError."""
        try:
            stored = json.loads(contents)
            holder = cls(**stored)
            kinds = {field.name: field.type for field in dataclasses.fields(cls)}
            if not all(type(getattr(holder, name)) is kind for name, kind in kinds.items()):
                raise ValueError(f"fields of other types: {stored}")
        except (TypeError, RecursionError) as error:
            raise ValueError(f"not a lock: {error}") from error
        return holder

    def is_of_this_host(self) -> bool:
        return (self.host, self.namespace) == (socket.gethostname(), _namespace())

    def is_dead(self) -> bool:
        """Whether it is a process of this host that has ended."""
        return self.is_of_this_host() and _started(self.pid) != self.started


@contextlib.contextmanager
def exclusive(path: pathlib.Path, *, what: str, remedy: str) -> Iterator[None]:
    """Runs its body while no other process, on any host that shares the disk, is in the body of the same lock.

    The lock is a file that exists as long as the body runs. One that a dead process of this host left behind is taken
    over; the log says so. Missing folders above it are created; the innermost is removed again if it stays empty.

    Args:
      path: of the lock file.
      what: the work, for the message: 'training in DIR'.
      remedy: what else a user can do than wait: 'use another --workdir'.

    Raises:
      LockedError: another process holds the lock, or may hold it.
      OSError: the file cannot be created.
    """
    path = pathlib.Path(path).absolute()
    is_new_folder = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    contents = json.dumps(dataclasses.asdict(_Holder.here())) + "\n"
    try:
        _take(path, contents, what, remedy)
        _held[path] = contents
        try:
            yield
        finally:
            _release(path)
    finally:
        if is_new_folder:
            with contextlib.suppress(OSError):  # no longer empty
                path.parent.rmdir()


def release_all() -> None:
    """Gives up every lock of this process, for one that ends without leaving the bodies."""
    for path in list(_held):
        with contextlib.suppress(OSError):
            _release(path)


def _take(path: pathlib.Path, contents: str, what: str, remedy: str) -> None:
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        unfinished.write_text(contents)
        while not _create(path, unfinished, contents):
            with _opened(path) as existing:
                if existing is not None:
                    _take_over(path, _Holder.of(existing), unfinished, what, remedy)
                    return
    except ValueError as error:
        raise LockedError(
            f"{path}: {what}: this lock exists but names no process ({error}). If no other process is at work, remove "
            f"it; otherwise wait, or {remedy}"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _create(path: pathlib.Path, unfinished: pathlib.Path, contents: str) -> bool:
    """Creates the lock file with its contents; returns whether there was none."""
    try:
        os.link(unfinished, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            with path.open("x") as file:
                file.write(contents)
        except FileExistsError:
            return False
    return True


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[str | None]:
    """The contents of a lock file, which no other process of this host replaces or removes meanwhile; None: it is gone.

    Raises: ValueError where it cannot be read or is no file.
    """
    options = os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            descriptor = os.open(path, os.O_RDWR | options)  # network disks lock only what may be written
        except PermissionError:
            descriptor = os.open(path, os.O_RDONLY | options)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise ValueError(error.strerror) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        with contextlib.suppress(OSError):  # some disks have no such locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            is_same = os.path.samestat(os.fstat(descriptor), os.stat(path))
        except FileNotFoundError:
            is_same = False
        yield os.read(descriptor, _LONGEST).decode(errors="replace") if is_same else None
    finally:
        os.close(descriptor)


def _take_over(path: pathlib.Path, holder: _Holder, unfinished: pathlib.Path, what: str, remedy: str) -> None:
    """Replaces the lock of a dead process. Raises: LockedError for any other."""
    if holder.is_dead():
        unfinished.replace(path)
        logging.info("%s: process %d, which held this lock, has ended; it is taken over", path, holder.pid)
        return
    who = f"process {holder.pid} of {holder.host}, since {holder.since}"
    if holder.is_of_this_host():
        raise LockedError(f"{path}: {what}: another process is at work ({who}). Wait until it ends, or {remedy}")
    raise LockedError(
        f"{path}: {what}: a process of another host or container holds this lock ({who}). If it has ended, remove the "
        f"file; otherwise wait, or {remedy}"
    )


def _release(path: pathlib.Path) -> None:
    """Removes the lock file, unless it is another's by now or this process is a fork of the holder."""
    contents = _held.get(path)
    if contents is None or _Holder.of(contents).pid != os.getpid():
        return
    del _held[path]
    with contextlib.suppress(ValueError), _opened(path) as existing:
        if existing == contents:
            path.unlink()


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""  # not Linux


def _started(pid: int) -> str | None:
    """When process `pid` of this host started, in a form that only compares; None if it has ended."""
    processes = pathlib.Path("/proc")
    if (processes / "self" / "stat").exists():
        try:
            fields = (processes / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        boot = ""
        with contextlib.suppress(OSError):  # some sandboxes do not tell
            boot = (processes / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
        return None if fields[0] in "ZX" else f"{boot} {fields[19]}"
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False)
    return shown.stdout.strip() or None
