"""Poses in JSON: OpenPose, Kinetics-skeleton, COCO, AlphaPose, mmpose and MediaPipe."""

import itertools
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcl_jax.poses.files.forms import Meaning, Seen, build, picture_size
from mmcl_jax.poses.types import PIXELS, SHARES, Poses, PosesError
from mmcl_jax.runtime.files import read_json

KINETICS_SIZE, KINETICS_RATE = (340, 256), 30.0  # of the pictures from which Kinetics-skeleton was made
_BODY_KEYS = ("pose_keypoints_2d", "pose_keypoints", "joints")  # OpenPose, its first version, AlphaPose's "cmu" form
_LANDMARKS = ("landmarks", "pose_landmarks", "poseLandmarks", "keypoints")
_NUM_LANDMARKS = 33


def load(path: pathlib.Path) -> Any:
    """The contents of a JSON file. Raises: PosesError."""
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise PosesError(f"not a readable JSON file ({error})") from error


def read(path: pathlib.Path, meaning: Meaning) -> Poses:
    """The poses in a JSON file of any of these kinds, told by its contents. Raises: PosesError."""
    contents, source = load(path), str(path)
    if isinstance(contents, Mapping):
        if _is_kinetics(contents):
            return kinetics(contents, meaning, source)
        if isinstance(contents.get("people"), list):
            return build([_openpose_frame(contents)], meaning, source, usual_units=PIXELS)
        if isinstance(contents.get("annotations"), list):
            return coco_annotations(contents, meaning, source)
        if isinstance(contents.get("instance_info"), list):
            return mmpose(contents, meaning, source)
        if contents and all(isinstance(each, Mapping) and _people(each) is not None for each in contents.values()):
            frames = _by_picture({name: _openpose_frame(each) for name, each in contents.items()})
            return build(frames, meaning, source, usual_units=PIXELS)
        for key in ("frames", "poses", "results", *_LANDMARKS):
            if isinstance(contents.get(key), list):
                return mediapipe(contents[key], meaning, source)
    if isinstance(contents, list) and contents:
        if all(isinstance(each, Mapping) and "image_id" in each and "keypoints" in each for each in contents):
            return coco_results(contents, meaning, source)
        if all(isinstance(each, Mapping) and isinstance(each.get("instances"), list) for each in contents):
            return mmpose({"instance_info": contents}, meaning, source)
        return mediapipe(contents, meaning, source)
    raise PosesError(
        f"JSON of {_show(contents)}: none of the known kinds (OpenPose, Kinetics-skeleton, COCO, AlphaPose, mmpose, "
        "MediaPipe)"
    )


def read_openpose_folder(folder: pathlib.Path, meaning: Meaning) -> Poses:
    """The poses in a folder of OpenPose's files, one for each frame. Raises: PosesError."""
    files = numbered(folder, "*.json")
    frames: list[list[Seen]] = []
    for number, path in files:
        try:
            contents = load(path)
            if not isinstance(contents, Mapping) or _people(contents) is None:
                raise PosesError(f"JSON of {_show(contents)}, expected OpenPose's people")
            persons = _openpose_frame(contents)
        except PosesError as error:
            raise PosesError(f"{path.name}: {error}") from error
        frames.extend([] for _ in range(number - files[0][0] - len(frames)))
        frames.append(persons)
    return build(frames, meaning, str(folder), usual_units=PIXELS)


def numbered(folder: pathlib.Path, pattern: str) -> list[tuple[int, pathlib.Path]]:
    """Files of one video by the number in their names, ascending. Raises: PosesError if there are several videos."""
    found: dict[str, list[tuple[int, pathlib.Path]]] = {}
    for path in sorted(folder.glob(pattern)):
        numbers = list(re.finditer(r"\d+", path.stem))
        if numbers and not path.name.startswith("."):
            last = numbers[-1]
            rest = path.stem[: last.start()] + "#" + path.stem[last.end() :]
            found.setdefault(rest, []).append((int(last[0]), path))
    if not found:
        raise PosesError(f"no files {pattern} with numbers of frames in the folder")
    if len(found) > 1:
        names = list(found)
        raise PosesError(
            f"files of {len(found)} videos in one folder ({names[0]}, {names[1]}, # for the frame); give each video "
            "a folder of its own"
        )
    (files,) = found.values()
    files.sort()
    repeated = [path.name for (one, _), (other, path) in itertools.pairwise(files) if one == other]
    if repeated:
        raise PosesError(f"{repeated[0]}: a second file of the same frame")
    if files[-1][0] - files[0][0] > 100 * len(files) + 1000:
        raise PosesError(
            f"{len(files)} files with numbers from {files[0][0]} to {files[-1][0]}, which cannot be numbers of frames"
        )
    return files


def is_openpose_folder(folder: pathlib.Path) -> bool:
    """Whether a folder's first JSON file is a frame of OpenPose."""
    first = min((path for path in folder.glob("*.json") if not path.name.startswith(".")), default=None)
    if first is None:
        return False
    try:
        contents = load(first)
    except PosesError:
        return False
    return isinstance(contents, Mapping) and isinstance(contents.get("people"), list)


def _is_kinetics(contents: Mapping) -> bool:
    data = contents.get("data")
    return isinstance(data, list) and all(isinstance(each, Mapping) and "skeleton" in each for each in data)


def kinetics(contents: Mapping, meaning: Meaning, source: str) -> Poses:
    """A clip of Kinetics-skeleton, as ST-GCN distributes it: 18 joints in shares of a picture of 340 x 256."""
    frames: list[list[Seen]] = []
    numbers = [frame.get("frame_index", place) for place, frame in enumerate(contents["data"])]
    if not all(_is_whole(number) for number in numbers):
        raise PosesError("a frame_index that is no whole number")
    first = min(numbers, default=0)
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    for place in order:
        persons = []
        for person in _list(contents["data"][place]["skeleton"], "skeleton"):
            pose, score = _numbers(person, "pose"), _numbers(person, "score")
            if len(pose) != 2 * len(score):
                raise PosesError(f"a pose of {len(pose)} numbers with {len(score)} scores, expected two for each score")
            persons.append(Seen(pose.reshape(-1, 2), score))
        frames.extend([] for _ in range(_gap(numbers[place] - first - len(frames))))
        frames.append(persons)
    return build(frames, meaning, source, usual_units=SHARES, frame_rate=KINETICS_RATE, size=KINETICS_SIZE)


def coco_results(contents: Sequence[Mapping], meaning: Meaning, source: str) -> Poses:
    """COCO's list of results, also as AlphaPose writes it: an entry for each person in each picture."""
    pictures: dict[Any, list[Seen]] = {}
    for entry in contents:
        person = entry.get("track_id", entry.get("idx"))
        person = person[0] if isinstance(person, list) and len(person) == 1 else person
        seen = _triples(_numbers(entry, "keypoints"), person if isinstance(person, int | float | str) else None)
        pictures.setdefault(_key(entry["image_id"], "image_id"), []).append(seen)
    return build(_by_picture(pictures), meaning, source, usual_units=PIXELS)


def coco_annotations(contents: Mapping, meaning: Meaning, source: str) -> Poses:
    """COCO's annotations: persons, the pictures that they are in, and perhaps the names of the joints."""
    images = {}
    for image in _list(contents.get("images"), "images"):
        if not isinstance(image, Mapping) or "id" not in image:
            raise PosesError("an entry of images without an id")
        images[_key(image["id"], "id")] = image
    sizes = {
        (_key(image.get("width", 0), "width"), _key(image.get("height", 0), "height")) for image in images.values()
    }
    size = next(iter(sizes)) if len(sizes) == 1 else (None, None)
    notes = () if len(sizes) < 2 else (f"pictures of {len(sizes)} sizes; the size is left open",)
    pictures: dict[Any, list[Seen]] = {key: [] for key in images}
    for entry in contents["annotations"]:
        if not isinstance(entry, Mapping) or _key(entry.get("image_id", ""), "image_id") not in images:
            raise PosesError("an annotation whose image_id is not one of the images")
        if "keypoints" not in entry:
            continue  # a person, or a thing, without a pose
        seen = _triples(_numbers(entry, "keypoints"), entry.get("track_id"), flags=True)
        pictures[entry["image_id"]].append(seen)
    named = {
        key: _key(image.get("frame_id", image.get("file_name", key)), "file_name") for key, image in images.items()
    }
    by_name: dict[Any, list[Seen]] = {}
    for key, persons in pictures.items():
        by_name.setdefault(named[key], []).extend(persons)
    width, height = (side if isinstance(side, int) else 0 for side in size)
    known = picture_size(width, height) if width and height else None
    return build(_by_picture(by_name), meaning, source, usual_units=PIXELS, size=known, notes=notes)


def mmpose(contents: Mapping, meaning: Meaning, source: str) -> Poses:
    """Predictions of mmpose 1.x: `instance_info`, with the instances of each frame."""
    pictures: dict[Any, list[Seen]] = {}
    for place, frame in enumerate(contents["instance_info"]):
        if not isinstance(frame, Mapping):
            raise PosesError(f"instance_info of {_show(frame)}, expected frames")
        persons = []
        for each in _list(frame.get("instances"), "instances"):
            joints, scores = _array(each, "keypoints"), _array(each, "keypoint_scores")
            if joints.ndim != 2 or scores.shape != joints.shape[:1]:
                raise PosesError(f"keypoints of shape {joints.shape} with scores of shape {scores.shape}")
            track = each.get("track_id")
            persons.append(Seen(joints, scores, track if isinstance(track, int) and track >= 0 else None))
        pictures[_key(frame.get("frame_id", place), "frame_id")] = persons
    return build(_by_picture(pictures), meaning, source)


def mediapipe(contents: Sequence, meaning: Meaning, source: str) -> Poses:
    """MediaPipe's landmarks, as programs store them: 33 of x, y, z, visibility for each frame or each person in it.

    A frame is a list of landmarks or of persons, or a dict with such a list as `landmarks` (or `pose_landmarks`).
    """
    frames = []
    for place, frame in enumerate(contents):
        found = frame
        if isinstance(frame, Mapping):
            key = next((key for key in _LANDMARKS if key in frame), None)
            if key is None:
                raise PosesError(f"frame {place}: {_show(frame)}, expected MediaPipe's landmarks")
            found = frame[key]
        frames.append([] if not found else [_landmarks(person, place) for person in _persons(found)])
    return build(frames, meaning, source, layout="blazepose33")


def _persons(found: Any) -> list:
    """Persons in what a frame holds: one, as a list of landmarks, or a list of persons."""
    if not isinstance(found, list):
        raise PosesError(f"landmarks of {_show(found)}, expected a list")
    first = found[0]
    if isinstance(first, list) and first and isinstance(first[0], Mapping | list):
        return found
    if isinstance(first, Mapping) and any(isinstance(first.get(key), list) for key in ("landmark", *_LANDMARKS)):
        return [next(person[key] for key in ("landmark", *_LANDMARKS) if key in person) for person in found]
    return [found]


def _landmarks(person: Any, frame: int) -> Seen:
    """A person of 33 landmarks, dicts of x, y, z, visibility or lists of these numbers."""
    if not isinstance(person, list) or len(person) != _NUM_LANDMARKS:
        count = f"{len(person)} landmarks" if isinstance(person, list) else _show(person)
        raise PosesError(f"frame {frame}: {count}, expected MediaPipe's {_NUM_LANDMARKS}")
    try:
        if all(isinstance(point, Mapping) for point in person):
            rows = [
                [point["x"], point["y"], point.get("z") or 0.0, point.get("visibility", point.get("score", 1.0))]
                for point in person
            ]
        else:
            rows = [[*point[:3], *(point[3:4] or [1.0])] if len(point) > 2 else [*point, 0.0, 1.0] for point in person]
        values = np.array(rows, np.float64)
        assert values.shape == (_NUM_LANDMARKS, 4)
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise PosesError(f"frame {frame}: a landmark that is not x, y, z and visibility ({error!r})") from error
    return Seen(values[:, :3], values[:, 3])


def _people(contents: Mapping) -> list | None:
    people = contents.get("people", contents.get("bodies"))
    return people if isinstance(people, list) else None


def _openpose_frame(contents: Mapping) -> list[Seen]:
    """The persons in a frame of OpenPose. Raises: PosesError."""
    persons = []
    for person in _people(contents) or []:
        key = next((key for key in _BODY_KEYS if isinstance(person, Mapping) and key in person), None)
        if key is None:
            raise PosesError(f"a person of {_show(person)}, without {_BODY_KEYS[0]}")
        number = person.get("person_id")
        number = number[0] if isinstance(number, list) and number else number
        number = number if isinstance(number, int) and number >= 0 else None
        values = _numbers(person, key)
        if len(values):
            persons.append(_triples(values, number))
    return persons


def _triples(values: np.ndarray, person: Any, flags: bool = False) -> Seen:
    """A person of x, y and confidence after x, y and confidence; with `flags`, COCO's 0, 1, 2 in its place."""
    if not len(values) or len(values) % 3:
        raise PosesError(f"{len(values)} numbers for the joints of a person, expected x, y and a confidence for each")
    joints = values.reshape(-1, 3)
    confidence = joints[:, 2]
    if flags and np.isin(confidence, (0, 1, 2)).all():
        confidence = (confidence > 0).astype(float)
    return Seen(joints[:, :2], confidence, person)


def _by_picture(pictures: Mapping[Any, list[Seen]]) -> list[list[Seen]]:
    """Frames in the order of the numbers, or of the last number in the names, of their pictures; gaps are empty."""

    def number(key: Any) -> int | None:
        if _is_whole(key):
            return int(key)
        found = re.findall(r"\d+", pathlib.PurePosixPath(key).stem) if isinstance(key, str) else []
        return int(found[-1]) if found else None

    numbers = {key: number(key) for key in pictures}
    known = [value for value in numbers.values() if value is not None]
    if len(known) < len(pictures) or len(set(known)) < len(known):
        raise PosesError(
            f"pictures {_show(next(iter(pictures)))} and others whose names have no number, or the same number "
            "twice, so that their order is unknown; give the poses of one video"
        )
    low, high = min(known, default=0), max(known, default=0)
    if high - low > 100 * len(known) + 1000:
        raise PosesError(f"{len(known)} pictures numbered from {low} to {high}, which cannot be frames of one video")
    frames: list[list[Seen]] = [[] for _ in range(high - low + 1)]
    for key, persons in pictures.items():
        frames[(numbers[key] or 0) - low] = persons
    return frames


def _gap(missing: int) -> int:
    if missing > 100_000:
        raise PosesError(f"{missing} frames are missing in a row, so that these cannot be numbers of frames")
    return max(0, missing)


def _list(value: Any, key: str) -> list:
    if not isinstance(value, list):
        raise PosesError(f"{key} is {_show(value)}, expected a list")
    return value


def _array(entry: Any, key: str) -> np.ndarray:
    """The numbers under a key, of any shape. Raises: PosesError."""
    value = entry.get(key) if isinstance(entry, Mapping) else None
    try:
        array = np.array([] if value is None else value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise PosesError(f"{key} is {_show(value)}, expected numbers") from error
    if value is None:
        raise PosesError(f"a person without {key}")
    return array


def _numbers(entry: Any, key: str) -> np.ndarray:
    array = _array(entry, key)
    if array.ndim == 2 and array.shape[1] == 3:
        array = array.ravel()
    if array.ndim != 1:
        raise PosesError(f"{key} of shape {array.shape}, expected a row of numbers")
    return array


def _key(value: Any, what: str) -> int | str:
    """A number or name of a picture. Raises: PosesError if it is something else."""
    if not isinstance(value, str) and not _is_whole(value):
        raise PosesError(f"{what} is {_show(value)}, expected a whole number or a name")
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, list(value)[:5]))}" if value else "an empty dict"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return repr(value)[:60]
