"""Finds a user's own videos, in folders by class or listed in a table, with the class and the person of each clip."""

import dataclasses
import hashlib
import math
import os
import pathlib
import re
from collections.abc import Iterable, Iterator

from data_prep.formats.sources import LINKED_FOLDER
from mmcl_jax.data.records import SetAside
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.runtime.files import printable
from mmcl_jax.runtime.tables import Row, TableError, read_table
from mmcl_jax.runtime.words import counted

# Files beside videos; FFmpeg would take some of them for videos.
_NO_VIDEOS = frozenset(
    f".{suffix}"
    for suffixes in (
        "txt md json csv tsv xml yaml yml srt vtt ass html pdf log npy npz pkl py zip",
        "jpg jpeg png bmp webp tif tiff wav mp3 aac m4a flac ogg",
    )
    for suffix in suffixes.split()
)


@dataclasses.dataclass(frozen=True)
class ListedClip:
    """A clip of the user's.

    Attributes:
      name: of the clip, unique: the video's path beneath the folder without its suffix, and the clip's time in it.
      path: the video.
      label: name of the class.
      subject: name of the person; empty: unknown.
      start: seconds from the beginning of the video.
      end: seconds; None: the end of the video.
    """

    name: str
    path: pathlib.Path
    label: str
    subject: str = ""
    start: float = 0.0
    end: float | None = None

    @property
    def group(self) -> str:
        """Clips of one group are never divided: those of a person or, if that is unknown, of a video."""
        return f"subject {self.subject}" if self.subject else f"video {self.path}"

    @property
    def key(self) -> str:
        """The name of the clip's files in the work folder. A file of another size under the same name has another key.

        Raises: OSError if the video cannot be read.
        """
        identity = f"{self.name}\0{self.start}\0{self.end}\0{self.path.stat().st_size}"
        digest = hashlib.sha256(os.fsencode(identity)).hexdigest()[:12]
        return f"{re.sub(r'[^A-Za-z0-9.-]+', '_', self.name)[-80:]}-{digest}"


@dataclasses.dataclass(frozen=True)
class Listing:
    """The clips, sorted by name, and what is not among them."""

    clips: tuple[ListedClip, ...]
    set_aside: tuple[SetAside, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Sorted; the place of a class is its label."""
        return tuple(sorted({clip.label for clip in self.clips}))

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the persons, sorted; the n-th one is subject n of the records, from 1."""
        return tuple(sorted({clip.subject for clip in self.clips} - {""}))


def in_folders(root: pathlib.Path, named_subjects: bool) -> Listing:
    """The videos of `root`/CLASS/, at any depth.

    Args:
      root: the folder.
      named_subjects: a video's name begins with the person, up to the first underscore.

    Raises: PreparationError if there are none.
    """
    if not root.is_dir():
        fault = "not a folder" if root.exists() else "no such folder"
        raise PreparationError(f"{root}: {fault}; set --videos to a folder with a folder of videos per class")
    found, set_aside = [], []
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if any(part.startswith(".") for part in relative.parts):
            continue
        if path.is_dir():
            if path.is_symlink():
                set_aside.append(SetAside(str(relative), LINKED_FOLDER))
            continue
        if not path.is_file():
            set_aside.append(SetAside(str(relative), "no file: a link that leads nowhere, or a pipe or device"))
            continue
        if path.suffix.lower() in _NO_VIDEOS:
            if len(relative.parts) > 1:
                set_aside.append(SetAside(str(relative), f"not a video, by its suffix {path.suffix}"))
            continue
        if len(relative.parts) == 1:
            set_aside.append(SetAside(str(relative), "in no class's folder; expected CLASS/VIDEO"))
            continue
        subject, underscore, _ = path.stem.partition("_")
        if named_subjects and not (subject and underscore):
            set_aside.append(SetAside(str(relative), "no person in its name; --subjects=names expects PERSON_CLIP"))
            continue
        found.append((path, printable(relative.parts[0]), printable(subject) if named_subjects else "", 0.0, None))
    if not found:
        listed = "".join(f"; {item.name}: {item.reason}" for item in set_aside[:3])
        raise PreparationError(f"{root}: no video in it; expected {root}/CLASS/VIDEO.mp4{listed}")
    return Listing(tuple(_named(found, root)), tuple(set_aside))


def in_table(table: pathlib.Path, root: pathlib.Path) -> Listing:
    """The clips that a CSV file lists: columns file and label and, if wanted, subject, start and end in seconds.

    Args:
      table: the file, with a header.
      root: the folder that `file` refers to.

    Raises: PreparationError, naming the line, if the table cannot be read; a missing video is set aside.
    """
    found, set_aside = [], []
    for number, values in _rows(table):
        where = f"{table}, line {number}"
        if not values["file"] or not values["label"]:
            raise PreparationError(f"{where}: no {'label' if values['file'] else 'file'}; each line needs both")
        start, end = (_seconds(values[name], name, where) for name in ("start", "end"))
        if end is not None and end <= (start or 0.0):
            raise PreparationError(f"{where}: the clip ends at {end:g} s, before it starts at {start or 0:g} s")
        path = root / values["file"]
        if not path.absolute().is_relative_to(root.absolute()):
            raise PreparationError(f"{where}: {path} is not in {root}; set --videos to a folder that holds all videos")
        if not path.is_file():
            set_aside.append(SetAside(values["file"], f"no such file ({where})"))
            continue
        found.append((path, values["label"], values["subject"], start or 0.0, end))
    if not found:
        raise PreparationError(
            f"{table}: none of its {counted(len(set_aside), 'video')} is in {root}; set --videos to their folder"
        )
    return Listing(tuple(_named(found, root)), tuple(set_aside))


def _rows(table: pathlib.Path) -> list[Row]:
    """The rows of a table. Raises: PreparationError."""
    try:
        return read_table(table, ("file", "label"), ("subject", "start", "end"))
    except TableError as error:
        raise PreparationError(str(error)) from error


def _seconds(text: str, column: str, where: str) -> float | None:
    """Seconds of a table's cell; None if it is empty. Raises: PreparationError."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise PreparationError(f"{where}: {column} {text!r} is not a number of seconds")
    return value


def _named(found: Iterable[tuple], root: pathlib.Path) -> Iterator[ListedClip]:
    """The clips with unique names, sorted. Raises: PreparationError if a clip is listed twice."""
    files: dict[str, set[pathlib.Path]] = {}
    found = list(found)
    for path, *_ in found:
        files.setdefault(_without_suffix(path, root), set()).add(path)
    clips: dict[str, ListedClip] = {}
    for path, label, subject, start, end in found:
        name = _without_suffix(path, root)
        name = name if len(files[name]) == 1 else f"{name}{path.suffix}"
        if start or end is not None:
            name += f"@{start:.10g}-{'' if end is None else f'{end:.10g}'}"
        name = printable(name)
        if name in clips:
            raise PreparationError(f"{path}: listed twice as the clip {name}; give each clip once")
        clips[name] = ListedClip(name, path, label, subject, start, end)
    return iter(clip for _, clip in sorted(clips.items()))


def _without_suffix(path: pathlib.Path, root: pathlib.Path) -> str:
    return path.absolute().relative_to(root.absolute()).with_suffix("").as_posix()
