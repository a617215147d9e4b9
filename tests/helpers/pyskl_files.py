"""Annotations as of pyskl, files of them, and their records, for the importer's tests."""

import pathlib
import pickle

import numpy as np

from data_prep import pyskl
from mmcl_jax.data import records


def save(path: pathlib.Path, value, protocol: int = 4) -> pathlib.Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def prepare(folder: pathlib.Path, value, **options) -> records.Records:
    """Records of one file that holds `value`."""
    pyskl.prepare([save(folder / "mine.pkl", value)], folder / "out", **options)
    return records.Records(folder / "out")


def pose(name: str, label: int = 0, frames: int = 5, bodies: int = 1, **changes) -> dict:
    """A 2-D annotation as of HRNet."""
    rng = np.random.default_rng(abs(hash((label, frames, bodies))))
    made = {
        "frame_dir": name,
        "label": label,
        "img_shape": (1080, 1920),
        "original_shape": (1080, 1920),
        "total_frames": frames,
        "keypoint": rng.uniform((0, 0), (1920, 1080), size=(bodies, frames, 17, 2)).astype(np.float16),
        "keypoint_score": rng.uniform(0.1, 1, size=(bodies, frames, 17)).astype(np.float16),
        **changes,
    }
    return {key: value for key, value in made.items() if value is not ...}


def dataset(annotations: list, **split) -> dict:
    names = [clip["frame_dir"] for clip in annotations]
    return {"split": split or {"train": names[0::2], "val": names[1::2]}, "annotations": annotations}
