"""Reads PyTorch state dicts from files as numpy arrays, and runs nothing that is in them."""

import pathlib
import pickle
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from absl import logging

from mmcl_jax.pytorch.state_dicts import TorchWeightsError
from mmcl_jax.runtime.arrays import read_arrays
from mmcl_jax.runtime.files import check_regular

_LARGEST = 1 << 35  # bytes of a file of weights


def read_state_dict(path: pathlib.Path, note: Callable[[str], None] = logging.info) -> dict[str, np.ndarray]:
    """Reads a PyTorch state dict as arrays from an `.npz`, or from what `torch.save` wrote (which needs torch).

    No code from the file runs: pickles are refused (`allow_pickle=False`, `weights_only=True`).

    Args:
      path: the file; any suffix but `.npz` is read as PyTorch's. The state dict may be nested in other dicts
        ('state_dict', 'model', ...), as long as it is the only dict of tensors in the file.
      note: called with what was done to the contents: which dict was taken, which types became float32.

    Returns:
      name -> array; floats of any width are float32.

    Raises:
      TorchWeightsError: the file is missing, unreadable, holds no or several dicts of tensors, or torch is missing.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise TorchWeightsError(f"{path}: no such file; name a PyTorch checkpoint (.pt, .pth) or an .npz of its arrays")
    _check_beginning(path)
    arrays, types = _read_npz(path) if path.suffix == ".npz" else _read_torch(path, note)
    converted = Counter(types[key] for key, value in arrays.items() if str(value.dtype) != types[key])
    for kind, count in converted.items():
        note(f"{path}: {count} of {len(arrays)} tensors were {kind}; converted to float32")
    return arrays


def _read_npz(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        arrays = read_arrays(path, largest=_LARGEST)
        if not arrays:
            raise ValueError("it is empty")
    except (OSError, ValueError) as error:
        is_other = any(text in str(error) for text in ("no array", "empty"))
        raise _unreadable(path, error, "; a file of torch.save is named .pt or .pth" * is_other) from error
    types = {key: str(value.dtype) for key, value in arrays.items()}
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, which `to_flax` refuses
        floats = {k: v.astype(np.float32) for k, v in arrays.items() if np.issubdtype(v.dtype, np.floating)}
    return {**arrays, **floats}, types


def _read_torch(path: pathlib.Path, note: Callable[[str], None]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        import torch
    except ImportError as error:
        raise TorchWeightsError(f"{path}: reading it needs PyTorch; pip install torch, or save it as .npz") from error
    try:
        _check_archive(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
            warnings.simplefilter("ignore")  # about a foreign file; if it matters, an error follows
            stored = torch.load(path, map_location="cpu", weights_only=True)
        found = dict(_dicts_of(torch.Tensor, stored))
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it refers to {refused[1]}" if refused else "its pickle is damaged"
        raise TorchWeightsError(
            f"{path}: holds more than tensors, or is damaged ({reason}); nothing in it was run. Load it where you "
            "trust it and save only the tensors: torch.save(model.state_dict(), FILE)"
        ) from error
    except Exception as error:  # torch and zipfile raise many kinds for other files
        raise _unreadable(path, error) from error
    if len(found) != 1:
        names = f", under {', '.join(map(repr, found))}" if found else ""
        raise TorchWeightsError(
            f"{path}: {len(found)} dicts of tensors{names}, where one is expected. Save only that of the model: "
            "torch.save(model.state_dict(), FILE)"
        )
    ((name, tensors),) = found.items()
    if name:
        note(f"{path}: took the dict of tensors under {name!r}")
    for key, value in tensors.items():
        if value.layout == torch.strided and value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise TorchWeightsError(
                f"{path}: {key} {list(value.shape)} is stored as fewer numbers than it has; save contiguous tensors"
            )
    types = {key: str(value.dtype).removeprefix("torch.") for key, value in tensors.items()}
    try:
        arrays = {k: (v.float() if v.is_floating_point() else v).detach().numpy() for k, v in tensors.items()}
    except (TypeError, RuntimeError) as error:
        raise TorchWeightsError(f"{path}: holds sparse or quantized tensors ({error}); save dense ones") from error
    return arrays, types


def _check_archive(path: pathlib.Path) -> None:
    """Compares the checksums of what `torch.save` wrote; `torch.load` does not. Raises: ValueError."""
    check_regular(path)
    if not zipfile.is_zipfile(path):
        return  # the format of before PyTorch 1.6, which has no checksums
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of its part {damaged} is wrong")


def _harmless() -> list:
    """What the unpickler may call besides what PyTorch lets it: numbers of numpy, and plain attributes."""
    import argparse

    kinds = {type(np.dtype(code)) for code in ("f4", "f8", "i4", "i8", "?")}
    scalar: Any = np.float64(0).__reduce__()[0]
    names = [(scalar, f"numpy.{package}.multiarray.scalar") for package in ("core", "_core")]
    return [*names, np.dtype, *kinds, argparse.Namespace]


def _dicts_of(kind: type, value: Any, name: str = "") -> Iterable[tuple[str, Mapping]]:
    """(dotted name, dict) of every dict of nothing but `kind` that names lead to.

    The state of an optimizer is not one: integers lead to its dicts.
    """
    if not isinstance(value, Mapping) or not value or not all(isinstance(key, str) for key in value):
        return
    if all(isinstance(inner, kind) for inner in value.values()):
        yield name, value
        return
    for key, inner in value.items():
        yield from _dicts_of(kind, inner, f"{name}.{key}" if name else key)


def _unreadable(path: pathlib.Path, error: Exception, hint: str = "") -> TorchWeightsError:
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return TorchWeightsError(
        f"{path}: not a readable state dict: its {path.stat().st_size} bytes are cut off, damaged or of another format "
        f"({reason}{hint}). Copy or download it again"
    )


def _check_beginning(path: pathlib.Path) -> None:
    """Raises TorchWeightsError for what a download may leave in place of weights."""
    with path.open("rb") as file:
        begin = file.read(200).lstrip().lower()
    if begin.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise TorchWeightsError(
            f"{path}: a web page, not weights: the server answered with a text, perhaps that a login is needed or a "
            "quota is exceeded. Open the address in a browser and download the file from there"
        )
    if begin.startswith(b"version https://git-lfs"):
        raise TorchWeightsError(f"{path}: a pointer of git-lfs, not the weights; fetch them with git lfs pull")
