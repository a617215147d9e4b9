"""Random cameras: what a camera sees, what an estimator's errors do, and what does not depend on the picture."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.config import Config, get_config
from mmcl_jax.data import camera
from mmcl_jax.data.camera import Body, CameraOptions
from mmcl_jax.data.layouts import LAYOUTS, Layout, LayoutError
from mmcl_jax.data.transforms import TransformOptions, make_transform, output_channels, paced_window
from mmcl_jax.runtime.backend import HASTY
from mmcl_jax.runtime.errors import ConfigError

LAYOUT = LAYOUTS["body13"]
BODY = Body.of(LAYOUT)
JOINT = {name: number for number, name in enumerate(LAYOUT.joints)}
# A person as a Kinect sees one who faces it: the left side at smaller x, y up, z away. Meters; the trunk is half a one.
_STANDING = {
    "nose": (0, 0.75, -0.05), "left shoulder": (-0.2, 0.5, 0), "right shoulder": (0.2, 0.5, 0),
    "left elbow": (-0.25, 0.2, 0), "right elbow": (0.25, 0.2, 0), "left wrist": (-0.27, -0.05, -0.1),
    "right wrist": (0.27, -0.05, -0.1), "left hip": (-0.1, 0, 0), "right hip": (0.1, 0, 0),
    "left knee": (-0.12, -0.42, 0), "right knee": (0.12, -0.42, 0), "left ankle": (-0.12, -0.85, 0.05),
    "right ankle": (0.12, -0.85, 0.05),
}  # fmt: skip
PERFECT = CameraOptions(views="random", noise=0, occlusion=0, follow=0)
PACED = TransformOptions(
    sampling="paced",
    window=8,
    crop_interval=(0.5, 1.0),
    test_crop=1.0,
    rotation=0.0,
    centre=False,
    absent_body="zeros",
    stream="joint",
    camera=CameraOptions(views="random"),
)


def standing(frames: int = 8, move=(0.0, 0.0, 0.0), place=(0.4, 0.1, 3.0)) -> np.ndarray:
    """A clip `[1, T, V, 3]` of someone who glides by `move` in each frame."""
    pose = np.array([_STANDING[name] for name in LAYOUT.joints], np.float32) + np.array(place)
    return np.asarray(pose + np.arange(frames)[:, None, None] * np.array(move), np.float32)[None]


@functools.cache
def compiled(function, *static):
    """A function of arrays, compiled fast; `static` are its last arguments."""
    return jax.jit(lambda *arrays: function(*arrays, *static), compiler_options=HASTY)


def normalised(clip: jax.Array) -> np.ndarray:
    """[M, T, V, 3]."""
    return np.asarray(compiled(camera.normalise_picture, BODY, 1)(clip))


def looked(clip: jax.Array, **changes) -> np.ndarray:
    """[T, V, 3] through a fixed camera."""
    options = dataclasses.replace(PERFECT, **{"test_pitch": 0.0, **changes})
    return np.asarray(compiled(camera.look, BODY, options)(clip))[0]


@pytest.mark.parametrize(("yaw", "left_is_right"), [(0, True), (180, False)])
def test_a_picture_is_upright_and_not_mirrored(yaw, left_is_right):
    seen = looked(standing(), test_yaw=yaw)
    for name in ("shoulder", "hip", "knee"):
        assert (seen[0, JOINT[f"left {name}"], 0] > seen[0, JOINT[f"right {name}"], 0]) == left_is_right
    assert seen[0, JOINT["nose"], 1] < seen[0, JOINT["left hip"], 1] < seen[0, JOINT["left ankle"], 1]


def test_from_the_side_one_shoulder_covers_the_other():
    front, side = looked(standing()), looked(standing(), test_yaw=90)
    width = [abs(seen[0, JOINT["left shoulder"], 0] - seen[0, JOINT["right shoulder"], 0]) for seen in (front, side)]
    np.testing.assert_allclose(width[0], 0.4 / 4, rtol=1e-3)  # 40 cm at 4 m
    assert width[1] < 1e-5


def test_who_comes_closer_grows_and_cannot_pass_the_camera():
    height = lambda seen: seen[:, JOINT["left ankle"], 1] - seen[:, JOINT["nose"], 1]  # noqa: E731
    coming = height(looked(standing(move=(0, 0, -0.25))))
    assert (np.diff(coming) > 0).all()
    assert (np.diff(height(looked(standing(move=(0, 0, -0.25)), test_yaw=180))) < 0).all()
    seen = looked(standing(frames=60, move=(0, 0, -0.25)))
    assert np.isfinite(seen).all()
    assert height(seen).max() < 3  # nobody comes closer than a meter: 1.6 m high there


def test_a_camera_above_sees_the_head_larger():
    seen = looked(standing(), test_pitch=60.0)[0]
    level = looked(standing())[0]
    arms, legs = JOINT["left shoulder"], JOINT["left ankle"]
    ratio = lambda joints: abs(joints[arms, 0] / joints[legs, 0])  # noqa: E731
    assert ratio(seen) > 1.1 * ratio(level)


def test_the_mirrored_action_swaps_the_sides():
    clip = standing() + 0.01 * jax.random.normal(jax.random.key(0), (1, 8, 13, 3))
    mirrored = camera.mirror(clip, BODY)
    np.testing.assert_array_equal(mirrored[:, :, JOINT["left wrist"], 0], -clip[:, :, JOINT["right wrist"], 0])
    np.testing.assert_array_equal(mirrored[:, :, JOINT["left wrist"], 1:], clip[:, :, JOINT["right wrist"], 1:])
    np.testing.assert_array_equal(camera.mirror(mirrored, BODY), clip)


def test_other_proportions_keep_directions_hips_and_symmetry():
    clip = standing(move=(0.1, 0, 0.05))
    other = compiled(lambda clip, key: camera.other_proportions(clip, BODY, key))(clip, jax.random.key(1))
    hips = np.array(BODY.hips)
    np.testing.assert_allclose(other[:, :, hips].mean(axis=2), clip[:, :, hips].mean(axis=2), atol=1e-5)
    bones = [np.asarray(joints - joints[:, :, BODY.parents])[0, 0] for joints in (clip, other)]
    lengths = [np.linalg.norm(vectors, axis=-1) for vectors in bones]
    child = [joint for joint in range(13) if BODY.parents[joint] != joint]
    np.testing.assert_allclose(
        bones[1][child] / lengths[1][child, None], bones[0][child] / lengths[0][child, None], atol=1e-4
    )
    ratios = dict(zip(LAYOUT.joints, lengths[1] / np.maximum(lengths[0], 1e-9), strict=True))
    assert ratios["left knee"] == pytest.approx(ratios["right knee"], rel=1e-4)
    assert abs(ratios["left knee"] - ratios["left elbow"]) > 1e-3


def test_the_result_depends_on_place_and_size_in_the_picture_neither_in_training_nor_later():
    seen = jnp.asarray(looked(standing(move=(0.05, 0, 0)), test_yaw=30))[None]
    moved = seen.at[..., :2].multiply(731.0).at[..., :2].add(jnp.array([200.0, -50.0]))
    one, other = (normalised(clip) for clip in (seen, moved))
    np.testing.assert_allclose(other, one, atol=2e-4)
    hips = one[0, :, [JOINT["left hip"], JOINT["right hip"]], 0].mean(axis=0)
    assert abs(hips.mean()) < 1e-4
    assert hips.max() - hips.min() == pytest.approx(8 * 0.05 / 0.5, rel=0.3)  # in trunks: a step is not lost


def test_joints_that_are_not_found_count_nowhere():
    seen = jnp.asarray(looked(standing()))[None]
    gone = seen.at[:, :, JOINT["left ankle"]].set(jnp.array([1e6, -1e6, 0.0]))
    result, whole = normalised(gone), normalised(seen)
    assert not result[:, :, JOINT["left ankle"]].any()
    kept = np.delete(np.arange(13), JOINT["left ankle"])
    np.testing.assert_allclose(result[:, :, kept], whole[:, :, kept], atol=1e-5)
    assert not normalised(jnp.zeros((1, 8, 13, 3))).any()


@functools.cache
def training_transform():
    """One compiled program for all tests of random clips: clips `[N, 1, 20, V, 3]`."""
    options = dataclasses.replace(PACED, camera=dataclasses.replace(PACED.camera, yaw=0.0, occlusion=1.0, mirror=False))
    transform = make_transform(options, LAYOUT, 20, True, coordinates=3)
    return jax.jit(jax.vmap(transform, in_axes=(0, 0, None, 0)), compiler_options=HASTY)


def drawn(clip: jax.Array, frames: int, seeds: range) -> np.ndarray:
    """[N, M, T, V, 3]: one result for each seed."""
    clips = jnp.broadcast_to(clip, (len(seeds), *clip.shape))
    keys = jax.vmap(jax.random.key)(jnp.array(seeds))
    return np.asarray(training_transform()(clips, jnp.full(len(seeds), frames), 1, keys))


def test_the_far_side_is_hidden_and_the_errors_differ():
    turned = compiled(lambda clip: camera.turn(clip, BODY, *jnp.deg2rad(jnp.array([80.0, 0.0, 0.0]))))(standing(20))
    turned = turned * jnp.array([-1.0, -1.0, 1.0])  # back to the axes of a sensor
    left_is_far = turned[0, 0, JOINT["left shoulder"], 2] > turned[0, 0, JOINT["right shoulder"], 2]
    seen = drawn(jnp.concatenate([turned, 0 * turned]), 20, range(48))
    low = (seen[:, 0, ..., 2] > 0) & (seen[:, 0, ..., 2] < 0.75)
    left, right = low[..., BODY.side < 0].mean(), low[..., BODY.side > 0].mean()
    far, near = (left, right) if left_is_far else (right, left)
    assert far > 2 * near > 0
    assert (seen[:, 0, ..., 2] == 0).any()  # a joint is missing now and then
    assert seen[:, 0, 0, JOINT["left shoulder"], 1].std() > 0.02
    assert not seen[:, 1].any()  # an absent body stays absent


def test_training_clips_are_finite_repeatable_and_different():
    clips = {
        "moving": standing(20, (0.1, 0, -0.2)),
        "one frame": jnp.pad(standing(1), ((0, 0), (0, 19), (0, 0), (0, 0))),
        "a point": jnp.ones((1, 20, 13, 3)),
    }
    for name, clip in clips.items():
        frames = 1 if name == "one frame" else 20
        pair = jnp.concatenate([clip, 0 * clip])
        first, again = (drawn(pair, frames, range(48)) for _ in range(2))
        assert first.shape == (48, 2, 8, 13, 3)
        assert np.isfinite(first).all(), name
        np.testing.assert_array_equal(first, again)
        assert (first[0, 0] != first[1, 0]).any()


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("stream", ["joint", "joint_bone"])
def test_poses_of_a_picture_take_the_same_way_without_a_camera(channels, stream):
    options = dataclasses.replace(PACED, stream=stream)
    picture = looked(standing(), test_yaw=30, test_distance=4.0)
    pixels = jnp.asarray(picture * np.array([1000, 1000, 1]))[None, :, :, :channels]
    fixed = dataclasses.replace(options, camera=dataclasses.replace(PERFECT, test_yaw=30.0, test_pitch=0.0))
    seen, given = (
        np.asarray(compiled(make_transform(kind, LAYOUT, 8, False, coordinates=count))(clip, 8, 1, jax.random.key(0)))
        for kind, count, clip in ((fixed, 3, standing()), (options, 2, pixels))
    )
    np.testing.assert_allclose(given, seen, atol=1e-3)
    assert given.shape[-1] == output_channels(stream, "random", channels, 2) == (5 if stream == "joint_bone" else 3)


def ramp(frames: int, padded: int, back: bool = False) -> jax.Array:
    """A clip in which the nose says which frame it is; `back`: and returns to where it began."""
    clip = np.tile(np.asarray(standing(1)), (1, padded, 1, 1))
    numbers = np.arange(frames) if not back else np.abs((np.arange(frames) + frames // 2) % frames - frames // 2)
    clip[0, :frames, 0, 0] += numbers / 1000
    clip[0, frames:] = 0
    return jnp.asarray(clip)


def frames_shown(clip: jax.Array, frames: int, count: int) -> np.ndarray:
    """`[count, 12]`: the frames of a `ramp` that drawn windows show."""
    draw = compiled(jax.vmap(lambda key: paced_window(clip, jnp.int32(frames), key, 12, (0.5, 1.5), 3)))
    windows = np.asarray(draw(jax.vmap(jax.random.key)(jnp.arange(count))))
    return 1000 * (windows[:, 0, :, 0, 0] - float(standing(1)[0, 0, 0, 0]))


def test_paced_windows_keep_the_speed_and_stand_still_at_the_ends():
    moving = ramp(40, 50).at[0, :40, 1:, 0].add(jnp.arange(40.0)[:, None])  # ends elsewhere: never repeated
    shown = frames_shown(moving, 40, 60)
    assert -0.01 < shown.min() < shown.max() < 39.01
    steps = np.diff(shown)
    assert (steps > -1e-2).all()
    assert 0.5 < steps.max(axis=1).min() < 0.75
    assert 1.25 < steps.max() < 1.51
    assert 0 < (steps < 1e-2).any(axis=1).sum() < 60


def test_what_ends_as_it_began_is_repeated():
    shown = frames_shown(ramp(8, 50, back=True), 8, 60)
    up = np.diff(shown) > 0
    turns = (up[:, :-1] & ~up[:, 1:]).sum(axis=1)  # how often the highest frame is passed
    assert 5 < (turns > 1).sum() < 55


def test_options_outside_their_range_are_refused():
    for changes, message in (
        ({"views": "some"}, "'some' is not one of none, random"),
        ({"yaw": 200.0}, "yaw 200.0 is not within 0 and 180"),
        ({"distance": (0.5, 3.0)}, "distance .* is not two numbers within 1.0 and 1000"),
        ({"pitch": (30.0, -10.0)}, "the least first"),
    ):
        with pytest.raises(ConfigError, match=message):
            CameraOptions(**changes)
    with pytest.raises(ConfigError, match=r"view_normalised.* use 'paced'"):
        dataclasses.replace(PACED, sampling="view_normalised")
    with pytest.raises(ConfigError, match="pace"):
        dataclasses.replace(PACED, pace=(2.0, 1.0))
    with pytest.raises(LayoutError, match="lacks left shoulder, right shoulder, right hip"):
        Body.of(Layout.from_names("left hip, knee", "knee < left hip", "left hip"))


def test_a_config_file_and_flags_reach_the_camera():
    config = get_config()
    assert Config.of(config).data.camera == CameraOptions()
    config.data.camera.views = "random"
    config.data.camera.pitch = (0.0, 20.0)
    assert Config.of(config).data.camera == CameraOptions(views="random", pitch=(0.0, 20.0))
