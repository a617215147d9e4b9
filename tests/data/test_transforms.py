"""Transforms against the published code's results, and the properties that random ones must have."""

import dataclasses
import functools
import json
import os
import pathlib
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.data import transforms
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.data.transforms import TransformOptions, make_transform
from tests.helpers.golden import (
    COMPACT,
    TRANSFORMED_FRAMES,
    golden_folder,
    relative_error,
    require_golden,
    standard_input,
)

NTU, NW_UCLA = LAYOUTS["ntu"], LAYOUTS["nw_ucla"]
CROP_RESIZE = TransformOptions(
    sampling="crop_resize",
    window=64,
    crop_interval=(0.5, 1.0),
    test_crop=0.95,
    rotation=0.3,
    centre=False,
    absent_body="zeros",
    stream="joint",
)
VIEW_NORMALISED = dataclasses.replace(CROP_RESIZE, sampling="view_normalised", window=52, rotation=60)
RECIPES = {"crop_resize": (CROP_RESIZE, NTU), "view_normalised": (VIEW_NORMALISED, NW_UCLA)}
both_recipes = pytest.mark.parametrize("recipe", sorted(RECIPES))
TOLERANCE = 1e-5


def arrays(name: str, folder: pathlib.Path = COMPACT) -> dict[str, np.ndarray]:
    with np.load(folder / f"{name}.npz") as stored:
        return dict(stored)


def from_pytorch(clip: np.ndarray) -> np.ndarray:
    """[C, T, V, M] -> [M, T, V, C]."""
    return clip.transpose(3, 1, 2, 0)


def random_clip(layout, frames: int, bodies: int = 2, padded: int = 0, seed: int = 0) -> np.ndarray:
    """[bodies, padded or frames, V, 3], zero after `frames`."""
    clip = np.zeros((bodies, max(padded, frames), layout.num_joints, 3), np.float32)
    clip[:, :frames] = np.random.default_rng(seed).normal(size=(bodies, frames, layout.num_joints, 3))
    return clip


@functools.cache
def compiled(options, layout, max_frames: int, train: bool):
    return jax.jit(make_transform(options, layout, max_frames, train, coordinates=3))


def transformed(options, layout, clip, frames: int, bodies: int, seed: int | None = None) -> np.ndarray:
    """Runs the recipe; with a seed, that of training."""
    transform = compiled(options, layout, clip.shape[1], seed is not None)
    return np.asarray(transform(clip, jnp.int32(frames), jnp.int32(bodies), jax.random.key(seed or 0)))


# Published results. Those of random clips are stored at a few frames.


def kept_frames_error(ours, published: np.ndarray) -> float:
    """The relative error at the stored frames of a clip, `[M, T, V, C]` beside PyTorch's `[C, T, V, M]`."""
    return relative_error(np.asarray(ours)[:, TRANSFORMED_FRAMES], from_pytorch(published))


@pytest.mark.parametrize(("padded", "frames"), [(300, 103), (300, 20), (300, 300), (300, 64), (120, 71)])
def test_published_test_crop(padded, frames):
    clip = from_pytorch(standard_input(f"crop/{padded}/{frames}", (3, padded, 25, 2)))
    expected = arrays("transforms_ntu")[f"center_crop_resize/T{padded}/valid{frames}"]
    assert kept_frames_error(transformed(CROP_RESIZE, NTU, clip, frames, 2), expected) <= TOLERANCE


@pytest.mark.parametrize("frames", [40, 64, 70, 103, 215, 300])
def test_published_training_crop(frames):
    clip = from_pytorch(standard_input(f"traincrop/300/{frames}", (3, 300, 25, 2)))
    golden = arrays("transforms_ntu_train")
    fraction, length, begin, expected = (
        golden[f"T300/valid{frames}/{name}"] for name in ("p", "length", "begin", "out")
    )
    assert transforms.crop_length(jnp.float32(fraction), jnp.int32(frames), 64) == length
    ours = transforms.crop_resize(clip, jnp.int32(begin), jnp.int32(length), 64)
    assert kept_frames_error(ours, expected) <= TOLERANCE


@pytest.mark.parametrize("number", [0, 1, 2])
def test_published_rotation(number):
    clip = from_pytorch(standard_input("rot", (3, 64, 25, 2)))
    golden = arrays("transforms_ntu")
    ours = transforms.rotate(clip, transforms.rotation_matrix(golden[f"rotate/{number}/angles"]))
    assert kept_frames_error(ours, golden[f"rotate/{number}"]) <= TOLERANCE


@pytest.mark.parametrize("stream", ["bone", "joint_motion", "bone_motion"])
def test_published_streams(stream):
    clip = from_pytorch(standard_input("rot", (3, 64, 25, 2)))
    options = dataclasses.replace(CROP_RESIZE, test_crop=1.0, stream=stream)  # 64 of 64 frames: no resizing
    expected = arrays("transforms_ntu")[f"ntu_{stream}"]
    assert kept_frames_error(transformed(options, NTU, clip, 64, 2), expected) <= TOLERANCE


@pytest.fixture(scope="session")
def nw_ucla_clips() -> dict[str, np.ndarray]:
    """The real clips that the references were made from: name -> [1, T, 20, 3]."""
    names = {
        str(arrays("nw_ucla_view", golden_folder())["name"]),
        *arrays("nw_ucla_val", golden_folder())["names"].tolist(),
    }
    clips = {}
    with tarfile.open(pathlib.Path(os.environ["MMCL_TEST_DATA"]) / "data" / "nw_ucla.tar.xz") as archive:
        for member in archive:
            name = pathlib.PurePosixPath(member.name).stem
            if member.name.endswith(".json") and name in names:
                clips[name] = np.array(json.load(archive.extractfile(member))["skeletons"], np.float32)[np.newaxis]
    assert set(clips) == names
    return clips


@require_golden
@pytest.mark.parametrize("stream", transforms.STREAMS)
def test_published_nw_ucla_test_clips(nw_ucla_clips, stream):
    golden = arrays("nw_ucla_val", golden_folder())
    clips = [nw_ucla_clips[name] for name in golden["names"]]
    longest = max(clip.shape[1] for clip in clips) + 3
    padded = np.stack([np.pad(clip, [(0, 0), (0, longest - clip.shape[1]), (0, 0), (0, 0)]) for clip in clips])
    frames = np.array([clip.shape[1] for clip in clips], np.int32)
    options = dataclasses.replace(VIEW_NORMALISED, stream=stream)
    transform = make_transform(options, NW_UCLA, max_frames=longest, train=False, coordinates=3)
    ours = jax.jit(jax.vmap(transform))(padded, frames, np.ones_like(frames), jax.random.split(jax.random.key(0), 16))
    expected = golden[{"joint_motion": "motion"}.get(stream, stream)].transpose(0, 4, 2, 3, 1)
    errors = [relative_error(*pair) for pair in zip(ours, expected, strict=True)]
    assert max(errors) <= TOLERANCE


@require_golden
def test_published_nw_ucla_view(nw_ucla_clips):
    golden = arrays("nw_ucla_view", golden_folder())
    clip = nw_ucla_clips[str(golden["name"])]
    frames = clip.shape[1]
    angles = jnp.deg2rad(jnp.array([golden["agx"], golden["agy"]], jnp.float32))
    ours = transforms.subtract_joint(jnp.asarray(clip), NW_UCLA.centre, frames, 1, "zeros", coordinates=3)
    ours = transforms.normalise_range(transforms.rotate(ours, transforms.view_matrix(angles)), frames)
    assert relative_error(ours[0], golden["out"]) <= TOLERANCE


# Cropping and resizing.


@pytest.mark.parametrize("fraction", [0.5, 0.95, 1.0])
def test_centred_crop_rounds_as_the_published_code(fraction):
    frames = np.arange(1, 1001)
    begin, length = jax.vmap(lambda n: transforms.centred_crop(n, fraction))(jnp.asarray(frames))
    expected = np.array([int((1 - fraction) * int(n) / 2) for n in frames])
    np.testing.assert_array_equal(begin, expected)
    np.testing.assert_array_equal(length, frames - 2 * expected)


@jax.jit
def many_random_crops(frames, keys):
    return jax.vmap(lambda key: transforms.random_crop(key, frames, (0.5, 1.0), 64))(keys)


@pytest.mark.parametrize("frames", [1, 30, 64, 65, 100, 300])
def test_random_crop_stays_inside_the_clip(frames):
    begin, length = map(np.asarray, many_random_crops(frames, jax.random.split(jax.random.key(0), 4000)))
    assert begin.min() == 0
    assert (begin + length).max() == frames
    assert length.min() >= min(frames, max(64, frames // 2))
    if frames <= 64:
        assert set(length) == {frames}
    if frames == 300:
        assert abs((length / frames).mean() - 0.75) < 0.01
        # Every start that fits is equally likely.
        assert abs((begin / np.maximum(frames - length, 1)).mean() - 0.5) < 0.02


@pytest.mark.parametrize(("begin", "length"), [(0, 1), (3, 2), (5, 20), (0, 64), (7, 90), (0, 100)])
def test_crop_resize_interpolates_linearly(begin, length):
    clip = random_clip(NTU, 100)
    ours = transforms.crop_resize(clip, jnp.int32(begin), jnp.int32(length), 64)
    position = np.clip((np.arange(64) + 0.5) * length / 64 - 0.5, 0, length - 1)  # align_corners=False
    cropped = clip[:, begin : begin + length].transpose(1, 0, 2, 3).reshape(length, -1)
    expected = np.stack([np.interp(position, np.arange(length), series) for series in cropped.T], axis=1)
    expected = expected.reshape(64, 2, 25, 3).transpose(1, 0, 2, 3)
    np.testing.assert_allclose(ours, expected, atol=2e-5)


def test_training_crop_of_a_ramp():
    """Frame t of the clip is t everywhere, so the result shows which frames it was made from."""
    clip = np.broadcast_to(np.arange(200, dtype=np.float32)[:, np.newaxis, np.newaxis], (2, 200, 25, 3))
    transform = make_transform(
        dataclasses.replace(CROP_RESIZE, rotation=0.0), NTU, max_frames=200, train=True, coordinates=3
    )
    keys = jax.random.split(jax.random.key(0), 200)
    ramps = np.asarray(jax.jit(jax.vmap(transform, (None, None, None, 0)))(clip, 160, 2, keys))
    assert ramps.shape == (200, 2, 64, 25, 3)
    assert (ramps == ramps[:, :1, :, :1, :1]).all()
    ramps = ramps[:, 0, :, 0, 0]
    assert ramps.min() >= 0 and ramps.max() <= 159
    assert (np.diff(ramps) > 0).all()
    kept = (ramps[:, -1] - ramps[:, 0]) / 160
    assert 0.48 < kept.min() < 0.55 and 0.95 < kept.max() < 1


# Rotation and view.


def test_random_rotation_is_one_proper_rotation_within_its_bound():
    axes = np.zeros((1, 70, 25, 3), np.float32)
    axes[:, :, :3] = np.eye(3)  # joints 0 to 2 are the unit vectors: their images are the matrix's columns
    transform = make_transform(CROP_RESIZE, NTU, max_frames=70, train=True, coordinates=3)
    keys = jax.random.split(jax.random.key(0), 300)
    images = np.asarray(jax.jit(jax.vmap(transform, (None, None, None, 0)))(axes, 70, 1, keys))
    np.testing.assert_allclose(images, np.broadcast_to(images[:, :, :1], images.shape), atol=1e-6)
    matrices = images[:, 0, 0, :3].transpose(0, 2, 1)
    np.testing.assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (300, 3, 3)), atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-5)
    # The matrix is Z Y X: its angles about x, y and z in turn.
    angles = [
        np.arctan2(-matrices[:, 2, 1], matrices[:, 2, 2]),
        np.arcsin(matrices[:, 2, 0]),
        np.arctan2(-matrices[:, 1, 0], matrices[:, 0, 0]),
    ]
    for angle in angles:
        assert -0.301 < angle.min() < -0.28 and 0.28 < angle.max() < 0.301
    assert np.abs(np.corrcoef(angles) - np.eye(3)).max() < 0.2


def test_training_view_is_of_whole_degrees():
    clip = random_clip(NW_UCLA, 1, bodies=1)
    centred = clip[0, 0] - clip[0, 0, NW_UCLA.centre]
    pairs = np.stack(np.meshgrid(np.arange(-60, 61), np.arange(-60, 61), indexing="ij"), -1).reshape(-1, 2)
    (cos_x, cos_y), (sin_x, sin_y) = np.cos(np.deg2rad(pairs)).T, np.sin(np.deg2rad(pairs)).T
    zero = np.zeros_like(cos_x)
    about_y_then_x = [
        [cos_y, sin_x * sin_y, -sin_y * cos_x],
        [zero, cos_x, sin_x],
        [sin_y, -sin_x * cos_y, cos_x * cos_y],
    ]
    rotated = np.einsum("vi,ijp->pvj", centred, np.array(about_y_then_x))
    low, high = rotated.min(1, keepdims=True), rotated.max(1, keepdims=True)
    candidates = (rotated - low) / (high - low) * 2 - 1

    transform = make_transform(VIEW_NORMALISED, NW_UCLA, max_frames=1, train=True, coordinates=3)
    keys = jax.random.split(jax.random.key(0), 60)
    views = np.asarray(jax.jit(jax.vmap(transform, (None, None, None, 0)))(clip, 1, 1, keys))[:, 0, 0]
    drawn = []
    for view in views:
        errors = np.abs(candidates - view).max((1, 2))
        drawn.append(pairs[errors.argmin()])
        assert errors.min() < 1e-4
    drawn = np.array(drawn)
    for angle in drawn.T:
        assert angle.min() < -40 and angle.max() > 40
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.4


def test_normalise_range_by_hand():
    clip = np.zeros((1, 4, 2, 4), np.float32)
    clip[0, :3, :, 0] = [[0, 1], [2, 4], [3, 3]]
    clip[0, :3, :, 1] = [[-1, -1], [-1, -1], [-1, 1]]
    clip[0, :3, :, 2] = 5  # constant
    clip[..., 3] = 9  # not a coordinate
    clip[0, 3, :, :3] = 100  # padding
    result = transforms.normalise_range(clip, jnp.int32(3))[0, :3]
    np.testing.assert_allclose(result[..., 0], [[-1, -0.5], [0, 1], [0.5, 0.5]])
    np.testing.assert_allclose(result[..., 1], [[-1, -1], [-1, -1], [-1, 1]])
    np.testing.assert_array_equal(result[..., 2], -1)
    np.testing.assert_array_equal(result[..., 3], 9)


@pytest.mark.parametrize("frames", [1, 2, 17, 60])
def test_nw_ucla_test_frames_are_spread_over_the_clip(frames):
    """Coordinate x is the frame number; scaled to [-1, 1] it tells which frames were taken."""
    clip = np.zeros((1, 70, 20, 3), np.float32)
    clip[0, :frames, :, 0] = np.arange(frames)[:, np.newaxis]
    result = transformed(VIEW_NORMALISED, NW_UCLA, clip, frames, 1)[0, :, 0, 0]
    expected = [int(i * (frames - 1) / 51 + 1e-9) for i in range(52)]
    np.testing.assert_array_equal(np.rint((result + 1) / 2 * (frames - 1)), expected)


# Sampling of frames.


@functools.partial(jax.jit, static_argnums=1)
def many_random_frames(frames, window: int, keys):
    return jax.vmap(lambda key: transforms.random_frames(key, frames, window))(keys)


@pytest.mark.parametrize("window", [1, 8, 52, 64])  # of 52 and 64, float64 rounds some frames down
def test_test_frames_without_a_table_of_lengths(window):
    frames = np.arange(1, 2000, dtype=np.int32)
    found = jax.jit(jax.vmap(lambda count: transforms.even_frames(count, None, window)))(frames)
    np.testing.assert_array_equal(found, [np.linspace(0, count - 1, window).astype(np.int32) for count in frames])


@pytest.mark.parametrize("frames", [1, 7, 52, 201])
def test_random_frames_are_sorted_in_range_and_uniform(frames):
    draws = 4000
    samples = np.asarray(many_random_frames(frames, 52, jax.random.split(jax.random.key(0), draws)))
    assert samples.shape == (draws, 52)
    assert (np.diff(samples) >= 0).all()
    assert samples.min() == 0 and samples.max() == frames - 1
    counts, expected = np.bincount(samples.ravel(), minlength=frames), draws * 52 / frames
    assert np.abs(counts - expected).max() <= 5 * np.sqrt(expected)


def test_random_frames_are_without_replacement():
    # As many as there are: every frame exactly 100 times.
    (everything,) = many_random_frames(3, 300, jax.random.split(jax.random.key(0), 1))
    np.testing.assert_array_equal(everything, np.repeat([0, 1, 2], 100))
    # Two of 200: the same frame twice with probability 99 / 199.
    pairs = np.asarray(many_random_frames(2, 2, jax.random.split(jax.random.key(0), 40_000)))
    assert abs((pairs[:, 0] == pairs[:, 1]).mean() - 99 / 199) < 0.01
    assert abs((pairs == 0).mean() - 0.5) < 0.01


# Bodies and padding.


# 'view_normalised' with 'zeros' is missing: scaled to [-1, 1], zero has no meaning, and NW-UCLA's clips have one body.
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("recipe", "absent_body"), [("crop_resize", "zeros"), ("crop_resize", "copy"), ("view_normalised", "copy")]
)
def test_absent_body(recipe, absent_body, train):
    options, layout = RECIPES[recipe]
    options = dataclasses.replace(options, absent_body=absent_body, centre=True)
    clip = random_clip(layout, 80, padded=100)
    clip[1] = 0
    first, second = transformed(options, layout, clip, 80, 1, seed=1 if train else None)
    assert np.abs(first).max() > 0.5
    np.testing.assert_array_equal(second, first if absent_body == "copy" else np.zeros_like(first))


def test_a_real_second_body_is_kept():
    clip = random_clip(NTU, 64)
    np.testing.assert_array_equal(transforms.copy_first_body(clip, jnp.int32(2)), clip)
    np.testing.assert_array_equal(transforms.copy_first_body(clip, jnp.int32(1)), clip[[0, 0]])
    options = dataclasses.replace(CROP_RESIZE, absent_body="copy", test_crop=1.0)
    np.testing.assert_allclose(transformed(options, NTU, clip, 64, 2), clip, atol=1e-6)


@both_recipes
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("frames", [1, 40, 90])
def test_padding_never_leaks(recipe, train, frames):
    options, layout = RECIPES[recipe]
    options = dataclasses.replace(options, centre=True, stream="bone_motion")
    clip = random_clip(layout, frames, bodies=1, padded=120)
    spoilt = clip.copy()
    spoilt[:, frames:] = np.nan
    seed = 3 if train else None
    result = transformed(options, layout, spoilt, frames, 1, seed)
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result, transformed(options, layout, clip, frames, 1, seed), atol=1e-6)


@both_recipes
def test_the_result_does_not_depend_on_how_far_a_clip_is_padded(recipe):
    options, layout = RECIPES[recipe]
    results = [transformed(options, layout, random_clip(layout, 50, padded=t), 50, 2, seed=5) for t in (50, 110)]
    np.testing.assert_allclose(*results, atol=1e-6)


def test_centre_moves_the_first_bodys_centre_joint_to_the_origin():
    clip = random_clip(NTU, 64, padded=70)
    options = dataclasses.replace(CROP_RESIZE, centre=True, test_crop=1.0)
    result = transformed(options, NTU, clip, 64, 2)
    np.testing.assert_allclose(result, clip[:, :64] - clip[0, 0, NTU.centre], atol=1e-5)
    shifted = transforms.subtract_joint(
        jnp.asarray(clip), NTU.centre, jnp.int32(64), jnp.int32(1), "zeros", coordinates=3
    )
    assert not shifted[:, 64:].any()
    np.testing.assert_array_equal(shifted[1], clip[1])


@both_recipes
def test_only_training_draws_and_only_from_its_key(recipe):
    options, layout = RECIPES[recipe]
    clip = random_clip(layout, 90, bodies=1)
    first, again, other = (transformed(options, layout, clip, 90, 1, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    test = compiled(options, layout, 90, False)
    np.testing.assert_array_equal(*(test(clip, 90, 1, jax.random.key(seed)) for seed in (1, 2)))


# Streams.


def test_bones_by_hand():
    clip = np.array([[1, 2, 3], [10, 20, 30], [5, 5, 5]], np.float32)
    clip = np.concatenate([clip, [[7], [8], [9]]], axis=-1)[np.newaxis, np.newaxis]
    expected = [[[[-9, -18, -27, 7], [0, 0, 0, 8], [4, 3, 2, 9]]]]  # 1 is the root, 0 its child, 2 the child of 0
    np.testing.assert_array_equal(transforms.bones(clip, np.array([1, 1, 0]), coordinates=3), expected)


def test_motion_by_hand():
    clip = np.array([[1, 2, 3, 7], [2, 4, 8, 8], [0, 0, 0, 9]], np.float32)[np.newaxis, :, np.newaxis]
    expected = [[[[1, 2, 5, 7]], [[-2, -4, -8, 8]], [[0, 0, 0, 9]]]]
    np.testing.assert_array_equal(transforms.motion(clip, coordinates=3), expected)


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [
        ("sampling", "uniform", "crop_resize, view_normalised"),
        ("absent_body", "nothing", "zeros, copy"),
        ("stream", "motion", "joint, bone, joint_motion, bone_motion"),
    ],
)
def test_unknown_options(option, value, known):
    with pytest.raises(ValueError, match=f"{option} '{value}' is not one of {known}"):
        dataclasses.replace(CROP_RESIZE, **{option: value})
