"""The transform in an ONNX file is the one that `predict` computes, the camera of models for pictures included."""

import pathlib

import jax
import numpy as np
import pytest

from mmcl_jax.config import Config
from mmcl_jax.data.records import DatasetInfo
from mmcl_jax.deploy.clip_nodes import add_test_transform
from mmcl_jax.deploy.graph import Graph
from mmcl_jax.description import Description
from mmcl_jax.trained_model import test_options as options_of
from mmcl_jax.trained_model import test_transform as transform_of
from tests.helpers import runs

pytest.importorskip("onnx", reason="no onnx; pip install '.[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime; pip install '.[onnx]'")

XYZ, XYC = ("x", "y", "z"), ("x", "y", "confidence")
LENGTHS = (1, 9, 30, 30, 30)


@pytest.mark.parametrize(
    ("channels", "window", "changes"),
    [
        (XYZ, 8, {"data__camera__views": "random", "data__stream": "joint_bone"}),
        (XYZ, 9, {"data__camera__views": "random", "data__centre": True, "data__sampling": "paced"}),
        (XYC, 8, {"data__camera__views": "random", "data__stream": "bone_motion"}),
        (("x", "y"), 8, {"data__camera__views": "random", "data__absent_body": "copy"}),
        (XYC, 8, {"data__stream": "joint_motion", "data__centre": True}),
    ],
)
def test_clips_are_those_of_the_transform(channels, window, changes):
    config = Config.of(runs.tiny_config(pathlib.Path("none"), data__window=window, **changes))
    info = DatasetInfo("own", "coco", "meters", ("wave",), channels=channels)
    described = Description(config, info, 2, centered=False)
    skeleton = _clips(info)
    graph = Graph()
    clips, _ = add_test_transform(
        graph,
        "skeleton",
        "frames",
        options_of(described),
        info.skeleton_layout,
        info.num_coordinates,
        (2, window, *info.joint_shape),
        half_storage=False,
    )
    graph.rename(graph.add("Identity", clips), "clips")
    model = graph.model(
        [("skeleton", np.float32, ["N", "T", *skeleton.shape[2:]]), ("frames", np.int32, ["N"])],
        [("clips", np.float32, ["N", *described.clip_shape])],
        {},
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    frames = np.array(LENGTHS, np.int32)
    (found,) = session.run(None, {"skeleton": skeleton, "frames": frames})
    transform = jax.jit(jax.vmap(transform_of(described, skeleton.shape[1]), (0, 0, 0, None)))
    bodies = skeleton.any((1, 3, 4)).sum(axis=1)
    expected = transform(skeleton.swapaxes(1, 2), frames, bodies, jax.random.key(0))
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def _clips(info: DatasetInfo) -> np.ndarray:
    """Clips `[N, T, 2, V, C]` of one or two people; of some, joints have the confidence 0."""
    rng = np.random.default_rng(0)
    clips = rng.normal(size=(len(LENGTHS), max(LENGTHS), 2, *info.joint_shape)).astype(np.float32)
    clips[..., 0] += 3
    if info.channels[-1] == "confidence":
        clips[..., 2] = rng.random(clips.shape[:-1]) < 0.7
        clips[3, :, 0, info.skeleton_layout.joints.index("left hip"), 2] = 0  # the shoulders say where it is
        clips[4, :, 0, :, 2] = 0
    for clip, frames in zip(clips, LENGTHS, strict=True):
        clip[frames:] = 0
    clips[1::2, :, 1] = 0
    return clips


def test_a_body_with_nan_is_not_taken_for_an_absent_one():
    """Even if the NaN is in a frame that the crop leaves out: there would be an answer about other people."""
    config = Config.of(runs.tiny_config(pathlib.Path("none"), data__window=8))
    info = DatasetInfo("own", "coco", "meters", ("wave",))
    graph = Graph()
    _, present = add_test_transform(
        graph,
        "skeleton",
        "frames",
        options_of(Description(config, info, 2, centered=False)),
        info.skeleton_layout,
        info.num_coordinates,
        (2, 8, *info.joint_shape),
        half_storage=False,
    )
    graph.rename(graph.add("Identity", present), "present")
    shape = (30, 2, *info.joint_shape)
    model = graph.model(
        [("skeleton", np.float32, ["N", "T", *shape[1:]]), ("frames", np.int32, ["N"])],
        [("present", np.bool_, ["N", 2])],
        {},
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = info.joint_shape[0] * info.joint_shape[1]
    skeleton = np.tile(np.random.default_rng(0).normal(size=shape).astype(np.float32), (values + 1, 1, 1, 1, 1))
    skeleton[np.arange(values), 0, 1, np.arange(values) // info.joint_shape[1], np.arange(values) % 3] = np.nan
    skeleton[values, :, 1] = 0
    (found,) = session.run(None, {"skeleton": skeleton, "frames": np.full(values + 1, 30, np.int32)})
    assert found[:values].all() and found[values].tolist() == [True, False]
