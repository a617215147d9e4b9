"""Reading the reference outputs of the published models, where `MMCL_TEST_DATA` names their folder."""

import itertools
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


def gradient_norm_mismatches(ours: dict[str, np.ndarray], reference: dict) -> list[str]:
    """Compares the norms of gradients with those of a reference, parameter by parameter.

    Two norms agree where `|a - b| <= 0.01 b + 1e-6 max(all norms)`. A bias directly in front of a batch norm has no
    effect, so its gradient is rounding noise of either program: it agrees as well where both norms are below
    `5e-6 max(all norms)`.

    Args:
      ours: gradients by PyTorch name.
      reference: the reference's `.json`, of which `grad_norm` and `state_dict` are read.

    Returns:
      A line for each parameter that disagrees, or that only one of the two has.
    """
    expected = reference["grad_norm"]
    largest = max(expected.values())
    keys = list(reference["state_dict"])
    cancelled = {key for key, following in itertools.pairwise(keys) if _is_bias_before_batch_norm(key, following, keys)}
    mismatches = [f"{key}: only in one of the two" for key in sorted(ours.keys() ^ expected.keys())]
    for key in sorted(ours.keys() & expected.keys()):
        norm = float(np.linalg.norm(np.asarray(ours[key], np.float64)))
        noise = key in cancelled and max(norm, expected[key]) < 5e-6 * largest
        # Written so that NaN disagrees.
        if not (abs(norm - expected[key]) <= 0.01 * expected[key] + 1e-6 * largest or noise):
            mismatches.append(f"{key}: {norm}, expected {expected[key]} (largest: {largest})")
    return mismatches


def _is_bias_before_batch_norm(key: str, following: str, keys: list[str]) -> bool:
    """Whether `key` is the bias of a layer that is no batch norm, and `following` belongs to a batch norm."""
    layer, _, leaf = key.rpartition(".")
    following_layer = following.rpartition(".")[0]
    return leaf == "bias" and f"{layer}.running_mean" not in keys and f"{following_layer}.running_mean" in keys
