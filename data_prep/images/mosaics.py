"""Mosaics of the persons in videos: the work folder that holds them, and making what it lacks, by all cores, in shares.

A clip's mosaic is NAME.jpg in the work folder; where there is none, NAME.set_aside says why. What is there is not made
again, so whoever is killed starts the same command and loses nothing. Persons are found by the clip's skeleton or by a
detector; about.json says by which, where it was a detector.
"""

import dataclasses
import functools
import io
import itertools
import json
import pathlib
from collections.abc import Callable, Collection, Iterator

import numpy as np
from PIL import Image
from tqdm import tqdm

from data_prep.formats import sources
from data_prep.images import detection, kinect_v1, person_crops, videos, yolo
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.runtime.files import clear_disk_errors, make_folder, write_whole

_ABOUT = "about.json"
_BY_SKELETON = {"boxes": "skeleton"}
MARGIN = 0.1  # of the box around joints, which lie inside the body
_GROUP = 8  # clips whose frames a detector sees together


@dataclasses.dataclass(frozen=True)
class Track:
    """Where a skeleton says that the persons of a clip are.

    Attributes:
      num_frames: of the skeleton.
      frame_size: height and width of the pictures that the boxes refer to; a video may have been made smaller.
      box_in: the box in a frame of the skeleton; None where that shows none of the persons.
      frame_by_frame: whether the video has a frame for each of the skeleton's; else, frames at the same share of the
        clip belong together.
    """

    num_frames: int
    frame_size: tuple[int, int]
    box_in: Callable[[int], person_crops.Box | None]
    frame_by_frame: bool


def kinect_v1_track(skeleton: np.ndarray) -> Track:
    """The track of a skeleton [T, V, 3] that a Kinect v1 saw, in metres, in that Kinect's colour video."""
    camera = kinect_v1.COLOUR

    def box_in(frame: int) -> person_crops.Box | None:
        return person_crops.persons_to_box([camera.project(skeleton[frame])], camera.frame_size, MARGIN)

    return Track(len(skeleton), camera.frame_size, box_in, frame_by_frame=False)


@dataclasses.dataclass(frozen=True)
class Footage:
    """What the mosaic of a clip is made of.

    Attributes:
      name: of the clip.
      path: the video.
      find_track: gives the clip's track, or raises SourceFileError; can be sent to another process.
      num_persons: whom the mosaic shows: 1, or 2 in two-person actions.
    """

    name: str
    path: pathlib.Path
    find_track: Callable[[], Track]
    num_persons: int = 1


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """The work folder: NAME.jpg, or NAME.set_aside."""

    path: pathlib.Path

    @property
    def about(self) -> dict:
        """What its boxes come from. Raises: PreparationError where about.json is damaged."""
        path = self.path / _ABOUT
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            return {key: about[key] for key in ("boxes", "weights", "sha256", "confidence", "person_class")}
        except FileNotFoundError:
            return _BY_SKELETON
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PreparationError(f"{path}: damaged ({error!r}); remove the folder {self.path}") from error

    def claim(self, about: dict) -> None:
        """Creates the folder for mosaics whose boxes come from what `about` says.

        Raises: PreparationError where it holds some whose boxes do not.
        """
        make_folder(self.path)
        if not any(self.path.glob("*.jpg")):
            if about == _BY_SKELETON:
                (self.path / _ABOUT).unlink(missing_ok=True)
            else:
                write_whole(self.path / _ABOUT, (json.dumps(about, indent=1) + "\n").encode())
        elif self.about != about:
            raise PreparationError(
                f"{self.path}: holds mosaics by {_describe(self.about)}, now it is {_describe(about)}; choose another "
                "--images, or remove that folder"
            )

    def describe(self, skeleton: str) -> str:
        """What the mosaics are, for the records; `skeleton` says by what of it persons were found, if they were."""
        by = skeleton if self.about == _BY_SKELETON else _describe(self.about)
        return f"five RGB frames, person cropped by {by}"

    def write(self, name: str, jpeg: bytes) -> None:
        write_whole(self.path / f"{name}.jpg", jpeg)
        (self.path / f"{name}.set_aside").unlink(missing_ok=True)

    def set_aside(self, name: str, reason: str) -> None:
        write_whole(self.path / f"{name}.set_aside", reason.encode())

    def done(self) -> set[str]:
        """Names of the clips with a mosaic."""
        return {path.stem for path in self.path.glob("*.jpg")}

    def read(self, name: str) -> bytes:
        """The mosaic of a clip, decoded once to see that it is whole. Raises: SourceFileError."""
        try:
            contents = (self.path / f"{name}.jpg").read_bytes()
        except FileNotFoundError:
            raise sources.SourceFileError(self._reason(name)) from None
        expected = (person_crops.CROP_WIDTH * person_crops.CROPS, person_crops.CROP_HEIGHT)
        try:
            with Image.open(io.BytesIO(contents), formats=["JPEG"]) as picture:
                size = picture.size
                picture.draft("RGB", (size[0] // 8, size[1] // 8))  # an eighth of the size is faster, and fails alike
                picture.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise sources.SourceFileError(f"a broken JPEG ({error}); delete it and run again") from error
        if size != expected:
            raise sources.SourceFileError(f"a mosaic of {size[0]}x{size[1]}, expected {expected[0]}x{expected[1]}")
        return contents

    def _reason(self, name: str) -> str:
        try:
            return (self.path / f"{name}.set_aside").read_text()
        except FileNotFoundError:
            return "no mosaic of this clip"


def by_skeleton(footage: Footage) -> bytes:
    """The mosaic of a clip, as JPEG, its persons found by the skeleton.

    Raises: SourceFileError where skeleton or video cannot be used, or the skeleton is nowhere in the picture.
    """
    track = footage.find_track()
    frames = person_crops.sampled_frames(track.num_frames, track.box_in)
    if frames is None:
        raise sources.SourceFileError("nobody in it: the skeleton is nowhere in the picture")
    ratio = 1 if track.frame_by_frame else videos.num_frames(footage.path) / track.num_frames
    at = {frame: int((frame + 0.5) * ratio) for frame, _ in frames}
    pictures = videos.read_frames(footage.path, at.values())
    shown = [(at[frame], pictures[at[frame]], box) for frame, box in frames]
    return assemble([(frame, picture, _scaled(box, track.frame_size, picture)) for frame, picture, box in shown])


def assemble(moments: list[tuple[int, np.ndarray, person_crops.Box]]) -> bytes:
    """The mosaic of moments, as JPEG: each a frame of the video, its picture, and the box of the persons in it."""
    crops = [person_crops.crop_and_resize(picture, box) for _, picture, box in moments]
    frames, pictures, boxes = zip(*moments, strict=True)
    return person_crops.encode_jpeg(
        person_crops.mosaic(crops), person_crops.Origin(frames, boxes, pictures[0].shape[:2])
    )


def _scaled(box: person_crops.Box, frame_size: tuple[int, int], picture: np.ndarray) -> person_crops.Box:
    """A box in a frame of `frame_size` -> in `picture`, of a video that may have been made smaller."""
    height, width = picture.shape[0] / frame_size[0], picture.shape[1] / frame_size[1]
    left, top = int(box[0] * width), int(box[1] * height)
    return left, top, max(left + 1, round(box[2] * width)), max(top + 1, round(box[3] * height))


def make(
    footages: list[Footage],
    folder: ImageFolder,
    *,
    shard: tuple[int, int] = (0, 1),
    detector: yolo.Settings | None = None,
    workers: int | None = None,
) -> None:
    """Makes the mosaics that `folder` lacks of the `shard[0]`-th of `shard[1]` shares.

    Args:
      footages: of all clips, whatever the shard, sorted.
      folder: the work folder.
      shard: (i, n), i from 0.
      detector: what finds the persons; None: the skeletons.
      workers: processes (with a detector threads); by default one for each core.

    Raises: PreparationError.
    """
    workers = workers or sources.usable_cores()
    number, shards = shard
    size = 1 if detector is None else _GROUP
    groups = [footages[start : start + size] for start in range(0, len(footages), size)][number::shards]
    with clear_disk_errors(folder.path):
        folder.claim(_BY_SKELETON if detector is None else detector.about)
        done = folder.done()
        share = list(itertools.chain(*groups))
        missing = {footage.name for footage in share} - done
        if len(missing) < len(share):
            there = len(share) - len(missing)
            print(f"{folder.path}: {there} of {len(share)} mosaics are there, {len(missing)} to make")
        groups = [group for group in groups if missing.intersection(footage.name for footage in group)]
        if detector is None:
            results = sources.map_in_order(_make_one, ((footage, folder) for (footage,) in groups), workers)
        else:
            results = _make_detected(groups, missing, folder, detector, workers)
        made = sum(tqdm(results, total=len(missing), unit="clip", desc="mosaics"))
    print(f"{folder.path}: {made} mosaics made, {len(missing) - made} set aside (NAME.set_aside says why)")


def _make_one(task: tuple[Footage, ImageFolder]) -> bool:
    """As `_keep`, of a clip whose persons its skeleton finds."""
    footage, folder = task
    return _keep(footage, folder, functools.partial(by_skeleton, footage))


def _make_detected(
    groups: list[list[Footage]], missing: set[str], folder: ImageFolder, settings: yolo.Settings, workers: int
) -> Iterator[bool]:
    """As `_keep`, of each clip in `missing`; the others of its group are there to make batches equal."""
    if not groups:
        return
    detector = yolo.Detector(settings)
    clips = [[(footage.path, footage.num_persons) for footage in group] for group in groups]
    found = detection.find_persons(clips, detector, settings.batch_size, workers)
    for group, searches in zip(groups, found, strict=True):
        for footage, search in zip(group, searches, strict=True):
            if footage.name in missing:
                yield _keep(footage, folder, lambda search=search: assemble(search.moments()))


def _keep(footage: Footage, folder: ImageFolder, mosaic: Callable[[], bytes]) -> bool:
    """Stores a clip's mosaic, or why there is none; whether there is one now."""
    try:
        jpeg = mosaic()
    except sources.SourceFileError as error:
        folder.set_aside(footage.name, f"{footage.path.name}: {error}")
        return False
    folder.write(footage.name, jpeg)
    return True


def match(names: Collection[str], found: dict[str, pathlib.Path], root: pathlib.Path, example: str) -> list[str]:
    """Names, sorted, of the clips whose videos were found beneath `root`; says how many.

    Raises: PreparationError where there is none; `example` is how a video's name looks.
    """
    if not root.is_dir():
        raise PreparationError(f"{root}: no such folder; give --videos the folder of the videos")
    common = sorted(found.keys() & set(names))
    if not common:
        raise PreparationError(
            f"{root}: no video of any of the {len(names)} clips, expected {example} and the like; give --videos the "
            "folder of the videos"
        )
    print(f"{root}: videos of {len(common)} of {len(names)} clips")
    return common


def with_mosaic(clip: records.Clip, folder: ImageFolder | None) -> list[records.Clip | records.SetAside]:
    """The clip with its mosaic, if there is a folder; a clip without one is kept, and it is said why."""
    if folder is None:
        return [clip]
    try:
        clip.image = folder.read(clip.name)
    except sources.SourceFileError as error:
        return [clip, records.SetAside(f"{clip.name}.jpg", f"{error}; the clip is kept, without an image")]
    return [clip]


def _describe(about: dict) -> str:
    """A part of a sentence for what an about.json says."""
    if about == _BY_SKELETON:
        return "the skeleton"
    weights = f"{about['weights']}, sha256 {about['sha256'][:8]}"
    return f"YOLO ({weights}, class {about['person_class']}, confidence {about['confidence']})"
