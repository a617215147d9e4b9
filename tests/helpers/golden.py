"""Reading the reference outputs of the published models, where `MMCL_TEST_DATA` names their folder."""

import os
from pathlib import Path

import numpy as np
import pytest

from experiments.parity import golden
from experiments.parity.golden import gradient_norm_mismatches, relative_error

__all__ = [
    "filled_state_dict",
    "golden_folder",
    "gradient_norm_mismatches",
    "load",
    "model_input",
    "relative_error",
    "require_golden",
    "standard_input",
]

require_golden = pytest.mark.skipif(
    not os.environ.get("MMCL_TEST_DATA"),
    reason="set MMCL_TEST_DATA to the folder that holds golden/ (reference outputs of the published models)",
)


def golden_folder() -> Path:
    """Returns the folder of reference outputs."""
    return Path(os.environ["MMCL_TEST_DATA"]) / "golden"


def load(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Returns `name.json` and the arrays of `name.npz`."""
    return golden.read(golden_folder() / f"{name}.json")


def filled_state_dict(reference: dict) -> dict[str, np.ndarray]:
    """Returns the PyTorch state dict of a reference."""
    return golden.state_dict(reference)


def standard_input(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Returns the standard-normal reference input called `name`."""
    return golden.inputs(name, tuple(shape), seed)


def model_input(reference: dict) -> np.ndarray:
    """Returns the input of a reference with a single one, in PyTorch's axis order."""
    return standard_input(reference["input_name"], reference["input_shape"], reference["seed"])
