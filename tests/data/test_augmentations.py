"""The augmentations beyond the recipes: what each does to a clip, and that it leaves the recipes' draws alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.data import augmentations
from mmcl_jax.data.augmentations import AugmentationOptions
from mmcl_jax.data.layouts import LAYOUTS, Layout
from mmcl_jax.data.transforms import TransformOptions, make_transform
from mmcl_jax.runtime.backend import HASTY
from mmcl_jax.runtime.errors import ConfigError

NTU = LAYOUTS["ntu"]
RECIPE = TransformOptions("crop_resize", 8, (0.5, 1.0), 0.95, 0.3, True, "zeros", "joint")


def clip_of(bodies=1) -> np.ndarray:
    """Two bodies of which `bodies` are real, twelve frames of which ten are."""
    clip = np.zeros((2, 12, 25, 3), np.float32)
    clip[:bodies, :10] = np.random.default_rng(0).normal(size=(bodies, 10, 25, 3))
    return clip


def test_a_mirror_exchanges_the_sides():
    mirrored = augmentations.mirrored_joints(NTU)
    clip = clip_of()
    seen = np.asarray(augmentations.mirror(jnp.asarray(clip), mirrored))
    left, right, head = (NTU.joints.index(name) for name in ("left wrist", "right wrist", "head"))
    np.testing.assert_array_equal(seen[:, :, left], clip[:, :, right] * [-1, 1, 1])
    np.testing.assert_array_equal(seen[:, :, head], clip[:, :, head] * [-1, 1, 1])
    np.testing.assert_array_equal(augmentations.mirror(jnp.asarray(seen), mirrored), clip)
    for layout in LAYOUTS.values():
        sides = augmentations.mirrored_joints(layout)
        assert (sides[sides] == np.arange(layout.num_joints)).all() and (
            sides != np.arange(layout.num_joints)
        ).sum() >= 12


def test_a_layout_without_sides_cannot_be_mirrored():
    with pytest.raises(ConfigError, match="no joint of the layout has 'left' or 'right'"):
        augmentations.mirrored_joints(Layout(("nose", "tail"), ((1, 0),), centre=0))
    with pytest.raises(ConfigError, match="has the joint 'Left ear' but no 'right ear'"):
        augmentations.mirrored_joints(Layout(("nose", "Left ear"), ((1, 0),), centre=0))


def test_a_change_of_speed_keeps_both_ends_and_the_padding():
    clip = np.zeros((1, 12, 1, 1), np.float32)
    clip[0, :10, 0, 0] = np.arange(10)  # a joint at constant speed: the result is the warped time itself
    clip[0, 10:] = 99
    seen = np.asarray(augmentations.change_speed(jnp.asarray(clip), jnp.int32(10), jnp.float32(0.5)))[0, :, 0, 0]
    t = np.arange(10) / 9
    np.testing.assert_allclose(seen[:10], 9 * (t + 0.5 * np.sin(np.pi * t) / np.pi), atol=1e-5)
    np.testing.assert_allclose(seen[[0, 9, 10, 11]], [0, 9, 99, 99], atol=1e-5)
    steps = np.diff(seen[:10])
    assert steps[0] > 1.4 and steps[-1] < 0.6 and (np.diff(steps) < 0).all()
    np.testing.assert_allclose(
        augmentations.change_speed(jnp.asarray(clip), jnp.int32(10), jnp.float32(0)), clip, atol=1e-5
    )
    one = augmentations.change_speed(jnp.asarray(clip), jnp.int32(1), jnp.float32(0.5))
    np.testing.assert_array_equal(one, clip)


def test_noise_reaches_coordinates_of_real_frames_and_bodies():
    clip = clip_of()
    seen = np.array(augmentations.add_noise(jnp.asarray(clip), 10, 1, jnp.ones(clip.shape), coordinates=2))
    np.testing.assert_allclose((seen - clip)[:1, :10, :, :2], 1, atol=1e-6)
    seen[:1, :10, :, :2] = clip[:1, :10, :, :2]
    np.testing.assert_array_equal(seen, clip)


def test_lost_joints_are_at_the_origin_in_every_frame():
    clip, lost = clip_of(bodies=2), np.zeros((2, 25), bool)
    lost[0, 3] = lost[1, 7] = True
    seen = np.asarray(augmentations.drop_joints(jnp.asarray(clip), lost))
    assert not seen[0, :, 3].any() and not seen[1, :, 7].any()
    assert (seen != clip).any(axis=(1, 3)).sum() == 2


@pytest.mark.parametrize(
    ("change", "expected"), [("flip", 0.5), ("joint_dropout", 0.5), ("noise", 1.0), ("speed_change", 1.0)]
)
def test_each_is_drawn_for_each_clip(change, expected):
    """How many of 200 clips change at 0.5: half of them mirrored, half of the joints lost, every clip otherwise."""
    options = AugmentationOptions(**{change: 0.5})
    mirrored = augmentations.mirrored_joints(NTU)
    clip = clip_of()

    def draw(key):
        return augmentations.augment(jnp.asarray(clip), jnp.int32(10), jnp.int32(1), key, options, mirrored, 3)

    seen = np.asarray(jax.jit(jax.vmap(draw), compiler_options=HASTY)(jax.random.split(jax.random.key(0), 200)))
    assert not seen[:, 1].any() and not seen[:, :, 10:].any()
    changed = (seen != clip).any(axis=-1)[:, 0, 1:9]  # [clip, frame, joint]; the ends keep their place
    assert changed.mean() == pytest.approx(expected, abs=0.12)
    if change == "joint_dropout":
        assert (changed.all(axis=1) | ~changed.any(axis=1)).all()
    if change == "flip":
        assert (changed.all(axis=(1, 2)) | ~changed.any(axis=(1, 2))).all()
    if change == "noise":
        assert (seen - clip)[:, 0, :10].std() == pytest.approx(0.5, rel=0.05)


def test_training_clips_are_augmented_and_the_recipe_draws_as_before():
    clip, key = clip_of(), jax.random.key(3)
    mirrored = augmentations.mirrored_joints(NTU)
    arguments = (jnp.int32(10), jnp.int32(1), key)

    def result(train, given=clip, **on):
        options = dataclasses.replace(RECIPE, augmentation=AugmentationOptions(**on))
        transform = jax.jit(make_transform(options, NTU, 12, train, coordinates=3), compiler_options=HASTY)
        return np.asarray(transform(jnp.asarray(given), *arguments))

    np.testing.assert_array_equal(result(False, flip=1.0, noise=1.0, joint_dropout=0.5), result(False))
    np.testing.assert_allclose(
        result(True, flip=1.0), result(True, augmentations.mirror(jnp.asarray(clip), mirrored)), atol=1e-6
    )
    assert np.abs(result(True, flip=1.0) - result(True)).max() > 0.1
    assert 0 < np.abs(result(True, noise=1e-3) - result(True)).max() < 0.02


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flip": 1.5}, r"data\.flip 1\.5 is not a probability"),
        ({"joint_dropout": 1.0}, r"data\.joint_dropout 1\.0 is not a probability below 1"),
        ({"noise": -0.1}, r"data\.noise -0\.1 is negative"),
        ({"speed_change": 1.0}, r"data\.speed_change 1\.0 is not within 0 and 1"),
    ],
)
def test_values_outside_their_range_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        AugmentationOptions(**values)
