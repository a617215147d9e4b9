"""Transforms of two coordinates and a confidence: joints that a pose estimator found in pictures."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.data import transforms
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.data.transforms import make_transform
from tests.data.test_transforms import CROP_RESIZE, VIEW_NORMALISED

COCO = LAYOUTS["coco"]
FLAT = dataclasses.replace(CROP_RESIZE, centre=True)


def flat_clip(frames: int = 80, padded: int = 90) -> np.ndarray:
    """[2, padded, 17, 3]: pixels, and confidences in [0, 1]."""
    rng = np.random.default_rng(0)
    clip = np.zeros((2, padded, 17, 3), np.float32)
    clip[:, :frames, :, :2] = rng.uniform(0, 1000, (2, frames, 17, 2))
    clip[:, :frames, :, 2] = rng.uniform(0, 1, (2, frames, 17))
    return clip


@functools.cache
def flat_transform(stream: str, absent_body: str, train: bool):
    options = dataclasses.replace(FLAT, stream=stream, absent_body=absent_body)
    return jax.jit(make_transform(options, COCO, 90, train, coordinates=2))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("stream", "absent_body"),
    [("joint", "zeros"), ("bone", "zeros"), ("joint_motion", "zeros"), ("bone_motion", "copy")],
)
def test_confidence_is_resized_in_time_and_nothing_else(stream, absent_body, train):
    """It is what becomes of it in a clip whose joints all lie in the origin: neither joints nor bones touch it."""
    clip, key = flat_clip(), jax.random.key(3)
    clip[1] = 0 if absent_body == "copy" else clip[1]
    bodies = 1 if absent_body == "copy" else 2
    alone = clip.copy()
    alone[..., :2] = 0
    transform = flat_transform(stream, absent_body, train)
    result, expected = (np.asarray(transform(x, 80, bodies, key)) for x in (clip, alone))
    np.testing.assert_array_equal(result[..., 2], expected[..., 2])
    assert result[..., 2].min() >= 0 and result[..., 2].max() <= 1 and result[..., 2].std() > 0.1
    # And the same in every stream, that of the joints.
    joints = flat_transform("joint", absent_body, train)(clip, 80, bodies, key)
    np.testing.assert_allclose(result[..., 2], joints[..., 2], rtol=1e-6)
    if absent_body == "copy":
        np.testing.assert_array_equal(result[1], result[0])


@pytest.mark.parametrize("stream", transforms.STREAMS)
def test_coordinates_do_not_depend_on_confidence(stream):
    clip, key = flat_clip(), jax.random.key(3)
    other = clip.copy()
    other[..., 2] = 1 - clip[..., 2]
    transform = flat_transform(stream, "zeros", True)
    first, second = (np.asarray(transform(x, 80, 2, key))[..., :2] for x in (clip, other))
    np.testing.assert_array_equal(first, second)


def test_flat_joints_turn_in_the_picture_alone():
    clip = flat_clip(64, 64)
    transform = make_transform(
        dataclasses.replace(FLAT, crop_interval=(1.0, 1.0)), COCO, max_frames=64, train=True, coordinates=2
    )
    keys = jax.random.split(jax.random.key(0), 300)
    turned = np.asarray(jax.jit(jax.vmap(transform, (None, None, None, 0)))(clip, 64, 2, keys))[..., :2]
    centred = clip[..., :2] - clip[0, 0, COCO.centre, :2]
    lengths = np.linalg.norm(centred, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.broadcast_to(lengths, turned.shape[:-1]), atol=0.1)
    cross = centred[..., 0] * turned[..., 1] - centred[..., 1] * turned[..., 0]
    dot = (centred * turned).sum(-1)
    angles = np.arctan2(cross, dot).reshape(300, -1)[:, (lengths > 1).ravel()]
    np.testing.assert_allclose(angles, np.broadcast_to(angles[:, :1], angles.shape), atol=1e-4)
    assert -0.301 < angles.min() < -0.28 and 0.28 < angles.max() < 0.301


def test_flat_absent_body_stays_zero_when_the_first_is_centred():
    clip = flat_clip()
    clip[1] = 0
    result = flat_transform("joint", "zeros", True)(clip, 80, 1, jax.random.key(1))
    np.testing.assert_array_equal(result[1], 0)
    result = flat_transform("joint", "zeros", False)(clip, 80, 1, jax.random.key(1))
    begin, length = transforms.centred_crop(jnp.int32(80), 0.95)
    first = transforms.crop_resize(clip[..., :2] - clip[0, 0, COCO.centre, :2], begin, length, 64)[0]
    np.testing.assert_allclose(result[0, ..., :2], first, atol=1e-3)


def test_flat_bones_and_motion_by_hand():
    clip = np.array([[[1, 2, 0.7], [10, 20, 0.8]], [[2, 5, 0.1], [10, 10, 0.2]]], np.float32)[np.newaxis]
    parents = np.array([1, 1])
    bones = [[[[-9, -18, 0.7], [0, 0, 0.8]], [[-8, -5, 0.1], [0, 0, 0.2]]]]
    np.testing.assert_array_equal(transforms.bones(clip, parents, coordinates=2), np.float32(bones))
    motion = [[[[1, 3, 0.7], [0, -10, 0.8]], [[0, 0, 0.1], [0, 0, 0.2]]]]
    np.testing.assert_array_equal(transforms.motion(clip, coordinates=2), np.float32(motion))


def test_the_view_recipe_wants_three_coordinates():
    with pytest.raises(ValueError, match=r"'view_normalised' .* 2 coordinates; use 'crop_resize'"):
        make_transform(VIEW_NORMALISED, COCO, 90, True, coordinates=2)
