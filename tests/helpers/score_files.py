"""Score files as evaluation writes them, for the tests of what reads them."""

import pathlib

import numpy as np


def contents(**changes) -> dict[str, np.ndarray]:
    """The arrays of a score file of three clips and three classes; `changes` replace some, None leaves one out."""
    arrays = {
        "names": np.array(["walk_1", "sit_1", "throw_1"]),
        "scores": np.array([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [3.0, 0.0, 2.0]], np.float32),
        "labels": np.array([0, 1, 2]),
        "class_names": np.array(["walk", "sit", "throw"]),
        "step": np.array(7),
    }
    return {key: value for key, value in {**arrays, **changes}.items() if value is not None}


def write(path: pathlib.Path, **changes) -> pathlib.Path:
    """Writes `contents` to an .npz, using only numpy."""
    with path.open("wb") as file:
        np.savez(file, **contents(**changes))
    return path
