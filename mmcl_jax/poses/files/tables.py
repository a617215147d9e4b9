"""Poses in text: CSV of any tool, and the text results of ultralytics."""

import csv
import io
import pathlib
import re

import numpy as np

from mmcl_jax.data.layouts import LAYOUTS, Layout
from mmcl_jax.poses.files.arrays import from_array, from_rows
from mmcl_jax.poses.files.forms import Meaning, Seen, build
from mmcl_jax.poses.files.json_files import numbered
from mmcl_jax.poses.types import SHARES, Poses, PosesError
from mmcl_jax.runtime.files import read_text

_CHANNELS = {
    **dict.fromkeys(("x", "y", "z"), ""),
    **dict.fromkeys(
        ("v", "c", "s", "visibility", "confidence", "conf", "score", "likelihood", "p", "prob"), "confidence"
    ),
    "presence": "ignored",
}
_FRAME = ("frame", "frame_id", "frame_number", "frame_index", "image_id", "index", "t")
_PERSON = ("person", "person_id", "track", "track_id", "id", "body")
_JOINT = ("joint", "landmark", "keypoint", "point", "joint_id", "landmark_id", "keypoint_id", "name")
_IGNORED = ("time", "timestamp", "time_ms", "timestamp_ms", "seconds", "label", "class", "")
_LARGEST_FRAME = 1_000_000_000
_BOX = 5  # class, and center and size of the box


def read_csv(path: pathlib.Path, meaning: Meaning) -> Poses:
    """The poses in a CSV file.

    With a line of names: a column for each number of each joint (x0, y0, z0, v0, ... or nose_x, nose_y, ...), or a line
    for each joint (frame, joint, x, y, z). Without: a line for each frame, joint after joint. Raises: PosesError.
    """
    rows = _rows(path)
    header = [] if _are_numbers(rows[0]) else [cell.strip().casefold() for cell in rows[0]]
    if not header:
        return from_rows(_matrix(rows, 1), meaning, str(path))
    body = rows[1:]
    if not body:
        raise PosesError("only a line of names in it, no poses")
    if any(name in _JOINT for name in header) and "x" in header:
        return _long(header, body, meaning, str(path))
    return _wide(header, body, meaning, str(path))


def _rows(path: pathlib.Path) -> list[list[str]]:
    try:
        text = read_text(path)
        dialect = ";" if text.count(";") > text.count(",") else "\t" if text.count("\t") > text.count(",") else ","
        rows = [
            row
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=dialect)
            if any(cell.strip() for cell in row)
        ]
    except (OSError, ValueError, csv.Error) as error:
        raise PosesError(f"not a readable table ({error})") from error
    if not rows:
        raise PosesError("an empty file")
    return rows


def _are_numbers(row: list[str]) -> bool:
    try:
        [float(cell) for cell in row if cell.strip()]
    except ValueError:
        return False
    return True


def _matrix(rows: list[list[str]], first_line: int) -> np.ndarray:
    """float64 `[rows, columns]`; empty cells are NaN. Raises: PosesError."""
    values = np.full((len(rows), len(rows[0])), np.nan)
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise PosesError(f"line {number + first_line}: {len(row)} columns, expected {len(rows[0])}")
        try:
            values[number] = [float(cell) if cell.strip() else np.nan for cell in row]
        except ValueError as error:
            raise PosesError(f"line {number + first_line}: {error}") from error
    return values


def _wide(header: list[str], body: list[list[str]], meaning: Meaning, source: str) -> Poses:
    """A column for each number of each joint."""
    columns: dict[tuple[str, str], int] = {}
    special: dict[str, int] = {}
    for place, name in enumerate(header):
        kind = next((kind for kind, names in (("frame", _FRAME), ("person", _PERSON)) if name in names), None)
        if kind is not None:
            special[kind] = place
        elif name not in _IGNORED:
            joint, channel = _joint_and_channel(name)
            columns[joint, channel] = place
    joints = list(dict.fromkeys(joint for joint, _ in columns))
    joints, layout = _ordered(joints, meaning)
    channels = [each for each in ("x", "y", "z", "confidence") if any((joint, each) in columns for joint in joints)]
    missing = [f"{joint} {each}" for joint in joints for each in channels if (joint, each) not in columns]
    if missing:
        raise PosesError(f"no column for {missing[0]}, which other joints have")
    kept = [place for name, place in special.items()] + [columns[joint, each] for joint in joints for each in channels]
    values = _matrix([[row[place] if place < len(row) else "" for place in kept] for row in body], 2)
    table = values[:, len(special) :].reshape(len(values), len(joints), len(channels))
    numbers = {name: values[:, place] for place, name in enumerate(special)}
    return _from_table(table, channels, numbers, layout, meaning, source)


def _long(header: list[str], body: list[list[str]], meaning: Meaning, source: str) -> Poses:
    """A line for each joint."""
    place = {name: number for number, name in enumerate(header)}
    joint_column = next(place[name] for name in _JOINT if name in place)
    frame_column = next((place[name] for name in _FRAME if name in place), None)
    if frame_column is None:
        raise PosesError(f"no column that numbers the frames, among {', '.join(header)}; expected frame")
    person_column = next((place[name] for name in _PERSON if name in place), None)
    channels = {_CHANNELS.get(name) or name: place[name] for name in header if name in _CHANNELS}
    channels = {name: column for name, column in channels.items() if name in ("x", "y", "z", "confidence")}
    short = next((number for number, row in enumerate(body) if len(row) <= joint_column), None)
    if short is not None:
        raise PosesError(f"line {short + 2}: {len(body[short])} columns, expected {len(header)}")
    names = [_plain(row[joint_column]) for row in body]
    joints, layout = _ordered(list(dict.fromkeys(names)), meaning)
    rows: dict[tuple[float, float], np.ndarray] = {}
    wanted = [frame_column, *([] if person_column is None else [person_column]), *channels.values()]
    values = _matrix([[row[column] if column < len(row) else "" for column in wanted] for row in body], 2)
    skip = 1 if person_column is None else 2
    for name, row in zip(names, values, strict=True):
        key = (row[0], -1.0 if person_column is None else row[1])
        rows.setdefault(key, np.full((len(joints), len(channels)), np.nan))[joints.index(name)] = row[skip:]
    numbers = {"frame": np.array([frame for frame, _ in rows])}
    if person_column is not None:
        numbers["person"] = np.array([person for _, person in rows])
    return _from_table(np.stack(list(rows.values())), list(channels), numbers, layout, meaning, source)


def _from_table(
    table: np.ndarray, channels: list[str], numbers: dict[str, np.ndarray], layout, meaning: Meaning, source: str
) -> Poses:
    """Poses of rows `[n, V, C]`, each a person in a frame."""
    if "frame" not in numbers:
        return from_array(table, meaning, source, scored="confidence" in channels, layout=layout)
    if not np.isfinite(numbers["frame"]).all():
        raise PosesError("a line without the number of its frame")
    furthest = np.abs(numbers["frame"]).max()
    if furthest > _LARGEST_FRAME:
        raise PosesError(f"a frame numbered {furthest:g}, expected at most {_LARGEST_FRAME:,}")
    frames = numbers["frame"].astype(int)
    if frames.max() - frames.min() > 100 * len(frames) + 1000:
        raise PosesError(f"frames numbered from {frames.min()} to {frames.max()} in {len(frames)} lines")
    listed: list[list[Seen]] = [[] for _ in range(int(frames.max() - frames.min()) + 1)]
    has_scores = "confidence" in channels
    for row, values in enumerate(table):
        joints = values[:, :-1] if has_scores else values
        person = float(numbers["person"][row]) if "person" in numbers else None
        listed[frames[row] - frames.min()].append(Seen(joints, values[:, -1] if has_scores else None, _number(person)))
    return build(listed, meaning, source, layout=layout)


def _number(person: float | None) -> int | None:
    return None if person is None or not np.isfinite(person) else int(person)


def _joint_and_channel(name: str) -> tuple[str, str]:
    """The joint and the channel of a column such as x0, 0_x, nose_x, left shoulder y, landmark_12_visibility."""
    words = re.findall(r"[a-z]+|\d+", name)
    for place in (-1, 0):
        if len(words) > 1 and words[place] in _CHANNELS:
            rest = words[:-1] if place else words[1:]
            digits = [word for word in rest if word.isdigit()]
            joint = digits[-1] if digits and len(rest) - len(digits) <= 1 else " ".join(rest)
            return joint, _CHANNELS[words[place]] or words[place]
    raise PosesError(f"a column {name!r}, expected frame, person, or a joint and x, y, z or visibility, such as nose_x")


def _ordered(joints: list[str], meaning: Meaning) -> tuple[list[str], str | Layout | None]:
    """Joints in the order of their layout, and that layout if their names tell it. Raises: PosesError."""
    if all(joint.isdigit() for joint in joints):
        return sorted(joints, key=int), None
    known = LAYOUTS if meaning.layout is None else {"": meaning.layout}
    plain = {_plain(joint): joint for joint in joints}
    for name, layout in known.items():
        layout = LAYOUTS[layout] if isinstance(layout, str) else layout
        if set(plain) == {_plain(joint) for joint in layout.joints}:
            return [plain[_plain(joint)] for joint in layout.joints], name or layout
    raise PosesError(
        f"joints {', '.join(joints[:4])}, ... ({len(joints)}), which are not those of "
        + ("any known layout; name them as mmcl_jax.data.layouts does" if len(known) > 1 else "the layout")
    )


def _plain(joint: str) -> str:
    """A joint's name without differences of writing; MediaPipe's names are BlazePose's."""
    name = " ".join(re.findall(r"[a-z]+|\d+", joint.casefold()))
    name = re.sub(r"^mouth (left|right)$", r"\1 mouth", name)
    return re.sub(r"^(left|right) foot index$", r"\1 big toe", name)


def read_ultralytics(folder: pathlib.Path, meaning: Meaning) -> Poses:
    """The poses in ultralytics' text results (`save_txt=True`), a file for each frame. Raises: PosesError."""
    files = numbered(folder, "*.txt")
    frames: list[list[Seen]] = []
    others = 0
    for number, path in files:
        try:
            persons, ignored = _ultralytics_frame(path, meaning)
        except PosesError as error:
            raise PosesError(f"{path.name}: {error}") from error
        others += ignored
        frames.extend([] for _ in range(number - files[0][0] - len(frames)))
        frames.append(persons)
    notes = (f"{others} detections of other classes than 0 left out",) if others else ()
    return build(frames, meaning, str(folder), usual_units=SHARES, notes=notes)


def _ultralytics_frame(path: pathlib.Path, meaning: Meaning) -> tuple[list[Seen], int]:
    """The persons in a file, and how many detections of other classes it has."""
    persons, others = [], 0
    try:
        lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
        rows = [np.array([float(word) for word in line]) for line in lines]
    except (OSError, ValueError) as error:
        raise PosesError(f"not a text result of ultralytics ({error})") from error
    for row in rows:
        if row[0] != 0:
            others += 1
            continue
        persons.append(_ultralytics_person(row, meaning))
    return persons, others


def _ultralytics_person(row: np.ndarray, meaning: Meaning) -> Seen:
    """A person in a line: class, box, joints of x, y (and confidence), and perhaps a confidence and a number."""
    extra = len(row) - _BOX
    known = (13, 17, 18, 25, 26, 33, 133) if meaning.num_joints is None else (meaning.num_joints,)
    # Joints with a confidence first; after them nothing, a confidence, a number of the person, or both.
    for count in (3, 2):
        for over in range(3):
            joints = (extra - over) // count
            if (extra - over) % count == 0 and joints in known:
                values = row[_BOX : _BOX + joints * count].reshape(joints, count)
                rest = row[_BOX + joints * count :]
                number = rest[-1] if len(rest) == 2 or (len(rest) == 1 and rest[0] >= 1 and rest[0] % 1 == 0) else None
                person = None if number is None else int(number)
                return Seen(values[:, :2], values[:, 2] if count == 3 else None, person)
    raise PosesError(
        f"a line of {len(row)} numbers, expected class, box and joints; results of detection have no joints, use a "
        "pose model"
    )
