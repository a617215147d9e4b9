"""Reading the reference outputs of the published models, where `MMCL_TEST_DATA` names their folder."""

import json
import os
import runpy
from functools import cache
from pathlib import Path

import numpy as np
import pytest

require_golden = pytest.mark.skipif(
    not os.environ.get("MMCL_TEST_DATA"),
    reason="set MMCL_TEST_DATA to the folder that holds golden/ (reference outputs of the published models)",
)


def golden_folder() -> Path:
    """Returns the folder of reference outputs."""
    return Path(os.environ["MMCL_TEST_DATA"]) / "golden"


@cache
def _weights() -> dict:
    return runpy.run_path(str(golden_folder() / "weights.py"))


def load(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Returns `name.json` and the arrays of `name.npz`."""
    reference = json.loads((golden_folder() / f"{name}.json").read_text())
    with np.load(golden_folder() / f"{name}.npz") as arrays:
        return reference, dict(arrays)


def filled_state_dict(reference: dict, conv_gain: float = 1.0) -> dict[str, np.ndarray]:
    """Returns the PyTorch state dict of a reference; `conv_gain` multiplies the 4-d weights."""
    state_dict = {}
    for key, shape in reference["state_dict"].items():
        value = _weights()["fill"](key, tuple(shape), reference["seed"])
        state_dict[key] = value * np.float32(conv_gain) if value.ndim == 4 else value
    return state_dict


def standard_input(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Returns the standard-normal reference input called `name`."""
    return _weights()["inputs"](name, tuple(shape), seed)


def model_input(reference: dict) -> np.ndarray:
    """Returns the input of a reference with a single one, in PyTorch's axis order."""
    return standard_input(reference["input_name"], reference["input_shape"], reference["seed"])


def relative_error(actual, expected) -> float:
    """Returns the norm of the difference over the norm of `expected`, in float64."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
