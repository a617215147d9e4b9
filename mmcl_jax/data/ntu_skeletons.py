"""Reads NTU RGB+D's `.skeleton` files fast, and denoises them as the published preprocessing (SGN, CTR-GCN) does.

A file is text. It has the number of frames, then for each frame the number of bodies. Each body has a line of ten words
that begins with its id, a line with the number of joints, and a line of twelve numbers per joint. Of these, x, y, z
(meters, camera coordinates) and the pixel in the color video (1920 x 1080) are kept.

`read` returns a `RawClip` with every body, `denoise` the one or two `Actors`; `translate` moves the origin.
"""

import codecs
import dataclasses
import pathlib

import numpy as np

from mmcl_jax.runtime.errors import SourceFileError
from mmcl_jax.runtime.words import counted

NUM_JOINTS = 25
_BODY_WORDS, _JOINT_WORDS = 10, 12
_LINES_PER_BODY = 2 + NUM_JOINTS
_KEPT_WORDS = (0, 1, 2, 5, 6)  # x, y, z, and column and row in the color video
_EXACT_DIGITS = 15  # a decimal number of 15 digits is an integer over a power of ten, both exact in float64

SHORTEST_BODY = 12  # frames; shorter ones are noise
SPREAD_RATIO = 0.8  # a frame that extends in x more than this times its extent in y shows no standing person
SPREAD_FRAMES = 0.69754  # a body with at least this share of such frames is noise
ORIGIN_JOINT = 1  # joint 2, the middle of the spine

# A damaged file may hold NaN and infinity; clips with them are refused when they are written.
_QUIETLY = np.errstate(over="ignore", invalid="ignore")

# Parsing allocates many arrays of about 100 kB. Once glibc has freed a larger one, it reuses such memory instead of
# fetching it from the kernel page by page, which takes as long as the parsing itself.
np.empty(1 << 23, np.uint8)


@dataclasses.dataclass(frozen=True)
class Body:
    """A body that the sensor tracked under one id.

    Attributes:
      id: as written; ids exceed 2^53, so they are not numbers here.
      start: its first frame, counted among the frames that have a body.
      frames: int64 [n], its frames in the file (and in the video).
      joints: float32 [n, 25, 3], meters.
      colors: float32 [n, 25, 2], pixels (column, row) of the color video; may be NaN.
    """

    id: bytes
    start: int
    frames: np.ndarray
    joints: np.ndarray
    colors: np.ndarray

    @property
    def end(self) -> int:
        """The last frame by the published code, which ignores gaps: `start` plus the number of frames minus one."""
        return self.start + len(self.joints) - 1


@dataclasses.dataclass(frozen=True)
class RawClip:
    """All bodies of a file, in order of appearance.

    Attributes:
      num_frames: the number in the file's first line.
      num_tracked: the number of frames that have a body.
      bodies: the bodies.
    """

    num_frames: int
    num_tracked: int
    bodies: tuple[Body, ...]


@dataclasses.dataclass(frozen=True)
class Actors:
    """The one or two persons of a clip.

    Attributes:
      joints: float32 [T, M, 25, 3], zeros in frames where an actor is not tracked.
      bodies: the bodies that make up each actor.
    """

    joints: np.ndarray
    bodies: tuple[tuple[Body, ...], ...]


def read(path: pathlib.Path) -> RawClip:
    """Reads a `.skeleton` file. Raises: SourceFileError, saying why, if it is not as distributed."""
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise SourceFileError(f"cannot be read ({error})") from error
    return parse(contents)


@_QUIETLY
def parse(contents: bytes) -> RawClip:
    """Parses the contents of a `.skeleton` file. Raises: SourceFileError."""
    words = _Words(contents)
    if not words.num_lines:
        raise SourceFileError("an empty file")
    num_frames = words.count(0, "frames")
    tracked, line = 0, 1
    ids, places, frames, lines = [], [], [], []  # of every body in every frame
    for frame in range(num_frames):
        if line >= words.num_lines:
            raise SourceFileError(f"truncated: it ends before frame {frame + 1} of {num_frames}")
        num_bodies = words.count(line, "bodies")
        line += 1
        if num_bodies > (words.num_lines - line) // _LINES_PER_BODY:
            raise SourceFileError(
                f"truncated or damaged: frame {frame + 1} of {num_frames} announces {num_bodies} bodies, "
                f"but {words.num_lines - line} lines are left"
            )
        for _ in range(num_bodies):
            if words.lengths[line] != _BODY_WORDS:
                raise words.fault(line, f"a body's line of {_BODY_WORDS} words")
            if words.count(line + 1, "joints") != NUM_JOINTS:
                raise words.fault(line + 1, f"{NUM_JOINTS} joints")
            ids.append(words.first_word(line))
            places.append(tracked)
            frames.append(frame)
            lines.append(line)
            line += _LINES_PER_BODY
        tracked += num_bodies > 0
    if line < words.num_lines:
        raise SourceFileError(
            f"{words.num_lines - line} lines follow the last of {num_frames} frames; the number of frames is wrong"
        )
    if not tracked:
        raise SourceFileError(f"nobody in any of its {counted(num_frames, 'frame')}")
    values = words.joint_values(np.array(lines))
    return RawClip(num_frames, tracked, _group(ids, np.array(places), np.array(frames), values))


def _group(ids: list[bytes], places: np.ndarray, frames: np.ndarray, values: np.ndarray) -> tuple[Body, ...]:
    """Groups entries to bodies, in order of their first appearance. `values` is float32 [entries, 25, 5]."""
    entries: dict[bytes, list[int]] = {}
    for entry, body in enumerate(ids):
        entries.setdefault(body, []).append(entry)
    return tuple(
        Body(
            id=body,
            start=int(places[rows[0]]),
            frames=frames[rows],
            joints=np.ascontiguousarray(values[rows, :, :3]),
            colors=np.ascontiguousarray(values[rows, :, 3:]),
        )
        for body, rows in entries.items()
    )


class _Words:
    """The words of a text by line, found and parsed without a Python loop over words."""

    def __init__(self, contents: bytes):
        """Raises: SourceFileError if `contents` is not text."""
        contents = contents.removeprefix(codecs.BOM_UTF8)
        if contents.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise SourceFileError("text in UTF-16, expected UTF-8 or ASCII")
        self._contents = contents
        # The padding ends the last line, and lets `_decimals` look past the last word.
        self._bytes = np.frombuffer(contents + b"\n" + b" " * (_EXACT_DIGITS + 3), np.uint8)
        if not contents.isascii() or self._bytes.min() < 9 or ((self._bytes > 13) & (self._bytes < 32)).any():
            raise SourceFileError("binary data in it, expected text")
        blank = self._bytes <= ord(" ")
        borders = np.flatnonzero(blank[1:] != blank[:-1])
        borders += 1
        if not blank[0]:
            borders = np.concatenate([[0], borders])
        self._starts, self._ends = borders[0::2], borders[1::2]
        until = np.searchsorted(self._starts, np.flatnonzero(self._bytes == ord("\n")))
        self._first = np.concatenate([[0], until[:-1]])
        self.lengths = until - self._first
        used = np.flatnonzero(self.lengths)
        self.num_lines = int(used[-1]) + 1 if len(used) else 0

    def first_word(self, line: int) -> bytes:
        """The first word of a line that is not empty."""
        word = self._first[line]
        return self._contents[self._starts[word] : self._ends[word]]

    def count(self, line: int, what: str) -> int:
        """The only word of a line, a number of `what`. Raises: SourceFileError if it is not a number."""
        word = self.first_word(line) if self.lengths[line] == 1 else b""
        if not word.isdigit() or len(word) > _EXACT_DIGITS:
            raise self.fault(line, f"the number of {what}")
        return int(word)

    def joint_values(self, body_lines: np.ndarray) -> np.ndarray:
        """float32 [n, 25, 5]: the kept words of the joints of bodies that begin in `body_lines` [n]."""
        lines = body_lines[:, np.newaxis] + np.arange(2, _LINES_PER_BODY)
        odd = lines[self.lengths[lines] != _JOINT_WORDS]
        if len(odd):
            raise self.fault(int(odd[0]), f"a joint's line of {_JOINT_WORDS} numbers")
        words = self._first[lines][..., np.newaxis] + np.array(_KEPT_WORDS)
        return self._decimals(words.ravel()).astype(np.float32).reshape(words.shape)

    def fault(self, line: int, expected: str) -> SourceFileError:
        """The error for a line that is not as expected."""
        first = self._first[line]
        seen = b" ".join(
            self._contents[self._starts[word] : self._ends[word]] for word in range(first, first + self.lengths[line])
        )
        shown = seen[:40].decode("ascii", "backslashreplace") + ("..." if len(seen) > 40 else "")
        return SourceFileError(f"line {line + 1} is {shown!r}, expected {expected}")

    def _decimals(self, words: np.ndarray) -> np.ndarray:
        """Parses the words [n] as numbers: float64 [n], correctly rounded.

        All words advance together, one character at a time. Python parses the words that are not plain decimal numbers
        (an exponent, 'nan', more digits than are exact).
        """
        starts = self._starts[words]
        lengths = (self._ends[words] - starts).clip(max=127).astype(np.int8)
        mantissa = np.zeros(len(words))
        decimals = np.zeros(len(words), np.int8)
        digits = np.zeros(len(words), np.int8)
        pointed = np.zeros(len(words), bool)
        negative = self._bytes[starts] == ord("-")
        odd = lengths > _EXACT_DIGITS + 2
        for place in range(min(int(lengths.max()), _EXACT_DIGITS + 2)):
            inside = lengths > place
            character = self._bytes.take(starts)
            starts += 1
            digit = character - np.uint8(ord("0"))
            is_digit = (digit < 10) & inside
            is_point = (character == ord(".")) & inside
            odd |= inside ^ is_digit ^ (is_point & ~pointed) ^ (negative if place == 0 else False)
            np.multiply(mantissa, _TEN_OR_ONE[is_digit.view(np.int8)], out=mantissa)
            digit *= is_digit
            mantissa += digit
            digits += is_digit
            decimals += is_digit & pointed
            pointed |= is_point
        odd |= (digits == 0) | (digits > _EXACT_DIGITS)
        values = mantissa / _POWERS_OF_TEN[decimals]
        np.negative(values, out=values, where=negative)
        for row in np.flatnonzero(odd):
            values[row] = self._number(words[row])
        return values

    def _number(self, word: int) -> float:
        text = self._contents[self._starts[word] : self._ends[word]]
        try:
            return float(text)
        except ValueError:
            line = int(np.searchsorted(self._first, word, side="right")) - 1
            raise self.fault(line, f"a joint's line of {_JOINT_WORDS} numbers") from None


_POWERS_OF_TEN = 10.0 ** np.arange(_EXACT_DIGITS + 3)
_TEN_OR_ONE = np.array([1.0, 10.0])


@_QUIETLY
def denoise(clip: RawClip) -> Actors:
    """Chooses the actors of a clip as the published preprocessing does, quirks included.

    A single body is used as it is. Of several, short and wide bodies are noise; the rest are ranked by motion (the
    bounds on motion in the published file are not applied there either). A body that overlaps actor 1 in at most one
    frame continues actor 1; otherwise, one that overlaps actor 2 in at most one frame continues actor 2; all others are
    left out. The interval of actor 2 begins at frame 0, even if its first body begins later. If a second actor is
    expected but not tracked, it is stored as zeros: so the published arrays distinguish such a clip from one with a
    single body.

    Raises: SourceFileError if no body is left, or a body is longer than the clip (an id twice in a frame).
    """
    if len(clip.bodies) == 1:
        return Actors(_place(clip, [clip.bodies]), (clip.bodies,))
    bodies = _without_noise(clip.bodies)
    if not bodies:
        raise SourceFileError(f"all of its {len(clip.bodies)} bodies are shorter than {SHORTEST_BODY} frames")
    actors = [[bodies[0]]] if len(bodies) == 1 else _cast(bodies)
    joints = _place(clip, actors)
    tracked = joints.reshape(len(joints), -1).sum(axis=1) != 0
    return Actors(joints[tracked], tuple(tuple(actor) for actor in actors))


def _without_noise(bodies: tuple[Body, ...]) -> list[Body]:
    """The bodies that are long and slim enough, by decreasing motion; ties keep the order of appearance."""
    kept = [body for body in bodies if len(body.joints) >= SHORTEST_BODY]
    motions = {}
    left = len(kept)
    for body in kept:
        motions[body.id] = _motion(body.joints)
        if left == 1:  # the last body stays, even if it is wide
            continue
        slim = _is_slim(body.joints)
        if slim.all():
            continue
        if (len(slim) - slim.sum()) / len(slim) >= SPREAD_FRAMES:
            del motions[body.id]
            left -= 1
        else:
            motions[body.id] = min(motions[body.id], _motion(body.joints[slim]))
    kept = [body for body in kept if body.id in motions]
    return sorted(kept, key=lambda body: motions[body.id], reverse=True)


def _motion(joints: np.ndarray) -> np.float32:
    """The sum of the variances of x, y and z over all joints and frames, in float32: rounding decides near ties."""
    return np.sum(np.var(joints.reshape(-1, 3), axis=0))


def _is_slim(joints: np.ndarray) -> np.ndarray:
    """bool [n]: whether the body is narrow enough for a person in each frame."""
    extent = joints.max(axis=1) - joints.min(axis=1)
    return extent[:, 0].astype(np.float64) <= SPREAD_RATIO * extent[:, 1].astype(np.float64)


def _cast(bodies: list[Body]) -> list[list[Body]]:
    """Assigns bodies, in order, to two actors."""
    actors: list[list[Body]] = [[bodies[0]], []]
    intervals = [(bodies[0].start, bodies[0].end), (0, 0)]
    for body in bodies[1:]:
        for number, (start, end) in enumerate(intervals):
            if min(end, body.end) - max(start, body.start) <= 0:
                actors[number].append(body)
                intervals[number] = (min(start, body.start), max(end, body.end))
                break
    return actors


def _place(clip: RawClip, actors) -> np.ndarray:
    """float32 [T, M, 25, 3]: the actors' bodies at their frames; a later body overwrites an earlier one."""
    joints = np.zeros((clip.num_tracked, len(actors), NUM_JOINTS, 3), np.float32)
    for number, bodies in enumerate(actors):
        for body in bodies:
            if body.end >= clip.num_tracked:
                raise SourceFileError(f"body {body.id.decode('ascii', 'backslashreplace')} comes twice in a frame")
            joints[body.start : body.end + 1, number] = body.joints
    return joints


@_QUIETLY
def translate(joints: np.ndarray) -> np.ndarray:
    """Moves the origin to the middle of actor 1's spine in the first frame that has actor 1. float32 [T, M, 25, 3].

    If there are two actors, frames in which one is not tracked stay zero.

    Raises: SourceFileError if no frame has actor 1.
    """
    present = np.flatnonzero(joints[:, 0].any(axis=(1, 2)))
    if not len(present):
        raise SourceFileError("every joint of every frame is zero")
    moved = joints - joints[present[0], 0, ORIGIN_JOINT]
    if joints.shape[1] == 2:
        moved[joints.reshape(*joints.shape[:2], -1).sum(axis=2) == 0] = 0
    return moved
