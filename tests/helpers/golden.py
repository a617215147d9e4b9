"""Reading the reference outputs of the published code.

Those of random inputs are in `tests/golden`, for everybody. Those that derive from a data set are read from the folder
that `MMCL_TEST_DATA` names.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from experiments.parity import golden
from experiments.parity.golden import gradient_norm_mismatches, relative_error

__all__ = [
    "COMPACT",
    "TRANSFORMED_FRAMES",
    "filled_state_dict",
    "golden_folder",
    "gradient_norm_mismatches",
    "load",
    "model_input",
    "relative_error",
    "require_golden",
    "standard_input",
]

COMPACT = Path(__file__).parent.parent / "golden"
TRANSFORMED_FRAMES = [*range(0, 64, 4), 63]  # which frames of transformed clips are in `COMPACT`

require_golden = pytest.mark.skipif(
    not os.environ.get("MMCL_TEST_DATA"),
    reason="set MMCL_TEST_DATA to the folder that holds golden/ (references that derive from data sets)",
)


def golden_folder() -> Path:
    """Returns the folder of the references that derive from data sets."""
    return Path(os.environ["MMCL_TEST_DATA"]) / "golden"


def load(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Returns `name.json` and the arrays of `name.npz` of a model."""
    return golden.read(COMPACT / f"{name}.json")


def filled_state_dict(reference: dict) -> dict[str, np.ndarray]:
    """Returns the PyTorch state dict of a reference."""
    return golden.state_dict(reference)


def standard_input(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Returns the standard-normal reference input called `name`."""
    return golden.inputs(name, tuple(shape), seed)


def model_input(reference: dict) -> np.ndarray:
    """Returns the input of a reference with a single one, in PyTorch's axis order."""
    return standard_input(reference["input_name"], reference["input_shape"], reference["seed"])
