"""People for tests: poses that a tiny model can be asked about, and such models."""

import pathlib

import jax
import numpy as np

from mmcl_jax.config import Config
from mmcl_jax.data.records import DatasetInfo
from mmcl_jax.description import Description
from mmcl_jax.poses.types import PIXELS, Poses, Track
from mmcl_jax.trained_model import TrainedModel
from tests.helpers import runs

CLASSES = ("wave", "kick", "sit down", "stand up")
RATE = 10.0


def tiny_model(seed: int = 0, classes=CLASSES, **described) -> TrainedModel:
    """A model with random weights for COCO's joints in pixels. Shallow, if the test asks for that."""
    config = runs.tiny_config(pathlib.Path("none"), data__window=8)
    info = DatasetInfo("own", "coco", "pixels", classes, channels=("x", "y", "confidence"))
    description = Description(Config.of(config), info, 1, centered=False, **described)
    rng = np.random.default_rng(seed)
    shapes = description.template()
    wide = {"mean": 0.0, "var": 1.0, "data_bn": {"mean": 200.0, "var": 1e4}}  # statistics of pixels

    def statistics(path, leaf):
        names = [key.key for key in path]
        kind = wide["data_bn"] if "data_bn" in names else wide
        return np.full(leaf.shape, kind[names[-1]], np.float32)

    def draw(path, leaf):
        names = [key.key for key in path]
        size = 0.02 if names[0] == "fc" else 0.5 if names[-1] in ("scale", "bias") else 1.0
        return rng.normal(0, size, leaf.shape).astype(np.float32)

    variables = {
        "params": jax.tree_util.tree_map_with_path(draw, shapes["params"]),
        "batch_stats": jax.tree_util.tree_map_with_path(statistics, shapes["batch_stats"]),
    }
    return TrainedModel(description, variables, path=f"tiny{seed}")


def poses(*spans: tuple[int, int], num_frames: int = 60, without: tuple[int, ...] = (), **changes) -> Poses:
    """A person for each span of frames (first, last), seen in all of them but `without`."""
    tracks = []
    for person, (first, last) in enumerate(spans):
        frames = np.array([frame for frame in range(first, last + 1) if frame not in without])
        rng = np.random.default_rng(person)
        start, speed = rng.uniform(100, 300, (17, 2)), rng.uniform(-2, 2, (17, 2))
        joints = start + frames[:, None, None] * speed
        tracks.append(Track(person, frames, joints.astype(np.float32), np.full((len(frames), 17), 0.9, np.float32)))
    given = {"layout": "coco", "units": PIXELS, "frame_rate": RATE, "size": (640, 480), "source": "made up"}
    return Poses(tuple(tracks), num_frames, **{**given, **changes})
