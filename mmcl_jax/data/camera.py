"""Random cameras: 3-D skeletons become what a pose estimator would see of them in a picture.

A model that is trained on such clips works on poses of ordinary video, from any side. `see` is the whole path of a
training clip: another body, another camera, the errors of a pose estimator. `look` is the fixed camera of evaluation.
`normalise_picture` is what training, evaluation and prediction do to 2-D joints alike.

3-D clips have the axes of a Kinect: x to the right of the picture that the Kinect shows, which is mirrored, y up, z
away from the sensor. Pictures have x to the right and y down, so both change their sign. Lengths do not matter: a clip
is scaled so that the trunk measures half a meter.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.data.layouts import Layout, LayoutError
from mmcl_jax.data.layouts.layout import plain_name
from mmcl_jax.runtime.errors import ConfigError

VIEWS = ("none", "random")
TRUNK = 0.5  # meters from the middle of the hips to the middle of the shoulders, to which every body is scaled
NEAREST = 1.0  # meters that a person comes to the camera at most
_CHANNELS = 3  # x, y, confidence


@dataclasses.dataclass(frozen=True)
class CameraOptions:
    """How clips reach a model that sees pictures.

    Attributes:
      views: 'none': clips stay as they are. 'random': 3-D clips are seen by a random camera in training and by a fixed
        one in evaluation; 2-D clips, with or without confidence, are taken as poses from a picture.
      yaw: bound of the camera's turn about the vertical, degrees; 180: from all sides.
      pitch: least and largest angle at which the camera looks down, degrees.
      roll: bound of the camera's tilt, degrees.
      distance: least and largest distance to the person, meters, for a trunk of half a meter.
      noise: size of a pose estimator's errors: 1 as measured, 0 none.
      occlusion: probability that a clip has hidden, swapped or missing joints.
      moves: probability that the camera moves closer, away or past.
      follow: probability that the camera turns after a person who moves.
      mirror: whether half of the clips are mirrored, left for right.
      test_yaw, test_pitch, test_distance: the camera of evaluation; yaw 0 sees what the sensor saw.

    Raises: ConfigError for an unknown value, or a number outside its range.
    """

    views: str = "none"
    yaw: float = 180.0
    pitch: tuple[float, float] = (-10.0, 30.0)
    roll: float = 6.0
    distance: tuple[float, float] = (2.0, 7.0)
    noise: float = 1.0
    occlusion: float = 0.5
    moves: float = 0.4
    follow: float = 0.3
    mirror: bool = True
    test_yaw: float = 0.0
    test_pitch: float = 5.0
    test_distance: float = 4.0

    def __post_init__(self):
        if self.views not in VIEWS:
            raise ConfigError(f"camera.views {self.views!r} is not one of {', '.join(VIEWS)}")
        for name, value, least, largest in (
            ("yaw", self.yaw, 0, 180),
            ("roll", self.roll, 0, 180),
            ("noise", self.noise, 0, 100),
            ("occlusion", self.occlusion, 0, 1),
            ("moves", self.moves, 0, 1),
            ("follow", self.follow, 0, 1),
            ("test_pitch", self.test_pitch, -90, 90),
            ("test_distance", self.test_distance, NEAREST, 1000),
        ):
            if not least <= value <= largest:
                raise ConfigError(f"camera.{name} {value} is not within {least} and {largest}")
        for name, (low, high), least, largest in (
            ("pitch", self.pitch, -90, 90),
            ("distance", self.distance, NEAREST, 1000),
        ):
            if not least <= low <= high <= largest:
                raise ConfigError(
                    f"camera.{name} {(low, high)} is not two numbers within {least} and {largest}, the least first"
                )


NO_CAMERA = CameraOptions()


@dataclasses.dataclass(frozen=True, eq=False)
class Body:
    """Joint numbers of a layout that this module needs.

    Attributes:
      parents: int `[V]`, see `Layout.parents`.
      order: the joints, each after its parent.
      swapped: int `[V]`: for each joint, the same joint of the other side.
      side: int `[V]`: -1 left, 1 right, 0 neither.
      scale: int `[V]`: a number for each bone, the same for its like on the other side, which changes as it does.
      shoulders, hips: the two joints.
      arms, legs: `[V]` 1 for elbows and wrists, and for knees and ankles and what follows them.
    """

    parents: np.ndarray
    order: tuple[int, ...]
    swapped: np.ndarray
    side: np.ndarray
    scale: np.ndarray
    shoulders: tuple[int, int]
    hips: tuple[int, int]
    arms: np.ndarray
    legs: np.ndarray

    @classmethod
    def of(cls, layout: Layout) -> "Body":
        """The numbers of `layout`. Raises: LayoutError if it has no shoulders or hips."""
        names = [plain_name(name) for name in layout.joints]
        wanted = [f"{side} {joint}" for joint in ("shoulder", "hip") for side in ("left", "right")]
        missing = [name for name in wanted if name not in names]
        if missing:
            raise LayoutError(f"a camera needs the joints {', '.join(wanted)}; the layout lacks {', '.join(missing)}")
        parents, swapped = layout.parents, layout.mirror
        sides = [("left" in name.split()) - ("right" in name.split()) for name in names]
        depth = [len(_ancestors(parents, joint)) for joint in range(len(names))]
        girdle = [names.index(name) for name in wanted]

        def below(starts: list[int]) -> np.ndarray:
            return np.array([bool({*starts} & {*_ancestors(parents, joint)}) for joint in range(len(names))])

        legs = below(girdle[2:])

        return cls(
            parents=parents,
            order=tuple(int(joint) for joint in np.argsort(depth, kind="stable")),
            swapped=swapped,
            side=-np.array(sides),
            scale=np.minimum(swapped, np.arange(len(names))),
            shoulders=(girdle[0], girdle[1]),
            hips=(girdle[2], girdle[3]),
            arms=below(girdle[:2]) & ~legs & ~np.isin(np.arange(len(names)), girdle),
            legs=legs,
        )


def _ancestors(parents: np.ndarray, joint: int) -> list[int]:
    found = []
    while parents[joint] != joint:
        joint = int(parents[joint])
        found.append(joint)
    return found


def see(clip: jax.Array, body: Body, key: jax.Array, options: CameraOptions) -> jax.Array:
    """What a pose estimator sees of a 3-D clip `[M, T, V, 3]` through a random camera: `[M, T, V, 3]`.

    The result is x and y in the picture and a confidence; see `normalise_picture`.
    """
    keys = jax.random.split(key, 4)
    clip = metric(clip, body)
    if options.mirror:
        clip = jnp.where(jax.random.bernoulli(keys[0]), mirror(clip, body), clip)
    clip = other_proportions(clip, body, keys[1])
    picture, depths, hips = _random_view(clip, body, keys[2], options)
    picture, confidence = estimator_errors(picture, depths, hips, body, keys[3], options)
    return jnp.concatenate([picture, confidence[..., None]], axis=-1)


def look(clip: jax.Array, body: Body, options: CameraOptions) -> jax.Array:
    """What the camera of evaluation sees of a 3-D clip `[M, T, V, 3]`: x, y and confidence 1, `[M, T, V, 3]`."""
    yaw, pitch = jnp.deg2rad(options.test_yaw), jnp.deg2rad(options.test_pitch)
    scene = turn(metric(clip, body), body, yaw, pitch, jnp.zeros(()))
    picture, _ = project(scene, body, jnp.asarray(options.test_distance), jnp.zeros(2))
    return jnp.concatenate([picture, jnp.ones_like(picture[..., :1])], axis=-1)


def middle(clip: jax.Array, joints: tuple[int, int]) -> jax.Array:
    """The middle of two joints: `[M, T, V, C]` -> `[M, T, C]`."""
    return (clip[:, :, joints[0]] + clip[:, :, joints[1]]) / 2


def metric(clip: jax.Array, body: Body) -> jax.Array:
    """Scales a 3-D clip so that the first body's trunk has its usual length (median over the frames)."""
    trunk = jnp.linalg.norm((middle(clip, body.shoulders) - middle(clip, body.hips))[0], axis=-1)
    return clip * (TRUNK / jnp.maximum(jnp.median(trunk), 1e-6))


def mirror(clip: jax.Array, body: Body) -> jax.Array:
    """The mirrored action: x changes its sign and left and right change places. `[M, T, V, C]`."""
    return clip[:, :, body.swapped].at[..., 0].multiply(-1.0)


def other_proportions(clip: jax.Array, body: Body, key: jax.Array) -> jax.Array:
    """Another person: bones change their lengths by some 10 %, the left and the right one alike. `[M, T, V, 3]`."""
    ratios = jnp.exp(0.1 * jax.random.normal(key, (int(body.scale.max()) + 1,)))[body.scale]
    bones = (clip - clip[:, :, body.parents]) * ratios[:, None]
    placed: dict[int, jax.Array] = {}
    for joint in body.order:
        parent = int(body.parents[joint])
        placed[joint] = clip[:, :, joint] if parent == joint else placed[parent] + bones[:, :, joint]
    changed = jnp.stack([placed[joint] for joint in range(len(body.parents))], axis=2)
    return changed + (middle(clip, body.hips) - middle(changed, body.hips))[:, :, None]


def _random_view(clip: jax.Array, body: Body, key: jax.Array, options: CameraOptions):
    """The picture `[M, T, V, 2]` of a random camera, the joints' depths `[M, T, V]` and that of the hips `[T]`."""
    uniform_key, shake_key = jax.random.split(key)
    draws = jax.random.uniform(uniform_key, (11,), minval=-1.0)
    between = lambda draw, low, high: low + (draw + 1) / 2 * (high - low)  # noqa: E731
    yaw, pitch = options.yaw * draws[0], between(draws[1], *options.pitch)
    distance = jnp.exp(between(draws[2], *np.log(options.distance)))
    scene = turn(clip, body, jnp.deg2rad(yaw), jnp.deg2rad(pitch), jnp.deg2rad(options.roll * draws[3]))
    # A camera in a moving hand: the person comes closer, goes away or glides past.
    frames = clip.shape[1]
    moves = draws[9] < 2 * options.moves - 1
    way = moves * draws[4:7] * jnp.array([0.8, 0.2, 1.5])
    scene = scene + (jnp.arange(frames) / max(frames - 1, 1) - 0.5)[:, None, None] * way
    picture, hips = project(scene, body, distance, 0.35 * draws[7:9])  # tangents: people are seldom in the middle
    # A camera that pans after the person, more or less, and shakes a little.
    track = middle(picture, body.hips)[0]
    share = between(draws[10], 0.5, 1.0) * (jnp.abs(draws[9]) < options.follow)
    shake = 0.05 * options.noise * _smooth_noise(shake_key, frames, (2,), 12) * (TRUNK / hips.mean())
    picture = picture - (share * (track - track.mean(axis=0)) + shake)[:, None]
    return picture, scene[..., 2], hips


def turn(clip: jax.Array, body: Body, yaw: jax.Array, pitch: jax.Array, roll: jax.Array) -> jax.Array:
    """Puts the first body's mean hips at the origin and turns the axes to a camera's: x right, y down, z away.

    Angles are in radians: `yaw` about the vertical, `pitch` downwards, `roll` about the line of sight.
    """
    clip = (clip - middle(clip, body.hips)[0].mean(axis=0)) * jnp.array([-1.0, -1.0, 1.0])
    return jnp.einsum("ij,mtvj->mtvi", rotation(yaw, pitch, roll), clip, precision="highest")


def rotation(yaw: jax.Array, pitch: jax.Array, roll: jax.Array) -> jax.Array:
    """The rotation `[3, 3]` of `turn`, which acts on column vectors."""
    (cy, sy), (cp, sp), (cr, sr) = ((jnp.cos(angle), jnp.sin(angle)) for angle in (yaw, pitch, roll))
    zero, one = jnp.zeros_like(cy), jnp.ones_like(cy)
    about_y = jnp.array([[cy, zero, sy], [zero, one, zero], [-sy, zero, cy]])
    about_x = jnp.array([[one, zero, zero], [zero, cp, -sp], [zero, sp, cp]])
    about_z = jnp.array([[cr, -sr, zero], [sr, cr, zero], [zero, zero, one]])
    return jnp.matmul(jnp.matmul(about_z, about_x, precision="highest"), about_y, precision="highest")


def project(scene: jax.Array, body: Body, distance: jax.Array, offset: jax.Array):
    """A pinhole camera at `distance` from the hips' mean place, with the person `offset` `[2]` from its axis.

    Someone who would come closer than a meter moves the camera back. Returns the picture `[M, T, V, 2]` and the depth
    of the first body's hips `[T]`.
    """
    hips = middle(scene, body.hips)[0, :, 2]
    distance = jnp.maximum(distance, NEAREST - hips.min())
    placed = scene[..., :2] + offset * distance
    depth = jnp.maximum(scene[..., 2:] + distance, NEAREST / 2)
    return placed / depth, hips + distance


def _smooth_noise(key: jax.Array, frames: int, shape: tuple[int, ...], period: int) -> jax.Array:
    """Noise of deviation about one that changes within `period` frames: `[frames, *shape]`."""
    knots = jax.random.normal(key, (frames // period + 3, *shape))
    place = jnp.arange(frames) / period + jax.random.uniform(jax.random.fold_in(key, 1))
    left = jnp.floor(place).astype(jnp.int32)
    weight = (place - left).reshape(-1, *(1 for _ in shape))
    weight = weight * weight * (3 - 2 * weight)
    return knots[left] * (1 - weight) + knots[left + 1] * weight


def estimator_errors(
    picture: jax.Array, depths: jax.Array, hips: jax.Array, body: Body, key: jax.Array, options: CameraOptions
):
    """The errors of a pose estimator: jitter, drift, an offset of each joint, and limbs that are hidden or confused.

    Args:
      picture: `[M, T, V, 2]`.
      depths: z of the joints, `[M, T, V]`.
      hips: depth of the first body's hips, `[T]`.
      body: of the layout.
      key: of all draws.
      options: `noise` scales all errors, `occlusion` is the probability of hidden limbs.

    Returns: picture and confidence `[M, T, V]`.
    """
    hide_key, level_key, jitter_key, drift_key = jax.random.split(key, 4)
    picture, confidence = _hide(picture, depths, body, hide_key, options)
    _, frames, joints, _ = picture.shape
    size = (TRUNK / hips)[:, None, None]  # of the trunk, in the picture
    ends = jnp.where(body.arms | body.legs, 1.5, 1.0)[:, None]  # limbs are harder to find than the trunk
    level = jnp.exp(jax.random.uniform(level_key, minval=np.log(0.3), maxval=np.log(1.5)))
    noise = jax.random.normal(jitter_key, (frames + 1, joints, 2))
    jitter, fixed = 0.02 * level * noise[:-1], 0.05 * noise[-1]
    drift = 0.04 * level * _smooth_noise(drift_key, frames, (joints, 2), 8)
    unsure = 1 + 2 * (1 - confidence[0])[..., None]
    return picture + options.noise * size * (ends * unsure * (jitter + drift) + fixed), confidence


def _hide(picture: jax.Array, depths: jax.Array, body: Body, key: jax.Array, options: CameraOptions):
    """Limbs behind the body are guessed from the other side, limbs change sides, joints are missing for a while."""
    scalar_key, joint_key, noise_key = jax.random.split(key, 3)
    _, frames, joints, _ = picture.shape
    draws = jax.random.uniform(scalar_key, (14,))
    by_joint = jax.random.uniform(joint_key, (3, joints))
    chance = draws[0] < options.occlusion
    # The far side: its shoulder and hip are farther away than those of the other.
    left, right = (depths[0, :, body.shoulders[side]] + depths[0, :, body.hips[side]] for side in (0, 1))
    far = jnp.where((left > right)[:, None], body.side < 0, body.side > 0) & (jnp.abs(left - right) > 0.25)[:, None]
    limbs = jnp.where(draws[1] < 0.5, body.arms, jnp.where(draws[1] < 0.75, body.legs, True))
    hidden = chance & far & limbs & _spell(draws[2:4], frames) & (draws[4] < 0.7)
    guessed = picture + (0.3 + 0.7 * by_joint[0])[:, None] * (picture[:, :, body.swapped] - picture)
    picture = jnp.where(hidden[..., None], guessed, picture)
    # Confusion of the sides, of arms, of legs or of all.
    confused = chance & limbs & _spell(draws[5:7], frames) & (draws[7] < 0.2)
    picture = jnp.where(confused[..., None], picture[:, :, body.swapped], picture)
    # Joints that the picture does not show: the legs below its edge, or single ones.
    missing = (draws[8] < 0.1) & body.legs | (by_joint[1] < 0.05) & _spell(draws[9:11], frames)
    # An estimator is unsure of what it cannot see, even where it guesses right. Some give no confidence at all.
    sure = 1 - jnp.abs(0.05 * jax.random.normal(noise_key, (frames, joints)))
    low = 0.05 + 0.9 * by_joint[2]
    unsure = hidden | confused | far & (draws[11] < 0.8) & chance
    confidence = jnp.where(unsure, jnp.minimum(low, sure), sure)
    confidence = jnp.where(draws[12] < 0.2, 1.0, confidence)
    confidence = jnp.where(chance & missing, 0.0, confidence)
    return picture, jnp.broadcast_to(confidence, picture.shape[:-1])


def _spell(draws: jax.Array, frames: int) -> jax.Array:
    """A random stretch of the frames, or all, of two draws in [0, 1): bool `[frames, 1]`."""
    begin, length = 1.4 * draws[0] - 0.5, 0.2 + 1.3 * draws[1]
    place = jnp.arange(frames)[:, None] / frames
    return (place >= begin) & (place < begin + length)


def normalise_picture(clip: jax.Array, body: Body, bodies: jax.Array) -> jax.Array:
    """Puts 2-D joints at a place and size that do not depend on the picture: `[M, T, V, 3]`, x, y, confidence.

    The origin is the mean place of the first body's hips over the frames, the unit its size: the largest of trunk,
    shoulders, thighs and shins in a frame, the median over the frames. So walking stays visible as a movement or as
    growing. Joints of confidence 0 and absent bodies are put at the origin and do not count.
    """
    places, confidence = clip[..., :2], clip[..., 2]
    known = confidence > 0
    hips, hips_known = middle(places, body.hips)[0], known[0, :, body.hips[0]] & known[0, :, body.hips[1]]
    shoulders = middle(places, body.shoulders)[0]
    shoulders_known = known[0, :, body.shoulders[0]] & known[0, :, body.shoulders[1]]
    # Where the hips are not seen, the shoulders give the place.
    anchor = jnp.where(hips_known.any(), hips, shoulders)
    counted = jnp.where(hips_known.any(), hips_known, shoulders_known)[:, None]
    origin = jnp.where(counted, anchor, 0.0).sum(axis=0) / jnp.maximum(counted.sum(), 1)
    trunk = jnp.linalg.norm(shoulders - hips, axis=-1) * (hips_known & shoulders_known)
    bones = jnp.linalg.norm(places[0] - places[0][:, body.parents], axis=-1) * known[0] * known[0][:, body.parents]
    measured = jnp.where(body.legs, bones, 0.0).max(axis=-1)
    width = jnp.linalg.norm(places[0, :, body.shoulders[0]] - places[0, :, body.shoulders[1]], axis=-1)
    sizes = jnp.maximum(jnp.maximum(trunk, measured), width * shoulders_known)
    size = jnp.nanmedian(jnp.where(sizes > 0, sizes, jnp.nan))
    size = jnp.where(jnp.isfinite(size) & (size > 1e-6), size, 1.0)
    present = known & (jnp.arange(clip.shape[0])[:, None, None] < bodies)
    placed = jnp.where(present[..., None], (places - origin) / size, 0.0)
    return jnp.concatenate([placed, jnp.where(present, confidence, 0.0)[..., None]], axis=-1)
