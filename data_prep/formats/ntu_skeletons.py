"""NTU RGB+D's `.skeleton` files: read fast, and denoised as the published preprocessing (SGN, CTR-GCN) does it.

A file is text: the number of frames; then for each frame the number of bodies; for each body a line of ten words that
begins with the body's id, a line with the number of joints, and a line of twelve numbers for each joint. Of these, x,
y, z (metres, camera coordinates) and the pixel in the colour video (1920 x 1080) are kept.

`read` -> `RawClip` with every body; `denoise` -> `Actors`, one or two; `translate` moves the origin.
"""

import dataclasses
import pathlib

import numpy as np

from data_prep.formats.sources import SourceFileError

NUM_JOINTS = 25
_BODY_WORDS, _JOINT_WORDS = 10, 12
_LINES_PER_BODY = 2 + NUM_JOINTS
_KEPT_WORDS = (0, 1, 2, 5, 6)  # x, y, z, and column and row in the colour video
_EXACT_DIGITS = 15  # a decimal number of so many digits is an integer over a power of ten, both exact in float64

SHORTEST_BODY = 12  # frames; shorter ones are noise
SPREAD_RATIO = 0.8  # a frame whose extent in x is more than this times its extent in y shows no standing person
SPREAD_FRAMES = 0.69754  # a body with at least this share of such frames is noise
ORIGIN_JOINT = 1  # joint 2, the middle of the spine

_QUIETLY = np.errstate(
    over="ignore", invalid="ignore"
)  # NaN and infinity of a damaged file; clips with them are refused

# Parsing makes many arrays of some 100 kB. Having seen a larger one freed, glibc keeps such memory for the next instead
# of fetching it from the kernel page by page, which takes as long as the parsing itself.
np.empty(1 << 23, np.uint8)


@dataclasses.dataclass(frozen=True)
class Body:
    """What the sensor tracked under one id.

    Attributes:
      id: as written; ids exceed 2^53, so they are no floats.
      start: its first frame, counted among the frames that have a body.
      frames: int64 [n], its frames in the file (and in the video).
      joints: float32 [n, 25, 3], metres.
      colours: float32 [n, 25, 2], pixels (column, row) of the colour video; may be NaN.
    """

    id: bytes
    start: int
    frames: np.ndarray
    joints: np.ndarray
    colours: np.ndarray

    @property
    def end(self) -> int:
        """The last frame where the published code puts it: behind `start` without a gap, even if there was one."""
        return self.start + len(self.joints) - 1


@dataclasses.dataclass(frozen=True)
class RawClip:
    """All of a file: `num_frames` as in its first line, `num_tracked` of them with a body; bodies as they appear."""

    num_frames: int
    num_tracked: int
    bodies: tuple[Body, ...]


@dataclasses.dataclass(frozen=True)
class Actors:
    """The one or two persons of a clip.

    Attributes:
      joints: float32 [T, M, 25, 3], zeros where an actor is lost.
      bodies: for each actor the bodies that it was put together from.
    """

    joints: np.ndarray
    bodies: tuple[tuple[Body, ...], ...]


def read(path: pathlib.Path) -> RawClip:
    """Reads a `.skeleton` file. Raises: SourceFileError, saying why, where it is not as distributed."""
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise SourceFileError(f"cannot be read ({error})") from error
    return parse(contents)


@_QUIETLY
def parse(contents: bytes) -> RawClip:
    """The contents of a `.skeleton` file. Raises: SourceFileError."""
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
        raise SourceFileError(f"nobody in any of its {num_frames} frames")
    values = words.joint_values(np.array(lines))
    return RawClip(num_frames, tracked, _group(ids, np.array(places), np.array(frames), values))


def _group(ids: list[bytes], places: np.ndarray, frames: np.ndarray, values: np.ndarray) -> tuple[Body, ...]:
    """Bodies in the order of their first appearance. `values` float32 [entries, 25, 5]."""
    entries: dict[bytes, list[int]] = {}
    for entry, body in enumerate(ids):
        entries.setdefault(body, []).append(entry)
    return tuple(
        Body(
            id=body,
            start=int(places[rows[0]]),
            frames=frames[rows],
            joints=np.ascontiguousarray(values[rows, :, :3]),
            colours=np.ascontiguousarray(values[rows, :, 3:]),
        )
        for body, rows in entries.items()
    )


class _Words:
    """The words of a text by line, found and read without a Python loop over them."""

    def __init__(self, contents: bytes):
        """Raises: SourceFileError where `contents` is no text."""
        self._contents = contents
        # The padding ends the last line and lets `_decimals` look past the last word.
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
        """The first word of a line that has one."""
        word = self._first[line]
        return self._contents[self._starts[word] : self._ends[word]]

    def count(self, line: int, what: str) -> int:
        """The line's only word, a number of `what`. Raises: SourceFileError."""
        word = self.first_word(line) if self.lengths[line] == 1 else b""
        if not word.isdigit() or len(word) > _EXACT_DIGITS:
            raise self.fault(line, f"the number of {what}")
        return int(word)

    def joint_values(self, body_lines: np.ndarray) -> np.ndarray:
        """float32 [n, 25, 5]: the kept words of the joints of the bodies that begin in `body_lines` [n]."""
        lines = body_lines[:, np.newaxis] + np.arange(2, _LINES_PER_BODY)
        odd = lines[self.lengths[lines] != _JOINT_WORDS]
        if len(odd):
            raise self.fault(int(odd[0]), f"a joint's line of {_JOINT_WORDS} numbers")
        words = self._first[lines][..., np.newaxis] + np.array(_KEPT_WORDS)
        return self._decimals(words.ravel()).astype(np.float32).reshape(words.shape)

    def fault(self, line: int, expected: str) -> SourceFileError:
        """The error for a line that is not what it should be."""
        first = self._first[line]
        seen = b" ".join(
            self._contents[self._starts[word] : self._ends[word]] for word in range(first, first + self.lengths[line])
        )
        shown = seen[:40].decode("ascii", "backslashreplace") + ("..." if len(seen) > 40 else "")
        return SourceFileError(f"line {line + 1} is {shown!r}, expected {expected}")

    def _decimals(self, words: np.ndarray) -> np.ndarray:
        """The numbers that the words [n] spell: float64 [n], rounded correctly.

        All words advance together, a character at a time. What is not a plain decimal number (an exponent, 'nan', more
        digits than are exact) is left to Python.
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

    A clip with one body is taken as it is. Of several, short ones and wide ones are noise; the rest is ranked by motion
    (the file's bounds on motion are not applied, nor are they there). A body that overlaps actor 1 in at most one frame
    continues it; else, one that overlaps actor 2 so continues that; else it is left out. The interval of actor 2 begins
    at frame 0, whenever its first body does. Where a second actor is looked for, it is there, all zeros if never found:
    the published arrays tell such a clip from one with a single body.

    Raises: SourceFileError where no body is left, or one is longer than the clip (an id twice in a frame).
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
    """Bodies that are long and slim enough, by falling motion; of two equal ones, the first to appear."""
    kept = [body for body in bodies if len(body.joints) >= SHORTEST_BODY]
    motions = {}
    left = len(kept)
    for body in kept:
        motions[body.id] = _motion(body.joints)
        if left == 1:  # the last one stays, whatever its shape
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
    """The summed variance of x, y and z over all joints and frames, in float32: its rounding decides near ties."""
    return np.sum(np.var(joints.reshape(-1, 3), axis=0))


def _is_slim(joints: np.ndarray) -> np.ndarray:
    """bool [n]: whether each frame is narrow enough for a person."""
    extent = joints.max(axis=1) - joints.min(axis=1)
    return extent[:, 0].astype(np.float64) <= SPREAD_RATIO * extent[:, 1].astype(np.float64)


def _cast(bodies: list[Body]) -> list[list[Body]]:
    """Distributes bodies, in order, over two actors."""
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
    """float32 [T, M, 25, 3]: the bodies of the actors at their frames; a later body covers an earlier one."""
    joints = np.zeros((clip.num_tracked, len(actors), NUM_JOINTS, 3), np.float32)
    for number, bodies in enumerate(actors):
        for body in bodies:
            if body.end >= clip.num_tracked:
                raise SourceFileError(f"body {body.id.decode('ascii', 'backslashreplace')} comes twice in a frame")
            joints[body.start : body.end + 1, number] = body.joints
    return joints


@_QUIETLY
def translate(joints: np.ndarray) -> np.ndarray:
    """Moves the origin to the middle of actor 1's spine in the first frame that has it. float32 [T, M, 25, 3].

    Of two actors, frames in which one is lost stay zero.

    Raises: SourceFileError where actor 1 is nowhere.
    """
    present = np.flatnonzero(joints[:, 0].any(axis=(1, 2)))
    if not len(present):
        raise SourceFileError("every joint of every frame is zero")
    moved = joints - joints[present[0], 0, ORIGIN_JOINT]
    if joints.shape[1] == 2:
        moved[joints.reshape(*joints.shape[:2], -1).sum(axis=2) == 0] = 0
    return moved
