"""Runs an exported StableHLO model with only JAX: no weights, models or records of this package are read.

model = mmcl_jax.load_exported("nw_ucla_stablehlo")
probabilities = model.probabilities(skeleton, frames)
"""

import hashlib
import pathlib
from typing import Any

import jax
import numpy as np
from jax import export

from mmcl_jax.runtime.backend import gpu_compiler_options
from mmcl_jax.runtime.errors import MMCLError
from mmcl_jax.runtime.files import check_regular, read_json

MANIFEST = "model.json"
FORMAT = "mmcl_jax exported model 1"
STABLEHLO = "model.stablehlo"


class ExportError(MMCLError, ValueError):
    """A model that cannot be exported so, an exported one that cannot be read, or clips that do not fit one."""


class ExportedModel:
    """A model that `python -m mmcl_jax.export MODEL OUT --format=stablehlo` wrote. Threads may share it.

    Attributes:
      manifest: the contents of its `model.json`.
    """

    def __init__(self, exported: export.Exported, manifest: dict[str, Any]):
        self.manifest = manifest
        self._raw = bool(manifest["transform_inside"])
        self._shape = tuple(manifest["inputs"][0]["shape"])
        self._run = jax.jit(exported.call, compiler_options=gpu_compiler_options())

    @property
    def class_names(self) -> tuple[str, ...]:
        """K names, by label."""
        return tuple(self.manifest["class_names"])

    def probabilities(self, skeleton: np.ndarray, frames: np.ndarray | None = None) -> np.ndarray:
        """The probabilities of every class, float32 `[N, K]`.

        Each shape of `skeleton` is compiled once: pad the clips of an application to a few lengths.

        Args:
          skeleton: raw clips `[N, T, M, V, C]`, zeros beyond a clip's end and for absent bodies. With `--features`,
            transformed clips `[N, M, window, V, C]`.
          frames: int `[N]`, how many frames each raw clip has; None: T.

        Raises: ExportError if the shapes are not those of the manifest.
        """
        skeleton = np.asarray(skeleton, np.float32)
        pairs = list(zip(skeleton.shape, self._shape, strict=False))
        fits = all(isinstance(wanted, str) or size == wanted for size, wanted in pairs)
        if skeleton.ndim != 5 or 0 in skeleton.shape or not fits:
            raise ExportError(f"skeleton of shape {list(skeleton.shape)}, expected {list(self._shape)}")
        if not self._raw:
            if frames is not None:
                raise ExportError(
                    "this model takes transformed clips, which all have the window's length; leave out frames"
                )
            return np.asarray(self._run(skeleton))
        most = skeleton.shape[1]
        frames = np.full(len(skeleton), most) if frames is None else np.asarray(frames)
        if frames.shape != skeleton.shape[:1] or frames.dtype.kind not in "iu":
            raise ExportError(f"frames {frames.tolist()}, expected a whole number for each of {len(skeleton)} clips")
        if frames.min() < 1 or frames.max() > most:
            raise ExportError(f"frames {frames.tolist()}, expected 1 to {most} for clips of T = {most}")
        return np.asarray(self._run(skeleton, frames.astype(np.int32)))


def load_exported(path: str | pathlib.Path) -> ExportedModel:
    """Loads a model that was exported with `--format=stablehlo`.

    Args:
      path: the folder, or the `model.stablehlo` in it; `model.json` is beside it.

    Raises: ExportError if a file is missing, damaged or not what `model.json` describes.
    """
    path = pathlib.Path(path)
    folder = path if path.is_dir() else path.parent
    manifest = _read_manifest(folder / MANIFEST)
    file = path if path.is_file() else folder / str(manifest["file"])
    if manifest["file"] != STABLEHLO:
        raise ExportError(f"{folder}: holds {manifest['file']}; run it with ONNX Runtime, or export --format=stablehlo")
    try:
        check_regular(file)
        contents = file.read_bytes()
    except (OSError, ValueError) as error:
        raise ExportError(f"{file}: cannot be read ({error}); export the model again") from error
    if hashlib.sha256(contents).hexdigest() != manifest["sha256"]:
        raise ExportError(f"{file}: not what was written, its SHA-256 differs; export the model again")
    try:
        exported = export.deserialize(bytearray(contents))
    except Exception as error:  # of a version that this JAX does not read
        raise ExportError(f"{file}: JAX {jax.__version__} cannot read it ({error}); export the model again") from error
    promised = [tuple(one["shape"]) for one in manifest["inputs"]], len(manifest["class_names"])
    found = [tuple(_size(size) for size in one.shape) for one in exported.in_avals], exported.out_avals[0].shape[-1]
    if promised != found or bool(manifest["transform_inside"]) != (len(found[0]) == 2):
        raise ExportError(
            f"{folder / MANIFEST}: describes another program, of inputs {promised[0]} and {promised[1]} classes, than "
            f"{file.name}, of {found[0]} and {found[1]}; export the model again"
        )
    return ExportedModel(exported, manifest)


def _size(size: Any) -> int | str:
    """A dimension as a manifest writes it: a number or a name."""
    return size if isinstance(size, int) else str(size)


def _read_manifest(path: pathlib.Path) -> dict[str, Any]:
    try:
        manifest = read_json(path)
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: unreadable ({error}); give the folder that the export wrote") from error
    seen = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
    if seen != FORMAT:
        raise ExportError(f"{path}: format {seen!r}, expected {FORMAT!r}; export the model with this version")
    missing = {"file", "sha256", "class_names", "inputs", "transform_inside"} - manifest.keys()
    if missing:
        raise ExportError(f"{path}: {', '.join(sorted(missing))} missing; export the model again")
    names, inputs = manifest["class_names"], manifest["inputs"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ExportError(f"{path}: class_names is no list of names; export the model again")
    if not isinstance(inputs, list) or not all(_is_input(one) for one in inputs):
        raise ExportError(f"{path}: inputs is no list of shapes; export the model again")
    return manifest


def _is_input(described: Any) -> bool:
    shape = described.get("shape") if isinstance(described, dict) else None
    return isinstance(shape, list) and all(isinstance(size, int | str) for size in shape)
