"""Gets BlazePose's model files for videos and cameras: python -m mmcl_jax.poses.download [lite|full|heavy ...]

    python -m mmcl_jax.poses.download                    detector and `full`, out of mediapipe's wheel
    python -m mmcl_jax.poses.download lite heavy         these too, out of the npm package @mediapipe/pose
    python -m mmcl_jax.poses.download --archive=FILE     out of a wheel or npm package that you downloaded yourself

The packages are downloaded with pip and npm as they are configured, never installed. Every file's SHA-256 is checked.
The files go to ~/.cache/mmcl_jax/pose_models; the environment variable MMCL_POSE_MODELS or --folder names another
folder.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

from mmcl_jax.poses import model_files
from mmcl_jax.poses.types import PosesError
from mmcl_jax.runtime.errors import plain_errors

_WHEEL_OF = ["--python-version=3.11", "--implementation=cp", "--abi=cp311", "--platform=manylinux_2_28_x86_64"]
_REGISTRY_VARIABLES = ("npm_config_registry", "NPM_CONFIG_REGISTRY")
_LARGEST_PACKAGE = 200_000_000  # bytes


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    options = _parser().parse_args(arguments)
    with plain_errors("interrupted; complete files were kept"):
        models = (model_files.DETECTOR, *(options.models or ("full",)))
        folder = options.folder or model_files.cache_folder()
        for path in fetch(models, folder, options.archive):
            print(path)
        print(f"{', '.join(models)}: ready in {folder}")


def fetch(models: tuple[str, ...], folder: pathlib.Path, archive: pathlib.Path | None = None) -> list[pathlib.Path]:
    """Stores the model files that `folder` lacks; returns them.

    Args:
      models: keys of `model_files.FILES`.
      folder: created if necessary.
      archive: the wheel or npm package; None: they are downloaded.

    Raises: PosesError, OSError.
    """
    stored: list[pathlib.Path] = []

    def missing() -> tuple[str, ...]:
        files = {model: model_files.FILES[model] for model in models}
        return tuple(model for model, file in files.items() if not model_files.is_complete(file, folder / file.name))

    if archive is not None and missing():
        stored += model_files.take_out(archive, missing(), folder)
    elif missing():
        with tempfile.TemporaryDirectory(prefix="pose_models") as scratch:
            if any(model_files.FILES[model].wheel for model in missing()):
                stored += model_files.take_out(_download_wheel(pathlib.Path(scratch)), missing(), folder)
            if missing():
                stored += model_files.take_out(_download_npm(pathlib.Path(scratch)), missing(), folder)
    if missing():
        raise PosesError(
            f"{archive or 'the packages'}: no model {', '.join(missing())} in it; detector and full are in pip's "
            f"{model_files.WHEEL}, lite, full and heavy in npm's {model_files.NPM_PACKAGE}"
        )
    return stored


def _download_wheel(folder: pathlib.Path) -> pathlib.Path:
    """Downloads mediapipe's wheel with pip, for any Python and machine. Raises: PosesError."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *_WHEEL_OF]
    _run([*command, f"--dest={folder}", model_files.WHEEL], "pip", model_files.WHEEL)
    return _only(folder, "*.whl")


def _download_npm(folder: pathlib.Path) -> pathlib.Path:
    """Downloads the npm package with npm or, without npm, from the registry that its variable names.

    Raises: PosesError.
    """
    if shutil.which("npm"):
        command = ["npm", "pack", "--ignore-scripts", "--silent", f"--pack-destination={folder}"]
        _run([*command, model_files.NPM_PACKAGE], "npm", model_files.NPM_PACKAGE)
        return _only(folder, "*.tgz")
    registry = next((os.environ[name] for name in _REGISTRY_VARIABLES if os.environ.get(name)), None)
    if registry is None:
        raise PosesError(
            f"the models lite and heavy are in the npm package {model_files.NPM_PACKAGE}: install npm, set "
            f"npm_config_registry to the address of a registry, or download it and give --archive=FILE"
        )
    name, version = model_files.NPM_PACKAGE.rsplit("@", 1)
    address = f"{registry.rstrip('/')}/{name}/-/{name.split('/')[-1]}-{version}.tgz"
    path = folder / "package.tgz"
    try:
        with urllib.request.urlopen(address, timeout=60) as answer, path.open("wb") as file:
            size = 0
            while block := answer.read(1 << 20):
                size += file.write(block)
                if size > _LARGEST_PACKAGE:
                    raise PosesError(f"{address}: more than {_LARGEST_PACKAGE:,} bytes; not the expected package")
    except (urllib.error.URLError, ValueError, TimeoutError) as error:
        raise PosesError(f"{address}: cannot be downloaded ({error}); download it and give --archive=FILE") from error
    return path


def _run(command: list[str], tool: str, package: str) -> None:
    """Raises: PosesError with the tool's own words if it fails."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = [line for line in ended.stderr.strip().splitlines() if line.strip()]
        raise PosesError(
            f"{tool} could not download {package}: {said[-1] if said else 'it gave no reason'}. Download it elsewhere "
            "and give --archive=FILE"
        )


def _only(folder: pathlib.Path, pattern: str) -> pathlib.Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise PosesError(f"{len(found)} files {pattern} were downloaded, expected one")
    return found[0]


def _model(text: str) -> str:
    if text not in model_files.MODELS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(model_files.MODELS)}")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", type=_model, help="lite, full or heavy; default: full")
    parser.add_argument("--folder", type=pathlib.Path, help="where the files go")
    parser.add_argument("--archive", type=pathlib.Path, help="mediapipe's wheel or the npm package, downloaded before")
    return parser


if __name__ == "__main__":
    main()
