"""Unpacks ZIP archives, and finds damage in their directory, by which members would be lost without an error.

Python's `zipfile` reads as many entries as the size of the directory says and does not compare their number. It looks
at the name in front of a member only when the member is opened.
"""

import pathlib
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator

_END, _END_64 = b"PK\x05\x06", b"PK\x06\x06"
_LONGEST_COMMENT = 1 << 16
_ENCRYPTED = 1
_MANY = 0xFFFF  # the number of members is in the record for large archives


def is_zip(path: pathlib.Path) -> bool:
    """Whether a file begins as a ZIP archive does."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", _END)


def unpack(
    path: pathlib.Path, folder: pathlib.Path, is_data: Callable[[pathlib.PurePosixPath], bool], largest: int
) -> Iterator[tuple[str, str | None]]:
    """Unpacks the data files of an archive into `folder`, never outside of it.

    Args:
      path: the archive.
      folder: an empty folder.
      is_data: whether a member is a data file; others are not unpacked.
      largest: bytes; members that declare more are set aside.

    Yields: for each member, its name, and why it is set aside; None: it is not.
    Raises: zipfile.BadZipFile, ValueError, EOFError, zlib.error and others of `zipfile` where the archive is damaged;
      OSError where the disk is full.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        declared = _declared_members(path)
        if len(members) != declared:
            raise zipfile.BadZipFile(f"{len(members)} members in its directory, of {declared}")
        room, needed = shutil.disk_usage(folder).free, sum(min(member.file_size, largest) for member in members)
        if needed > room:
            raise zipfile.BadZipFile(f"its members take {needed:,} bytes; the disk has {room:,} left")
        for member in members:
            yield member.filename, _unpack_member(archive, member, folder, is_data, largest)


def _unpack_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: pathlib.Path, is_data: Callable, largest: int
) -> str | None:
    """Unpacks one member if it is a data file; returns why it is set aside, or None."""
    name = pathlib.PurePosixPath(member.filename)
    if member.orig_filename != member.filename:
        return "a NUL character, or another odd one, in its name"
    if member.flag_bits & _ENCRYPTED:
        return "encrypted; unpack the archive with its password and give the folder"
    with archive.open(member) as stream:  # compares the name with the one in front of the member
        if name.is_absolute() or ".." in name.parts or not name.parts:
            return "leads outside the archive"
        if member.is_dir() or not is_data(name):
            return None
        if stat.S_ISLNK(member.external_attr >> 16):
            return "a link, not a file"
        if member.file_size > largest:
            return f"{member.file_size:,} bytes, more than {largest:,}; not a file of this dataset"
        target = folder / name
        try:
            if target.exists():
                return "duplicate: an earlier member has this name"
            target.parent.mkdir(parents=True, exist_ok=True)
            file = target.open("wb")
        except OSError as error:  # a name that no file can have
            return f"cannot be unpacked ({error.strerror})"
        with file:
            shutil.copyfileobj(stream, file)
        return None


def _declared_members(path: pathlib.Path) -> int:
    """How many members the end of the archive says it has. Raises: BadZipFile."""
    with path.open("rb") as file:
        length = file.seek(0, 2)
        file.seek(max(0, length - _LONGEST_COMMENT - 200))
        tail = file.read()
    place = tail.rfind(_END)
    if place < 0 or len(tail) < place + 22:
        raise zipfile.BadZipFile("it has no end")
    (count,) = struct.unpack_from("<H", tail, place + 10)
    large = tail.rfind(_END_64, 0, place)
    if count == _MANY and large >= 0:
        (count,) = struct.unpack_from("<Q", tail, large + 32)
    return count
