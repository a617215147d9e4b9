"""Augmentations that no published recipe here has: pure functions of one raw clip, all off by default.

A clip is `[M, T, V, C]`, padded with zeros to T frames, with its real number of frames and bodies. Coordinates come
first among the channels; a confidence may follow. Absent bodies and padding keep their values where they are zero.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.data.layouts import Layout
from mmcl_jax.runtime.errors import ConfigError

_KEY = 0x617567  # these draws are independent of the recipe's, which stay the same if an augmentation is switched on


@dataclasses.dataclass(frozen=True)
class AugmentationOptions:
    """What happens to a training clip in addition to the recipe; 0 switches each off.

    Attributes:
      flip: probability to mirror a clip, see `mirror`.
      joint_dropout: probability of each joint to be lost, see `drop_joints`.
      noise: standard deviation of the noise on each coordinate, in the units of the clip.
      speed_change: largest change of the speed, see `change_speed`.

    Raises: ConfigError for a number outside its range.
    """

    flip: float = 0.0
    joint_dropout: float = 0.0
    noise: float = 0.0
    speed_change: float = 0.0

    def __post_init__(self):
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"data.flip {self.flip} is not a probability, 0 to 1")
        if not 0 <= self.joint_dropout < 1:
            raise ConfigError(f"data.joint_dropout {self.joint_dropout} is not a probability below 1")
        if self.noise < 0:
            raise ConfigError(f"data.noise {self.noise} is negative; 0 switches it off")
        if not 0 <= self.speed_change < 1:
            raise ConfigError(f"data.speed_change {self.speed_change} is not within 0 and 1; at 1 a clip stands still")

    @property
    def any(self) -> bool:
        """Whether one of them is on."""
        return any(dataclasses.astuple(self))


NO_AUGMENTATION = AugmentationOptions()


def augment(
    clip: jax.Array,
    frames: jax.Array,
    bodies: jax.Array,
    key: jax.Array,
    options: AugmentationOptions,
    mirrored: np.ndarray | None,
    coordinates: int,
) -> jax.Array:
    """The augmentations that are on, in the order mirror, speed, noise, lost joints. `[M, T, V, C]`.

    Args:
      clip: the clip.
      frames, bodies: how many of its frames and bodies are real.
      key: of the clip.
      options: which.
      mirrored: `mirrored_joints` of the layout; needed to mirror.
      coordinates: how many of the channels are coordinates.
    """
    flip_key, speed_key, noise_key, drop_key = jax.random.split(jax.random.fold_in(key, _KEY), 4)
    if options.flip:
        assert mirrored is not None
        flipped = mirror(clip, mirrored)
        clip = jnp.where(jax.random.bernoulli(flip_key, options.flip), flipped, clip)
    if options.speed_change:
        change = jax.random.uniform(speed_key, minval=-options.speed_change, maxval=options.speed_change)
        clip = change_speed(clip, frames, change)
    if options.noise:
        clip = add_noise(clip, frames, bodies, options.noise * jax.random.normal(noise_key, clip.shape), coordinates)
    if options.joint_dropout:
        lost = jax.random.bernoulli(drop_key, options.joint_dropout, (clip.shape[0], clip.shape[2]))
        clip = drop_joints(clip, lost)
    return clip


def mirrored_joints(layout: Layout) -> np.ndarray:
    """int `[V]`: for each joint the one on the other side, by the words left and right in their names.

    Raises: ConfigError if the layout has no such pair, or a joint whose other side is missing.
    """
    order = list(range(layout.num_joints))
    places = {name.casefold(): joint for joint, name in enumerate(layout.joints)}
    for name, joint in places.items():
        if "left" not in name and "right" not in name:
            continue
        other = name.replace("left", "\0").replace("right", "left").replace("\0", "right")
        if other not in places:
            raise ConfigError(f"data.flip: the layout has the joint {layout.joints[joint]!r} but no {other!r}")
        order[joint] = places[other]
    if order == list(range(layout.num_joints)):
        raise ConfigError(
            "data.flip: no joint of the layout has 'left' or 'right' in its name, so nothing says which joints are "
            f"pairs ({', '.join(layout.joints[:5])}, ...); switch it off with --config.data.flip=0"
        )
    return np.array(order)


def mirror(clip: jax.Array, mirrored: np.ndarray) -> jax.Array:
    """The clip in a mirror: x is negated and the joints of both sides are exchanged. Its own inverse."""
    exchanged = clip[:, :, mirrored]
    return exchanged.at[..., 0].multiply(-1)


def change_speed(clip: jax.Array, frames: jax.Array, change: jax.Array) -> jax.Array:
    """The clip, which begins and ends as before, at a speed that goes from `1 + change` to `1 - change`.

    A uniform change would be lost, because the recipes resize clips to a window. At time t, 0 to 1, the result is at
    `t + change sin(pi t) / pi` of the clip, between two frames linearly. The padding stays.
    """
    last = jnp.maximum(frames - 1, 1)
    times = jnp.arange(clip.shape[1])
    t = jnp.minimum(times, last) / last
    position = (t + change * jnp.sin(jnp.pi * t) / jnp.pi) * last
    left = jnp.clip(jnp.floor(position).astype(jnp.int32), 0, jnp.maximum(frames - 2, 0))
    weight = (position - left)[None, :, None, None]
    right = jnp.minimum(left + 1, jnp.maximum(frames - 1, 0))
    moved = clip[:, left] * (1 - weight) + clip[:, right] * weight
    return jnp.where((times < frames)[None, :, None, None], moved, clip)


def add_noise(clip: jax.Array, frames: jax.Array, bodies: jax.Array, noise: jax.Array, coordinates: int) -> jax.Array:
    """Adds `noise` `[M, T, V, C]` to the coordinates of real frames and bodies; further channels stay."""
    real = (jnp.arange(clip.shape[1]) < frames)[:, None, None] & (jnp.arange(clip.shape[3]) < coordinates)
    real = real & (jnp.arange(clip.shape[0]) < bodies)[:, None, None, None]
    return clip + jnp.where(real, noise, 0)


def drop_joints(clip: jax.Array, lost: jax.Array) -> jax.Array:
    """Puts the joints that are `lost`, bool `[M, V]`, at the origin in every frame, with a confidence of zero.

    So do pose estimators with joints that they do not find.
    """
    return jnp.where(lost[:, None, :, None], 0, clip)
