"""Variations of 3-D clips that a dataset lacks: walking that gets somewhere, squats with the arms held in other ways.

Clips are `[M, T, V, 3]` with y up, of one person; directions come from the first body.
"""

import numpy as np

from mmcl_jax.data.layouts import Layout

_ON_THE_SPOT = 0.6  # trunk lengths that the hips of a clip move at most for `travelling` to apply
_LEGS = ("hip", "knee", "ankle")
_LARGEST_LEAN = 1.6  # radians for hips lowered by the length of the legs; a deep squat lowers them by half of it
# Where elbow and wrist may be held: outwards, ahead and up from the shoulder, in trunk lengths.
_HOLDS = (
    ((0.05, 0.10, -0.40), (-0.15, 0.35, -0.15)),  # hands before the chest
    ((0.20, -0.05, -0.35), (0.05, 0.05, 0.05)),  # a bar on the shoulders
    ((0.05, 0.00, -0.55), (0.05, 0.05, -1.05)),  # hanging
    ((0.30, -0.15, -0.45), (0.10, 0.00, -0.80)),  # on the hips
    ((0.00, 0.50, -0.10), (0.00, 1.00, -0.05)),  # straight ahead
    ((-0.05, 0.35, -0.35), (-0.20, 0.55, 0.00)),  # folded
)


def travelling(clip: np.ndarray, layout: Layout, speed: float, turn: float) -> np.ndarray | None:
    """A clip `[M, T, V, 3]` on the spot, moved ahead by `speed` per frame at most; None if it is not on the spot.

    It moves while its legs do, in the direction that its shoulders face, turned by `turn` radians.
    """
    left, right = (np.array([layout.joints.index(f"{side} {name}") for name in _LEGS]) for side in ("left", "right"))
    shoulders = [layout.joints.index(f"{side} shoulder") for side in ("left", "right")]
    first = clip[0]
    hips, middle = first[:, [left[0], right[0]]].mean(axis=1), first[:, shoulders].mean(axis=1)
    trunk = np.median(np.linalg.norm(middle - hips, axis=-1))
    if len(first) < 3 or np.ptp(hips[:, [0, 2]], axis=0).max() > _ON_THE_SPOT * trunk:
        return None
    legs = first[:, np.concatenate([left[1:], right[1:]])] - hips[:, np.newaxis]
    activity = np.linalg.norm(np.gradient(legs, axis=0), axis=-1).mean(axis=1)
    activity = np.convolve(activity, np.ones(7) / 7, mode="same")
    moving = np.clip(2 * activity / max(activity.max(), 1e-6), 0, 1)
    across = np.median(first[:, shoulders[1]] - first[:, shoulders[0]], axis=0)
    angle = np.arctan2(-across[0], across[2]) + turn  # of the horizontal direction (across[2], -across[0])
    step = speed * np.array([np.cos(angle), 0, np.sin(angle)])
    return (clip + (np.cumsum(moving)[:, np.newaxis] * step)[np.newaxis, :, np.newaxis]).astype(np.float32)


def restyled(clip: np.ndarray, layout: Layout, draws: np.random.Generator) -> np.ndarray:
    """A clip `[M, T, V, 3]` with a drawn lean of the trunk and arms held in a drawn way.

    The trunk leans forward by an angle in proportion to how far the hips are lowered. Half of the arms are held from
    beginning to end, half come into their place as the hips go down.
    """
    numbers = {name: layout.joints.index(name) for name in layout.joints}
    first = clip[0]
    hips = first[:, [numbers["left hip"], numbers["right hip"]]].mean(axis=1)
    middle = first[:, [numbers["left shoulder"], numbers["right shoulder"]]].mean(axis=1)
    trunk = float(np.median(np.linalg.norm(middle - hips, axis=-1)))
    legs = float(np.max(hips[:, 1] - first[:, [numbers["left ankle"], numbers["right ankle"]], 1].mean(axis=1)))
    low = np.clip((np.percentile(hips[:, 1], 90) - hips[:, 1]) / max(legs, 1e-6), 0, 1)
    across = np.median(first[:, numbers["right shoulder"]] - first[:, numbers["left shoulder"]], axis=0) * (1, 0, 1)
    across = across / max(float(np.linalg.norm(across)), 1e-6)
    ahead, up = np.array([across[2], 0, -across[0]]), np.array([0.0, 1.0, 0.0])
    lower = {numbers[f"{side} {name}"] for side in ("left", "right") for name in _LEGS}
    upper = [joint for joint in range(layout.num_joints) if joint not in lower]
    changed = clip.astype(np.float64)
    angle = draws.uniform(0, _LARGEST_LEAN) * low
    rise, depth = (((changed[:, :, upper] - hips[:, None]) @ axis) for axis in (up, ahead))
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    changed[:, :, upper] += (rise * (cos - 1) - depth * sin)[..., None] * up
    changed[:, :, upper] += (rise * sin + depth * (cos - 1))[..., None] * ahead
    held = np.ones_like(low) if draws.random() < 0.5 else np.clip(3 * low, 0, 1)
    axes = np.stack([cos * ahead - sin * up, cos * up + sin * ahead], axis=1)  # of the leaning trunk, [T, 2, 3]
    hold = _HOLDS[draws.integers(len(_HOLDS))]
    if draws.random() < 0.85:
        for joint, (out, front, above) in zip(("elbow", "wrist"), hold, strict=True):
            for side, outwards in (("left", -across), ("right", across)):
                out_, front_, above_ = np.array([out, front, above]) + draws.normal(scale=0.08, size=3)
                offset = trunk * (out_ * outwards + front_ * axes[:, 0] + above_ * axes[:, 1])
                place = changed[:, :, numbers[f"{side} shoulder"]] + offset
                number = numbers[f"{side} {joint}"]
                changed[:, :, number] += held[:, None] * (place - changed[:, :, number])
    return changed.astype(np.float32)
