"""Transforms of raw clips, run inside the jitted step: pure functions of one clip and a key, vmapped over the batch.

A clip is `[M, T, V, C]`, padded with zeros to the longest clip of its records, with its real number of frames and
bodies. Every transform returns `[M, window, V, C]`. The first two or three channels are coordinates. A pose estimator's
confidence may follow: it is cropped and resized in time, but never moved, rotated, scaled or differenced.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.data import camera
from mmcl_jax.data.augmentations import NO_AUGMENTATION, AugmentationOptions, augment, mirrored_joints
from mmcl_jax.data.camera import NO_CAMERA, Body, CameraOptions
from mmcl_jax.data.layouts import Layout
from mmcl_jax.runtime.errors import ConfigError

STREAMS = ("joint", "bone", "joint_motion", "bone_motion")
JOINT_BONE = "joint_bone"  # both in one clip, for one model instead of two
ABSENT_BODY = ("zeros", "copy")
SAMPLING = ("crop_resize", "view_normalised", "paced")
# NW-UCLA's training frames are drawn without replacement from every frame index repeated this many times.
_REPEATS = 100
# A 'paced' clip whose last pose is its first, to within this share of the body's size, may be repeated.
_SAME_POSE = 0.2
_CORRECTED_FRAMES = 1 << 14

Transform = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class TransformOptions:
    """What happens to a clip before the model sees it.

    Attributes:
      sampling: 'crop_resize' (NTU recipe: crop in time, resize linearly, rotate), 'view_normalised' (NW-UCLA recipe of
        CTR-GCN: rotate, scale every axis to [-1, 1] over the clip, sample frames) or 'paced' (windows of about the
        same time, as a long video is cut into; see `paced_window`).
      window: frames of the result.
      crop_interval: least and largest fraction of a training clip that the crop keeps.
      test_crop: fraction that the centered test crop keeps.
      rotation: bound of the random rotation in training; radians about each axis for 'crop_resize' (in the image plane
        only, if joints are 2-D), degrees about x and y for 'view_normalised' (whole numbers).
      centre: subtract the layout's center joint in the first frame ('view_normalised' always does).
      absent_body: what replaces the second body of a one-person clip: 'zeros', or 'copy' (of the first body).
      stream: 'joint', 'bone', 'joint_motion' or 'bone_motion'; 'joint_bone': the channels of the first two.
      augmentation: of training clips, in addition to the recipe's; none by default.
      pace: least and largest number of frames that a 'paced' training window covers, in windows.
      camera: how clips reach a model that sees pictures.

    Raises: ConfigError for an unknown value, or a number outside its range.
    """

    sampling: str
    window: int
    crop_interval: tuple[float, float]
    test_crop: float
    rotation: float
    centre: bool
    absent_body: str
    stream: str
    augmentation: AugmentationOptions = NO_AUGMENTATION
    pace: tuple[float, float] = (0.6, 1.4)
    camera: CameraOptions = NO_CAMERA

    def __post_init__(self):
        for name, value, known in (
            ("sampling", self.sampling, SAMPLING),
            ("absent_body", self.absent_body, ABSENT_BODY),
            ("stream", self.stream, (*STREAMS, JOINT_BONE)),
        ):
            if value not in known:
                raise ConfigError(f"{name} {value!r} is not one of {', '.join(known)}")
        least, largest = self.crop_interval
        if not 0 < least <= largest <= 1:
            raise ConfigError(f"crop_interval {self.crop_interval} is not two fractions, 0 < least <= largest <= 1")
        if not 0 < self.test_crop <= 1:
            raise ConfigError(f"test_crop {self.test_crop} is not a fraction, more than 0 and at most 1")
        if not 0 <= self.rotation <= 360:
            raise ConfigError(f"rotation {self.rotation} is not an angle between 0 and 360; 0 switches it off")
        if not 0 < self.pace[0] <= self.pace[1] <= 100:
            raise ConfigError(f"pace {self.pace} is not two numbers of windows, 0 < least <= largest <= 100")
        if self.camera.views != "none" and self.sampling == "view_normalised":
            raise ConfigError(
                "sampling 'view_normalised' turns 3-D clips; with camera.views use 'paced' or 'crop_resize'"
            )


def absent_stays_zero(absent_body: str, sampling: str) -> bool:
    """Whether an absent body is zero in every frame of a transformed test clip of any stream."""
    return absent_body == "zeros" and sampling != "view_normalised"  # which moves zeros too


def output_channels(stream: str, views: str, channels: int, coordinates: int) -> int:
    """C of the transformed clips, for clips of so many channels, of which so many are coordinates."""
    if views != "none":
        channels, coordinates = 3, 2
    return channels + (coordinates if stream == JOINT_BONE else 0)


def make_transform(
    options: TransformOptions, layout: Layout, max_frames: Any, train: bool, *, coordinates: int
) -> Transform:
    """Returns the function (clip, frames, bodies, key) -> transformed clip that `options` describe.

    The key is used in training only. `max_frames` is T of the padded clips, which may be a symbolic dimension of
    `jax.export` in evaluation; `coordinates` is how many of the channels are coordinates, 2 (x, y) or 3.

    Raises: ConfigError for a recipe that needs 3-D joints, if these are 2-D, or to mirror a layout without sides.
    """
    if options.sampling == "view_normalised" and coordinates != 3:
        raise ConfigError(
            f"sampling 'view_normalised' rotates clips about the x and y axes, but these have {coordinates} "
            "coordinates; use 'crop_resize'"
        )
    parents = layout.parents
    augmentation = options.augmentation
    augments = train and augmentation.any
    mirrored = mirrored_joints(layout) if augments and augmentation.flip else None
    options_camera = options.camera
    body = None if options_camera.views == "none" else Body.of(layout)

    def transform(clip: jax.Array, frames: jax.Array, bodies: jax.Array, key: jax.Array) -> jax.Array:
        clip = clip.astype(jnp.promote_types(clip.dtype, jnp.float32))  # float16 is for storing clips, not for sums
        if options.absent_body == "copy":
            clip = copy_first_body(clip, bodies)
        if options.centre or options.sampling == "view_normalised":
            clip = subtract_joint(clip, layout.centre, frames, bodies, options.absent_body, coordinates)
        if augments:
            real = jnp.int32(clip.shape[0]) if options.absent_body == "copy" else bodies
            clip = augment(clip, frames, real, key, augmentation, mirrored, coordinates)
        if options.sampling == "view_normalised":
            clip = _view_normalised_recipe(clip, frames, key, options, max_frames, train)
        elif options.sampling == "paced" and train:
            clip = paced_window(clip, frames, jax.random.fold_in(key, 1), options.window, options.pace, coordinates)
        else:
            clip = _crop_resize_recipe(clip, frames, key, options, coordinates, train)
        if body is not None:
            clip = _picture(clip, bodies, body, jax.random.fold_in(key, 2), options_camera, coordinates, train)
        return _stream(clip, options.stream, parents, coordinates if body is None else 2)

    return transform


def _picture(
    clip: jax.Array,
    bodies: jax.Array,
    body: Body,
    key: jax.Array,
    options: CameraOptions,
    coordinates: int,
    train: bool,
) -> jax.Array:
    """Normalized 2-D joints with confidence `[M, T, V, 3]`, of 3-D joints through a camera or of a picture's joints."""
    if coordinates == 3:
        clip = camera.see(clip[..., :3], body, key, options) if train else camera.look(clip[..., :3], body, options)
    elif clip.shape[-1] == coordinates:
        clip = jnp.concatenate([clip, jnp.ones_like(clip[..., :1])], axis=-1)
    return camera.normalise_picture(clip, body, bodies)


def _stream(clip: jax.Array, stream: str, parents: np.ndarray, coordinates: int) -> jax.Array:
    if stream == JOINT_BONE:
        return jnp.concatenate([clip[..., :coordinates], bones(clip, parents, coordinates)], axis=-1)
    if stream in ("bone", "bone_motion"):
        clip = bones(clip, parents, coordinates)
    if stream in ("joint_motion", "bone_motion"):
        clip = motion(clip, coordinates)
    return clip


def paced_window(
    clip: jax.Array, frames: jax.Array, key: jax.Array, window: int, pace: tuple[float, float], coordinates: int
) -> jax.Array:
    """Draws a window of `pace` times `window` frames from anywhere in the clip and resizes it to `window` frames.

    So the model sees actions at about their true speed, cut as a sliding window cuts them. Before its first and after
    its last frame the clip stands still. A clip that ends in the pose and at the place where it began is repeated
    instead, in half of the cases, as people repeat what they do. `[M, T, V, C]` -> `[M, window, V, C]`.
    """
    pace_key, begin_key, repeat_key = jax.random.split(key, 3)
    length = window * jax.random.uniform(pace_key, minval=pace[0], maxval=pace[1])
    # A clip that is much shorter than the window is slowed down rather than lost between still frames.
    length = jnp.minimum(length, 1.6 * frames)
    spare = 0.15 * length
    least, largest = jnp.minimum(-spare, frames - length), jnp.maximum(frames - length + spare, 0.0)
    begin = jax.random.uniform(begin_key)
    first, last = clip[0, 0, :, :coordinates], clip[0, frames - 1, :, :coordinates]
    extent = jnp.linalg.norm(first - first.mean(axis=0), axis=-1).mean()  # about a trunk's length, in any layout
    repeats = (jnp.linalg.norm(first - last, axis=-1).mean() < _SAME_POSE * extent) & jax.random.bernoulli(repeat_key)
    steps = (jnp.arange(window) + 0.5) * (length / window) - 0.5
    once = jnp.clip(least + begin * (largest - least) + steps, 0, frames - 1)
    again = (begin * frames + steps) % frames
    position = jnp.where(repeats, again, once)
    left = jnp.clip(jnp.floor(position).astype(jnp.int32), 0, frames - 1)
    right = jnp.where(repeats, (left + 1) % frames, jnp.minimum(left + 1, frames - 1))
    weight = (position - left)[None, :, None, None]
    return clip[:, left] * (1 - weight) + clip[:, right] * weight


def _crop_resize_recipe(
    clip: jax.Array, frames: jax.Array, key: jax.Array, options: TransformOptions, coordinates: int, train: bool
) -> jax.Array:
    if not train:
        return crop_resize(clip, *centred_crop(frames, options.test_crop), options.window)
    crop_key, rotation_key = jax.random.split(key)
    begin, length = random_crop(crop_key, frames, options.crop_interval, options.window)
    clip = crop_resize(clip, begin, length, options.window)
    angles = jax.random.uniform(rotation_key, (3,), minval=-options.rotation, maxval=options.rotation)
    if coordinates == 2:
        angles = angles.at[:2].set(0.0)  # a picture rotates about the axis perpendicular to it
    return rotate(clip, rotation_matrix(angles)[:coordinates, :coordinates])


def _view_normalised_recipe(
    clip: jax.Array, frames: jax.Array, key: jax.Array, options: TransformOptions, max_frames: Any, train: bool
) -> jax.Array:
    if not train:
        return normalise_range(clip, frames)[:, even_frames(frames, max_frames, options.window)]
    view_key, sample_key = jax.random.split(key)
    bound = round(options.rotation)
    degrees = jax.random.randint(view_key, (2,), -bound, bound + 1)
    clip = rotate(clip, view_matrix(jnp.deg2rad(degrees)))
    return normalise_range(clip, frames)[:, random_frames(sample_key, frames, options.window)]


def copy_first_body(clip: jax.Array, bodies: jax.Array) -> jax.Array:
    """Puts a copy of the first body where a body is absent. `[M, T, V, C]`."""
    absent = jnp.arange(clip.shape[0])[:, None, None, None] >= bodies
    return jnp.where(absent, clip[:1], clip)


def subtract_joint(
    clip: jax.Array, joint: int, frames: jax.Array, bodies: jax.Array, absent_body: str, coordinates: int
) -> jax.Array:
    """Moves the origin to `joint` of the first body in the first frame; padding and absent bodies stay zero.

    `[M, T, V, C]`; channels after the `coordinates` stay.
    """
    origin = clip[0, 0, joint, :coordinates]
    real = jnp.arange(clip.shape[1])[None, :, None, None] < frames
    if absent_body == "zeros":
        real = real & (jnp.arange(clip.shape[0])[:, None, None, None] < bodies)
    return clip.at[..., :coordinates].add(jnp.where(real, -origin, 0.0))


def random_crop(key: jax.Array, frames: jax.Array, interval: tuple[float, float], window: int):
    """Draws a crop: a fraction uniform in `interval`, at least `window` frames if the clip has as many, any start.

    Returns (begin, length), int32 scalars.
    """
    fraction_key, begin_key = jax.random.split(key)
    fraction = jax.random.uniform(fraction_key, minval=interval[0], maxval=interval[1])
    length = crop_length(fraction, frames, window)
    return jax.random.randint(begin_key, (), 0, frames - length + 1), length


def crop_length(fraction: jax.Array, frames: jax.Array, window: int) -> jax.Array:
    """Length of a training crop: `clip(floor(fraction * frames), window, frames)`."""
    return jnp.minimum(jnp.maximum(jnp.floor(fraction * frames).astype(jnp.int32), window), frames)


def centred_crop(frames: jax.Array, fraction: float):
    """Returns (begin, length) of the centered test crop, as CTR-GCN rounds it."""
    begin = jnp.floor((1 - fraction) * frames / 2).astype(jnp.int32)
    return begin, frames - 2 * begin


def crop_resize(clip: jax.Array, begin: jax.Array, length: jax.Array, window: int) -> jax.Array:
    """Resizes frames [begin, begin + length) to `window` frames linearly (PyTorch's `align_corners=False`).

    `[M, T, V, C]` -> `[M, window, V, C]`.
    """
    position = jnp.maximum((jnp.arange(window) + 0.5) * (length / window) - 0.5, 0.0)
    left = jnp.minimum(jnp.floor(position).astype(jnp.int32), length - 1)
    right = jnp.minimum(left + 1, length - 1)
    weight = (position - left)[None, :, None, None]
    return clip[:, begin + left] * (1 - weight) + clip[:, begin + right] * weight


def rotation_matrix(angles: jax.Array) -> jax.Array:
    """Rotation by `angles` (radians about x, y, z, in this order) as CTR-GCN's `random_rot` defines it. `[3, 3]`."""
    (cx, cy, cz), (sx, sy, sz) = jnp.cos(angles), jnp.sin(angles)
    zero, one = jnp.zeros_like(cx), jnp.ones_like(cx)
    about_x = jnp.array([[one, zero, zero], [zero, cx, sx], [zero, -sx, cx]])
    about_y = jnp.array([[cy, zero, -sy], [zero, one, zero], [sy, zero, cy]])
    about_z = jnp.array([[cz, sz, zero], [-sz, cz, zero], [zero, zero, one]])
    product = lambda a, b: jnp.matmul(a, b, precision="highest")  # noqa: E731
    return product(about_z, product(about_y, about_x))


def view_matrix(angles: jax.Array) -> jax.Array:
    """Rotation by `angles` (radians about x, then y) as the NW-UCLA recipe applies it to row vectors. `[3, 3]`."""
    (cx, cy), (sx, sy) = jnp.cos(angles), jnp.sin(angles)
    zero, one = jnp.zeros_like(cx), jnp.ones_like(cx)
    about_x = jnp.array([[one, zero, zero], [zero, cx, sx], [zero, -sx, cx]])
    about_y = jnp.array([[cy, zero, -sy], [zero, one, zero], [sy, zero, cy]])
    return jnp.matmul(about_y, about_x, precision="highest").T


def rotate(clip: jax.Array, matrix: jax.Array) -> jax.Array:
    """Multiplies every joint's D coordinates (column vectors) by `matrix` `[D, D]`; further channels stay."""
    coordinates = matrix.shape[0]
    rotated = jnp.einsum("ij,mtvj->mtvi", matrix, clip[..., :coordinates], precision="highest")
    return jnp.concatenate([rotated, clip[..., coordinates:]], axis=-1)


def normalise_range(clip: jax.Array, frames: jax.Array) -> jax.Array:
    """Scales each coordinate to [-1, 1] over the first body's real frames (NW-UCLA); a constant axis becomes -1."""
    coordinates = clip[..., :3]
    real = (jnp.arange(clip.shape[1]) < frames)[:, None, None]
    lowest = jnp.min(jnp.where(real, coordinates[0], jnp.inf), axis=(0, 1))
    highest = jnp.max(jnp.where(real, coordinates[0], -jnp.inf), axis=(0, 1))
    extent = jnp.where(highest > lowest, highest - lowest, 1.0)
    scaled = (coordinates - lowest) / extent * 2 - 1
    return jnp.concatenate([scaled, clip[..., 3:]], axis=-1)


def random_frames(key: jax.Array, frames: jax.Array, window: int) -> jax.Array:
    """Draws `window` sorted frame indices without replacement from every index repeated 100 times.

    Floyd's algorithm: every subset of the repeated indices is equally likely. int32 `[window]`.
    """
    population = frames * _REPEATS
    draws = jax.random.uniform(key, (window,))

    def choose(i: int, chosen: jax.Array) -> jax.Array:
        last = population - window + i
        drawn = jnp.minimum((draws[i] * (last + 1)).astype(jnp.int32), last)
        return chosen.at[i].set(jnp.where((chosen == drawn).any(), last, drawn))

    chosen = jax.lax.fori_loop(0, window, choose, jnp.full((window,), -1, jnp.int32))
    return jnp.sort(chosen // _REPEATS)


def even_frames(frames: jax.Array, max_frames: Any, window: int) -> jax.Array:
    """The test frames of a clip of `frames` frames, as the NW-UCLA recipe spaces them. int32 `[window]`.

    They are `linspace(0, frames - 1, window)` in float64, truncated. `max_frames` is the most frames of a clip; where
    it is unknown when the program is traced, a symbolic dimension, no table of all lengths can be made. Then whole
    numbers are divided, and the few results that float64 rounds to less are corrected, in clips of up to 16,384 frames.
    """
    if isinstance(max_frames, int):
        return jnp.asarray(_even_frames_table(max_frames, window))[frames]
    positions = jnp.arange(window)
    indices = positions * (frames - 1) // max(window - 1, 1)
    rounded_down = _rounded_down(_CORRECTED_FRAMES, window)
    if rounded_down.size:
        codes = frames * window + positions
        place = jnp.minimum(jnp.searchsorted(rounded_down, codes), rounded_down.size - 1)
        indices = indices - (jnp.asarray(rounded_down)[place] == codes)
    return indices.astype(jnp.int32)


def _rounded_down(max_frames: int, window: int) -> np.ndarray:
    """Where float64 gives one frame less than whole numbers do: sorted int32, `frames * window + position`."""
    last = np.arange(1, max_frames)  # not 0: linspace computes in another order if a step of an array is zero
    exact = np.arange(window) * last[:, None] // max(window - 1, 1)
    rows, positions = np.nonzero(exact != np.linspace(0, last, window, axis=1).astype(np.int64))
    return ((last[rows] + 1) * window + positions).astype(np.int32)


def _even_frames_table(max_frames: int, window: int) -> np.ndarray:
    """int32 `[max_frames + 1, window]`: for each clip length, the test frames, `linspace` truncated in float64."""
    table = [np.linspace(0, max(frames - 1, 0), window).astype(np.int32) for frames in range(max_frames + 1)]
    return np.stack(table)


def bones(clip: jax.Array, parents: np.ndarray, coordinates: int) -> jax.Array:
    """Vectors from each joint's parent to the joint; the root's is zero. `[M, T, V, C]`.

    Channels after the `coordinates` stay: a bone keeps its joint's confidence. (The parent's is at the
    parent, where graph convolutions see it; pyskl takes the mean of the two.)
    """
    vectors = clip[..., :coordinates] - clip[..., parents, :coordinates]
    return jnp.concatenate([vectors, clip[..., coordinates:]], axis=-1)


def motion(clip: jax.Array, coordinates: int) -> jax.Array:
    """Differences between frames, the last one zero. `[M, T, V, C]`.

    Channels after the `coordinates` stay: a difference keeps its first frame's confidence.
    """
    differences = jnp.diff(clip[..., :coordinates], axis=1)
    differences = jnp.pad(differences, ((0, 0), (0, 1), (0, 0), (0, 0)))
    return jnp.concatenate([differences, clip[..., coordinates:]], axis=-1)


def normalise_images(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """uint8 RGB `[N, H, W, 3]` -> float32 with `mean` and `std`, of RGB in [0, 1], taken out (Norm of eq. 3)."""
    return (images.astype(jnp.float32) / 255 - jnp.array(mean)) / jnp.array(std)
