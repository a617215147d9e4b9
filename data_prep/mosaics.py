"""Mosaics of the persons in videos: the work folder that holds them, and making what it lacks, by all cores, in shares.

A clip's mosaic is NAME.jpg in the work folder; where there is none, NAME.set_aside says why. What is there is not made
again, so whoever is killed starts the same command and loses nothing.
"""

import dataclasses
import io
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image
from tqdm import tqdm

from data_prep import builders, person_crops, sources, videos


@dataclasses.dataclass(frozen=True)
class Track:
    """Where a skeleton says that the persons of a clip are.

    Attributes:
      num_frames: of the skeleton.
      frame_size: height and width of the pictures that the boxes refer to; a video may have been made smaller.
      box_in: the box in a frame of the skeleton; None where that shows none of the persons.
    """

    num_frames: int
    frame_size: tuple[int, int]
    box_in: Callable[[int], person_crops.Box | None]


@dataclasses.dataclass(frozen=True)
class Footage:
    """What the mosaic of a clip is made of.

    Attributes:
      name: of the clip.
      path: the video.
      find_track: gives the clip's track, or raises SourceFileError; can be sent to another process.
    """

    name: str
    path: pathlib.Path
    find_track: Callable[[], Track]


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """The work folder: NAME.jpg, or NAME.set_aside."""

    path: pathlib.Path

    def write(self, name: str, jpeg: bytes) -> None:
        builders.write_whole(self.path / f"{name}.jpg", jpeg)
        (self.path / f"{name}.set_aside").unlink(missing_ok=True)

    def set_aside(self, name: str, reason: str) -> None:
        builders.write_whole(self.path / f"{name}.set_aside", reason.encode())

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
    pictures = videos.read_frames(footage.path, [frame for frame, _ in frames])
    return assemble([(pictures[frame], _scaled(box, track.frame_size, pictures[frame])) for frame, box in frames])


def assemble(moments: list[tuple[np.ndarray, person_crops.Box]]) -> bytes:
    """The mosaic of pictures, each with the box of the persons in it, as JPEG."""
    crops = [person_crops.crop_and_resize(picture, box) for picture, box in moments]
    return person_crops.encode_jpeg(person_crops.mosaic(crops))


def _scaled(box: person_crops.Box, frame_size: tuple[int, int], picture: np.ndarray) -> person_crops.Box:
    """A box in a frame of `frame_size` -> in `picture`, of a video that may have been made smaller."""
    height, width = picture.shape[0] / frame_size[0], picture.shape[1] / frame_size[1]
    left, top = int(box[0] * width), int(box[1] * height)
    return left, top, max(left + 1, round(box[2] * width)), max(top + 1, round(box[3] * height))


def make(
    footages: list[Footage], folder: ImageFolder, shard: tuple[int, int] = (0, 1), workers: int | None = None
) -> None:
    """Makes the mosaics that `folder` lacks of the `shard[0]`-th of `shard[1]` shares. Raises: PreparationError."""
    number, shards = shard
    share = footages[number::shards]
    with builders.clear_disk_errors(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
        done = folder.done()
        tasks = [(footage, folder) for footage in share if footage.name not in done]
        if len(tasks) < len(share):
            print(f"{folder.path}: {len(share) - len(tasks)} of {len(share)} mosaics are there, {len(tasks)} to make")
        results = sources.map_in_order(_make_one, tasks, workers or sources.usable_cores())
        made = sum(tqdm(results, total=len(tasks), unit="clip", desc="mosaics"))
    print(f"{folder.path}: {made} mosaics made, {len(tasks) - made} set aside (NAME.set_aside says why)")


def _make_one(task: tuple[Footage, ImageFolder]) -> bool:
    """Makes a mosaic, or writes down why not; whether there is one now."""
    footage, folder = task
    try:
        jpeg = by_skeleton(footage)
    except sources.SourceFileError as error:
        folder.set_aside(footage.name, f"{footage.path.name}: {error}")
        return False
    folder.write(footage.name, jpeg)
    return True


def match(names: list[str], found: dict[str, pathlib.Path], root: pathlib.Path, example: str) -> list[str]:
    """Names, sorted, of the clips whose videos were found beneath `root`; says how many.

    Raises: PreparationError where there is none; `example` is how a video's name looks.
    """
    if not root.is_dir():
        raise builders.PreparationError(f"{root}: no such folder; give --videos the folder of the videos")
    common = sorted(found.keys() & set(names))
    if not common:
        raise builders.PreparationError(
            f"{root}: no video of any of the {len(names)} clips, expected {example} and the like; give --videos the "
            "folder of the videos"
        )
    print(f"{root}: videos of {len(common)} of {len(names)} clips")
    return common
