"""Where BlazePose's model files are, what they must be, and taking them out of the packages that contain them.

The files are Google's, under the Apache License 2.0. They stay outside the repository, in a cache folder of the user.
"""

import dataclasses
import hashlib
import os
import pathlib
import tarfile
import zipfile
import zlib

from mmcl_jax.poses.types import PosesError
from mmcl_jax.runtime.files import user_cache, write_whole

FOLDER_VARIABLE = "MMCL_POSE_MODELS"
DETECTOR = "detector"
MODELS = ("lite", "full", "heavy")
WHEEL = "mediapipe==0.10.21"  # later wheels hold no models
NPM_PACKAGE = "@mediapipe/pose@0.5.1675469404"
DOWNLOAD = "python -m mmcl_jax.poses.download"


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """A file of BlazePose.

    Attributes:
      name: in the cache folder.
      size: in bytes.
      sha256: of its contents.
      wheel, npm: its name in the wheel and in the npm package; None: not in it.
    """

    name: str
    size: int
    sha256: str
    wheel: str | None
    npm: str | None


FILES = {
    DETECTOR: ModelFile(
        "pose_detection.tflite",
        2_959_046,
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
        "mediapipe/modules/pose_detection/pose_detection.tflite",
        None,
    ),
    "lite": ModelFile(
        "pose_landmark_lite.tflite",
        2_819_824,
        "f17bfbecadb61c3be1baa8b8d851cc6619c870a87167b32848ad20db306b9d61",
        None,
        "package/pose_landmark_lite.tflite",
    ),
    "full": ModelFile(
        "pose_landmark_full.tflite",
        6_440_512,
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
        "package/pose_landmark_full.tflite",
    ),
    "heavy": ModelFile(
        "pose_landmark_heavy.tflite",
        27_709_200,
        "59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe",
        None,
        "package/pose_landmark_heavy.tflite",
    ),
}


def cache_folder() -> pathlib.Path:
    """The folder of the model files: `MMCL_POSE_MODELS`, or `mmcl_jax/pose_models` in the user's cache folder."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return pathlib.Path(named).expanduser()
    return user_cache("pose_models")


def is_complete(file: ModelFile, path: pathlib.Path) -> bool:
    """Whether `path` holds `file`."""
    return path.is_file() and path.stat().st_size == file.size and _digest(path.read_bytes()) == file.sha256


def find(model: str | os.PathLike, folder: pathlib.Path | None = None) -> pathlib.Path:
    """The path of a model file.

    Args:
      model: DETECTOR, one of MODELS, or the path of a landmark model of one's own.
      folder: where the files are; None: `cache_folder()`.

    Raises: PosesError, saying how to get the file, if it is missing or has other contents.
    """
    if str(model) not in FILES:
        path = pathlib.Path(model)
        if not path.is_file():
            raise PosesError(f"--pose_model={model}: not one of {', '.join(MODELS)}, and no such file")
        return path
    file = FILES[str(model)]
    path = (folder or cache_folder()) / file.name
    command = DOWNLOAD if str(model) in (DETECTOR, "full") else f"{DOWNLOAD} {model}"
    if not path.is_file():
        raise PosesError(
            f"{path}: BlazePose's model file is missing; run `make setup-video` or `{command}`, which take it out of "
            f"the package {_package(file)}"
        )
    if not is_complete(file, path):
        raise PosesError(f"{path}: damaged, not the file that was stored; remove it and run `{command}`")
    return path


def take_out(archive: pathlib.Path, models: tuple[str, ...], folder: pathlib.Path) -> list[pathlib.Path]:
    """Stores the files of `models` that are in `archive`, which is mediapipe's wheel or the npm package.

    Only members of the expected name, size and SHA-256 are read; nothing else is unpacked and nothing is run.

    Returns: the stored files.
    Raises: PosesError if the archive is damaged, or a member of it is not the expected file.
    """
    stored = []
    for model in models:
        file = FILES[model]
        try:
            contents = _member(archive, file)
        except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, RuntimeError) as error:
            reason = str(error).splitlines()[0].rstrip(":- ") if str(error) else type(error).__name__
            raise PosesError(f"{archive}: damaged or no archive ({reason}); download it again") from error
        if contents is None:
            continue
        if len(contents) != file.size or _digest(contents) != file.sha256:
            raise PosesError(f"{archive}: its {file.name} is not the expected file (SHA-256 differs); not stored")
        write_whole(folder / file.name, contents)
        stored.append(folder / file.name)
    return stored


def _member(archive: pathlib.Path, file: ModelFile) -> bytes | None:
    """The bytes of `file` in `archive`, at most one more than expected; None if it has no such member."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            if file.wheel is None or file.wheel not in opened.namelist():
                return None
            with opened.open(file.wheel) as member:
                return member.read(file.size + 1)
    with tarfile.open(archive, "r:*") as opened:
        for entry in opened if file.npm else ():
            if entry.name == file.npm and entry.isfile():
                member = opened.extractfile(entry)
                return None if member is None else member.read(file.size + 1)
    return None


def _package(file: ModelFile) -> str:
    return f"{WHEEL} (pip)" if file.wheel else f"{NPM_PACKAGE} (npm)"


def _digest(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()
