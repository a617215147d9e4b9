"""Makes mosaics of the persons in videos and keeps them in a work folder, with all cores, in shares.

A clip's mosaic is NAME.jpg in the work folder; if it could not be made, NAME.set_aside says why. Existing mosaics are
not made again, so after an interruption the same command continues without loss. The clip's skeleton or a detector
locates the persons; for a detector, about.json says which.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import json
import pathlib
from collections.abc import Callable, Collection, Iterator

import numpy as np
from PIL import Image

from data_prep.formats import sources, worker_processes
from data_prep.images import detection, kinect_v1, person_crops, videos, yolo
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.runtime.files import (
    check_regular,
    clear_disk_errors,
    make_folder,
    read_json,
    read_text,
    write_whole,
)
from mmcl_jax.runtime.progress import progress_bar
from mmcl_jax.runtime.words import counted

_ABOUT = "about.json"
# What stands in it, of which types.
_ABOUT_VALUES = {"boxes": str, "weights": str, "sha256": str, "confidence": (int, float), "person_class": str}
_BY_SKELETON = {"boxes": "skeleton"}
MARGIN = 0.1  # of the box around the joints, which are inside the body
_GROUP = 8  # clips whose frames a detector sees together


@dataclasses.dataclass(frozen=True)
class Track:
    """Where a skeleton says that the persons of a clip are.

    Attributes:
      num_frames: number of frames of the skeleton.
      frame_size: height and width of the pictures that the boxes refer to; the video may have been scaled down.
      box_in: the box in a frame of the skeleton; None if that frame has none of the persons.
      frame_by_frame: whether the video has one frame per frame of the skeleton; otherwise, frames at the same fraction
        of the clip belong together.
    """

    num_frames: int
    frame_size: tuple[int, int]
    box_in: Callable[[int], person_crops.Box | None]
    frame_by_frame: bool


def kinect_v1_track(skeleton: np.ndarray) -> Track:
    """The track in the color video of a Kinect v1 of a skeleton [T, V, 3], in meters, that the same Kinect tracked."""
    camera = kinect_v1.COLOR

    def box_in(frame: int) -> person_crops.Box | None:
        return person_crops.persons_to_box([camera.project(skeleton[frame])], camera.frame_size, MARGIN)

    return Track(len(skeleton), camera.frame_size, box_in, frame_by_frame=False)


@dataclasses.dataclass(frozen=True)
class Footage:
    """The sources of a clip's mosaic.

    Attributes:
      name: name of the clip.
      path: the video.
      find_track: returns the clip's track or raises SourceFileError; can be sent to another process.
      num_persons: number of persons in the mosaic: 1, or 2 in two-person actions.
    """

    name: str
    path: pathlib.Path
    find_track: Callable[[], Track]
    num_persons: int = 1


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """The work folder: NAME.jpg or NAME.set_aside per clip."""

    path: pathlib.Path

    @property
    def about(self) -> dict:
        """Where the boxes of its mosaics come from. Raises: PreparationError if about.json is damaged."""
        path = self.path / _ABOUT
        try:
            about = read_json(path)
            for key, kinds in _ABOUT_VALUES.items():
                if not isinstance(about[key], kinds) or isinstance(about[key], bool):
                    raise ValueError(f"{key} is {str(about[key])[:40]!r}")
            return {key: about[key] for key in _ABOUT_VALUES}
        except FileNotFoundError:
            return _BY_SKELETON
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PreparationError(f"{path}: damaged ({error!r}); remove the folder {self.path}") from error

    def claim(self, about: dict) -> None:
        """Creates the folder for mosaics whose boxes come from what `about` says.

        Raises: PreparationError if it holds mosaics with boxes of another origin.
        """
        make_folder(self.path)
        if not any(self.path.glob("*.jpg")):
            if about == _BY_SKELETON:
                (self.path / _ABOUT).unlink(missing_ok=True)
            else:
                write_whole(self.path / _ABOUT, json.dumps(about, indent=1) + "\n")
        elif self.about != about:
            raise PreparationError(
                f"{self.path}: holds mosaics with boxes by {_describe(self.about)}, not by {_describe(about)}; choose "
                "another --images, or remove that folder"
            )

    def describe(self, skeleton: str) -> str:
        """What records say about the mosaics; `skeleton` names the coordinates by which a skeleton found persons."""
        by = skeleton if self.about == _BY_SKELETON else _describe(self.about)
        return f"five RGB frames, person cropped by {by}"

    def write(self, name: str, jpeg: bytes) -> None:
        write_whole(self.path / f"{name}.jpg", jpeg)
        (self.path / f"{name}.set_aside").unlink(missing_ok=True)

    def set_aside(self, name: str, reason: str) -> None:
        write_whole(self.path / f"{name}.set_aside", reason)

    def done(self) -> set[str]:
        """Names of the clips that have a mosaic."""
        return {path.stem for path in self.path.glob("*.jpg")}

    def read(self, name: str) -> bytes:
        """Reads the mosaic of a clip, and decodes it to check that it is complete. Raises: SourceFileError."""
        try:
            check_regular(self.path / f"{name}.jpg")
            contents = (self.path / f"{name}.jpg").read_bytes()
        except FileNotFoundError:
            raise sources.SourceFileError(self._reason(name)) from None
        except (OSError, ValueError) as error:
            raise sources.SourceFileError(f"cannot be read ({error})") from error
        expected = (person_crops.CROP_WIDTH * person_crops.CROPS, person_crops.CROP_HEIGHT)
        try:
            with Image.open(io.BytesIO(contents), formats=["JPEG"]) as picture:
                size = picture.size
                picture.draft(
                    "RGB", (size[0] // 8, size[1] // 8)
                )  # decoding at an eighth of the size is faster and finds the same damage
                picture.load()
        except Exception as error:  # Pillow raises anything from SyntaxError to struct.error on a damaged file
            raise sources.SourceFileError(f"a broken JPEG ({error}); delete it and run again") from error
        if size != expected:
            raise sources.SourceFileError(f"a mosaic of {size[0]}x{size[1]}, expected {expected[0]}x{expected[1]}")
        return contents

    def _reason(self, name: str) -> str:
        try:
            return read_text(self.path / f"{name}.set_aside")
        except (OSError, ValueError):
            return "no mosaic of this clip"


def by_skeleton(footage: Footage) -> bytes:
    """Makes the mosaic of a clip whose persons the skeleton locates: a JPEG.

    Raises: SourceFileError if the skeleton or the video cannot be used, or the skeleton is outside the picture.
    """
    try:
        track = footage.find_track()
    except sources.SourceFileError as error:
        raise sources.SourceFileError(f"its skeleton cannot be used ({error})") from error
    frames = person_crops.sampled_frames(track.num_frames, track.box_in)
    if frames is None:
        raise sources.SourceFileError("nobody in it: the skeleton is nowhere in the picture")
    ratio = 1 if track.frame_by_frame else videos.num_frames(footage.path) / track.num_frames
    at = {frame: int((frame + 0.5) * ratio) for frame, _ in frames}
    pictures = videos.read_frames(footage.path, at.values())
    shown = [(at[frame], pictures[at[frame]], box) for frame, box in frames]
    return assemble([(frame, picture, _scaled(box, track.frame_size, picture)) for frame, picture, box in shown])


def assemble(moments: list[tuple[int, np.ndarray, person_crops.Box]]) -> bytes:
    """Makes a mosaic, as JPEG, of moments: frame of the video, picture, and box of the persons in it."""
    crops = [person_crops.crop_and_resize(picture, box) for _, picture, box in moments]
    frames, pictures, boxes = zip(*moments, strict=True)
    return person_crops.encode_jpeg(
        person_crops.mosaic(crops), person_crops.Origin(frames, boxes, pictures[0].shape[:2])
    )


def _scaled(box: person_crops.Box, frame_size: tuple[int, int], picture: np.ndarray) -> person_crops.Box:
    """Scales a box in a frame of `frame_size` to `picture`, whose video may have been scaled down."""
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
    """Makes the mosaics that `folder` lacks in the `shard[0]`-th of `shard[1]` shares.

    Args:
      footages: footage of all clips, for every shard the same, sorted.
      folder: the work folder.
      shard: (i, n), with i from 0.
      detector: settings of the detector that finds the persons; None: the skeletons locate them.
      workers: number of processes (with a detector, threads); by default one per core.

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
            present = len(share) - len(missing)
            print(f"{folder.path}: {present} of {counted(len(share), 'mosaic')} present, {len(missing)} to make")
        groups = [group for group in groups if missing.intersection(footage.name for footage in group)]
        if detector is None:
            results = worker_processes.map_in_order(_make_one, ((footage, folder) for (footage,) in groups), workers)
        else:
            results = _make_detected(groups, missing, folder, detector, workers)
        with contextlib.closing(results):
            made = sum(progress_bar(results, total=len(missing), unit="clip", desc="mosaics"))
    print(f"{folder.path}: {counted(made, 'mosaic')} made, {len(missing) - made} set aside (NAME.set_aside says why)")


def _make_one(task: tuple[Footage, ImageFolder]) -> bool:
    """Stores the mosaic of a clip whose skeleton locates the persons; see `_keep`."""
    footage, folder = task
    return _keep(footage, folder, functools.partial(by_skeleton, footage))


def _make_detected(
    groups: list[list[Footage]], missing: set[str], folder: ImageFolder, settings: yolo.Settings, workers: int
) -> Iterator[bool]:
    """Stores the mosaic of each clip in `missing` (see `_keep`). The other clips keep the batches the same."""
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
    """Stores a clip's mosaic, or why it could not be made; returns whether it was made."""
    try:
        jpeg = mosaic()
    except sources.SourceFileError as error:
        folder.set_aside(footage.name, f"{footage.path.name}: {error}")
        return False
    folder.write(footage.name, jpeg)
    return True


def match(names: Collection[str], found: dict[str, pathlib.Path], root: pathlib.Path, example: str) -> list[str]:
    """Names, sorted, of the clips whose videos were found beneath `root`; prints their number.

    Raises: PreparationError if there are none; `example` shows what a video's name looks like.
    """
    if not root.is_dir():
        raise PreparationError(f"{root}: no such folder; set --videos to the folder of the videos")
    common = sorted(found.keys() & set(names))
    if not common:
        raise PreparationError(
            f"{root}: no video of any of the {counted(len(names), 'clip')}; expected names such as {example}. Set "
            "--videos to the folder of the videos"
        )
    print(f"{root}: videos of {len(common)} of {counted(len(names), 'clip')}")
    return common


def with_mosaic(
    clip: records.Clip, folder: ImageFolder | None, name: str | None = None
) -> list[records.Clip | records.SetAside]:
    """The clip with its mosaic, if there is a folder. A clip without a mosaic is kept, and the reason is set aside.

    `name` of the clip in the folder; None: its own.
    """
    if folder is None:
        return [clip]
    try:
        clip.image = folder.read(clip.name if name is None else name)
    except sources.SourceFileError as error:
        return [clip, records.SetAside(f"{clip.name}.jpg", f"{error}; the clip is kept, without an image", True)]
    return [clip]


def describe_images(folder: ImageFolder | None, skeleton: str) -> str | None:
    """What the records say about images from `folder`; None if there are none.

    `skeleton` names the coordinates by which the skeleton found the persons.
    """
    return folder.describe(skeleton) if folder is not None and folder.done() else None


def _describe(about: dict) -> str:
    """The part of a sentence that says what an about.json means."""
    if about == _BY_SKELETON:
        return "the skeleton"
    weights = f"{about['weights']}, sha256 {about['sha256'][:8]}"
    return f"YOLO ({weights}, class {about['person_class']}, confidence {about['confidence']})"
