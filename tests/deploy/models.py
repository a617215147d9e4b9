"""Four small models with random weights: every backbone and recipe, several streams, one and two bodies."""

import dataclasses
import pathlib

import jax
import numpy as np

from mmcl_jax.config import Config
from mmcl_jax.data.records import DatasetInfo
from mmcl_jax.description import Description
from mmcl_jax.trained_model import TrainedModel
from tests.helpers import runs

STAGES = ((1, 1), (2, 2))
CLASSES = ("wave", "kick", "sit down", "stand up")
LENGTHS = (1, 7, 40)  # frames of the clips


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, what it is trained on, and the temperature with which its probabilities are neither 0 nor 1."""

    backbone: str
    sampling: str
    stream: str
    bodies: int
    channels: tuple[str, ...] = ("x", "y", "z")
    centered: bool = False
    absent_body: str = "zeros"
    storage: str = "float32"
    views: str = "none"
    temperature: float = 1.0


CASES = (
    Case("ctrgcn", "crop_resize", "joint", 2, centered=True, temperature=50.0),
    Case("ctrsgcn", "view_normalised", "bone", 2, ("x", "y", "z", "confidence"), temperature=2.0),
    Case(
        "hdgcn", "paced", "joint_bone", 1, ("x", "y", "confidence"), storage="float16", views="random", temperature=0.1
    ),
    Case("infogcn", "crop_resize", "bone_motion", 2, ("x", "y", "z", "confidence"), absent_body="copy"),
)


def make_model(case: Case) -> TrainedModel:
    """The model of a case, with `STAGES` where the backbones are shallow."""
    config = runs.tiny_config(
        pathlib.Path("none"),
        data__sampling=case.sampling,
        data__stream=case.stream,
        data__window=52,  # for which linspace is inexact
        data__absent_body=case.absent_body,
        data__storage=case.storage,
        data__camera__views=case.views,
        model__backbone=case.backbone,
        model__base_channels=8,
    )
    info = DatasetInfo("own", "coco", "meters", CLASSES, channels=case.channels)
    described = Description(Config.of(config), info, case.bodies, centered=case.centered, temperature=case.temperature)
    return TrainedModel(described, _random_variables(described.template()))


def make_clips(case: Case) -> list[np.ndarray]:
    """Clips `[T, M, V, C]` of `LENGTHS`. Of two bodies, the second clip lacks the first and the third the second."""
    rng = np.random.default_rng(3)
    clips = [rng.normal(size=(frames, case.bodies, 17, len(case.channels))).astype(np.float32) for frames in LENGTHS]
    if case.bodies == 2:
        clips[1][:, 0] = 0
        clips[2][:, 1] = 0
    return clips


def pad(clips: list[np.ndarray], length: int, filling: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Clips as one array `[N, length, M, V, C]`, and their numbers of frames."""
    padded = np.full((len(clips), length, *clips[0].shape[1:]), filling, np.float32)
    for row, clip in zip(padded, clips, strict=True):
        row[: len(clip)] = clip
    return padded, np.array([len(clip) for clip in clips], np.int32)


def _random_variables(shapes: dict) -> dict:
    rng = np.random.default_rng(0)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name in ("var", "alpha"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        if name == "scale":  # of a norm: negative too
            return rng.uniform(-1.5, 1.5, leaf.shape).astype(np.float32)
        deviation = leaf.shape[-2] ** -0.5 if "kernel" in name else 0.3
        return rng.normal(0, deviation, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)
