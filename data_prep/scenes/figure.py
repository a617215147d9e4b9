"""An articulated figure of 25 joints: fixed bone lengths, posed by joint angles and by targets of hands and feet.

Joints are those of the Kinect v2, in NTU RGB+D's order. The figure's coordinates are right-handed: x to its left, y up,
z to the front, the floor at y = 0, in meters. All functions work on whole clips: every array begins with the frames, T.
"""

import dataclasses

import numpy as np

NUM_JOINTS = 25
SPINE_BASE, SPINE_MID, NECK, HEAD = 0, 1, 2, 3
SHOULDER_LEFT, ELBOW_LEFT, WRIST_LEFT, HAND_LEFT = 4, 5, 6, 7
SHOULDER_RIGHT, ELBOW_RIGHT, WRIST_RIGHT, HAND_RIGHT = 8, 9, 10, 11
HIP_LEFT, KNEE_LEFT, ANKLE_LEFT, FOOT_LEFT = 12, 13, 14, 15
HIP_RIGHT, KNEE_RIGHT, ANKLE_RIGHT, FOOT_RIGHT = 16, 17, 18, 19
SPINE_SHOULDER, HANDTIP_LEFT, THUMB_LEFT, HANDTIP_RIGHT, THUMB_RIGHT = 20, 21, 22, 23, 24

ARMS = {
    "left": (SHOULDER_LEFT, ELBOW_LEFT, WRIST_LEFT, HAND_LEFT, HANDTIP_LEFT, THUMB_LEFT),
    "right": (SHOULDER_RIGHT, ELBOW_RIGHT, WRIST_RIGHT, HAND_RIGHT, HANDTIP_RIGHT, THUMB_RIGHT),
}
LEGS = {
    "left": (HIP_LEFT, KNEE_LEFT, ANKLE_LEFT, FOOT_LEFT),
    "right": (HIP_RIGHT, KNEE_RIGHT, ANKLE_RIGHT, FOOT_RIGHT),
}
# The sign of x on each side: x grows to the figure's left.
SIDES = {"left": 1.0, "right": -1.0}
# (joint, parent): the distance of every pair is the same in all poses.
BONES = (
    *((SPINE_MID, SPINE_BASE), (SPINE_SHOULDER, SPINE_MID), (NECK, SPINE_SHOULDER), (HEAD, NECK)),
    *((hip, SPINE_BASE) for hip in (HIP_LEFT, HIP_RIGHT)),
    *((shoulder, SPINE_SHOULDER) for shoulder in (SHOULDER_LEFT, SHOULDER_RIGHT)),
    *(pair for arm in ARMS.values() for pair in zip(arm[1:4], arm[:3], strict=True)),
    *(pair for arm in ARMS.values() for pair in ((arm[4], arm[3]), (arm[5], arm[3]))),
    *(pair for leg in LEGS.values() for pair in zip(leg[1:], leg[:-1], strict=True)),
)
# Left and right exchanged: the joint order of the mirror image.
MIRRORED = np.arange(NUM_JOINTS)
for _limbs in (ARMS, LEGS):
    MIRRORED[list(_limbs["left"])], MIRRORED[list(_limbs["right"])] = _limbs["right"], _limbs["left"]


@dataclasses.dataclass(frozen=True)
class Body:
    """Bone lengths of one person, meters."""

    height: float
    spine_low: float
    spine_high: float
    neck: float
    head: float
    shoulder: float
    upper_arm: float
    forearm: float
    hand: float
    fingers: float
    hip: float
    thigh: float
    shin: float
    foot: float

    @property
    def arm(self) -> float:
        return self.upper_arm + self.forearm

    @property
    def ankle_height(self) -> float:
        return 0.045 * self.height

    @property
    def standing(self) -> float:
        """Height of the base of the spine above the floor, for a person who stands with almost straight knees."""
        return self.ankle_height + 0.985 * (self.thigh + self.shin) + 0.3 * self.hip

    @property
    def sitting(self) -> float:
        """Height of the base of the spine above the floor, for a person on a chair."""
        return self.ankle_height + self.shin + 0.02


def sample_body(rng: np.random.Generator) -> Body:
    """Draws a person 1.55 to 1.9 m tall; each proportion is within a few percent of the average adult's."""
    height = rng.uniform(1.55, 1.9)
    fractions = {
        "spine_low": 0.17,
        "spine_high": 0.11,
        "neck": 0.04,
        "head": 0.08,
        "shoulder": 0.1,
        "upper_arm": 0.16,
        "forearm": 0.14,
        "hand": 0.045,
        "fingers": 0.045,
        "hip": 0.055,
        "thigh": 0.235,
        "shin": 0.235,
        "foot": 0.075,
    }
    return Body(height, **{name: height * share * rng.uniform(0.96, 1.04) for name, share in fractions.items()})


def ramp(time: np.ndarray, start: float, stop: float) -> np.ndarray:
    """Minimum-jerk rise from 0 at `start` to 1 at `stop`: how a hand moves from rest to rest."""
    x = np.clip((time - start) / (stop - start), 0.0, 1.0)
    return x**3 * (10 - 15 * x + 6 * x**2)


def pulse(time: np.ndarray, start: float, full: float, release: float, stop: float) -> np.ndarray:
    """Rises from 0 at `start` to 1 at `full`, stays, and falls from `release` to 0 at `stop`."""
    return ramp(time, start, full) - ramp(time, release, stop)


def vectors(x, y, z) -> np.ndarray:
    """Stacks coordinates (numbers or [T]) to [T, 3], or to [3] if all three are numbers."""
    return np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float64)


def blend(weight: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Moves from `start` to `end` ([T, 3] or [3]) as `weight` [T] goes from 0 to 1."""
    return start + weight[:, None] * (end - start)


def unit(v: np.ndarray) -> np.ndarray:
    """Vectors [..., 3] scaled to length 1."""
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def turn(pitch=0.0, yaw=0.0, roll=0.0) -> np.ndarray:
    """Rotations [T, 3, 3] or [3, 3], radians: roll about z, then pitch about x (forwards), then yaw about y (left)."""
    pitch, yaw, roll = np.broadcast_arrays(pitch, yaw, roll)
    one, zero = np.ones(pitch.shape), np.zeros(pitch.shape)

    def matrix(*entries):
        return np.stack(entries, axis=-1).reshape(*pitch.shape, 3, 3)

    about_x = matrix(one, zero, zero, zero, np.cos(pitch), -np.sin(pitch), zero, np.sin(pitch), np.cos(pitch))
    about_y = matrix(np.cos(yaw), zero, np.sin(yaw), zero, one, zero, -np.sin(yaw), zero, np.cos(yaw))
    about_z = matrix(np.cos(roll), -np.sin(roll), zero, np.sin(roll), np.cos(roll), zero, zero, zero, one)
    return about_y @ about_x @ about_z


def apply(rotation: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Rotates vectors [T, 3] or [3] by matrices [T, 3, 3]."""
    return np.einsum("...ij,...j->...i", rotation, v)


def two_bones(root, target, upper: float, lower: float, pole) -> tuple[np.ndarray, np.ndarray]:
    """Places the middle and the end of a limb; the end is at the target, or as near to it as the limb reaches.

    Args:
      root: [T, 3], shoulder or hip, meters.
      target: [T, 3], where the wrist or the ankle should be, meters.
      upper: length of the first bone, meters.
      lower: length of the second bone, meters.
      pole: [T, 3] or [3], the direction in which the elbow or the knee points.

    Returns: middle and end, [T, 3] each; both bones keep their lengths in every frame.
    """
    towards = target - root
    distance = np.linalg.norm(towards, axis=-1, keepdims=True)
    reach = np.clip(distance, 1.02 * abs(upper - lower) + 0.05, 0.998 * (upper + lower))
    towards = towards / np.maximum(distance, 1e-6)
    along = (upper**2 - lower**2 + reach**2) / (2 * reach)
    aside = np.sqrt(np.maximum(upper**2 - along**2, 0.0))
    pole = unit(pole - np.sum(pole * towards, axis=-1, keepdims=True) * towards + 1e-9)
    return root + along * towards + aside * pole, root + reach * towards


class Figure:
    """One person in one clip. The trunk is posed on construction, arms and legs afterwards, by their targets.

    Attributes:
      body: the bone lengths.
      joints: [T, 25, 3], meters; arms and legs are NaN until they are posed.
      trunk: [T, 3, 3], rotation of the chest.
      face: [T, 3, 3], rotation of the head.
    """

    def __init__(self, body: Body, base: np.ndarray, *, hips=None, trunk=None, face=None):
        """Poses the trunk.

        Args:
          body: the bone lengths.
          base: [T, 3], the base of the spine, meters.
          hips: [T, 3, 3], rotation of the hips; None: none.
          trunk: [T, 3, 3], rotation of the trunk relative to the hips; None: none.
          face: [T, 3, 3], rotation of the head relative to the trunk; None: none.
        """
        self.body = body
        num_frames = len(base)
        still = np.broadcast_to(np.eye(3), (num_frames, 3, 3))
        hips = still if hips is None else np.broadcast_to(hips, still.shape)
        self.trunk = hips if trunk is None else hips @ trunk
        self.face = self.trunk if face is None else self.trunk @ face
        self.hips = hips
        joints = np.full((num_frames, NUM_JOINTS, 3), np.nan)
        joints[:, SPINE_BASE] = base
        joints[:, SPINE_MID] = base + apply(self.trunk, vectors(0, body.spine_low, 0))
        joints[:, SPINE_SHOULDER] = joints[:, SPINE_MID] + apply(self.trunk, vectors(0, body.spine_high, 0))
        joints[:, NECK] = joints[:, SPINE_SHOULDER] + apply(self.trunk, vectors(0, body.neck, 0))
        joints[:, HEAD] = joints[:, NECK] + apply(self.face, body.head * unit(vectors(0, 1, 0.15)))
        for side, sign in SIDES.items():
            joints[:, ARMS[side][0]] = joints[:, SPINE_SHOULDER] + apply(
                self.trunk, body.shoulder * unit(vectors(sign, -0.25, 0))
            )
            joints[:, LEGS[side][0]] = base + apply(hips, body.hip * unit(vectors(sign, -0.3, 0)))
        self.joints = joints

    def by_head(self, x=0.0, y=0.0, z=0.0) -> np.ndarray:
        """The point [T, 3] that is (x, y, z) meters from the center of the head, in the head's directions."""
        return self.joints[:, HEAD] + apply(self.face, vectors(x, y, z))

    def by_chest(self, x=0.0, y=0.0, z=0.0) -> np.ndarray:
        """The point [T, 3] that is (x, y, z) meters from the spine at the shoulders, in the chest's directions."""
        return self.joints[:, SPINE_SHOULDER] + apply(self.trunk, vectors(x, y, z))

    def hanging(self, side: str) -> np.ndarray:
        """The wrist [T, 3] of an arm that hangs at rest."""
        shoulder = self.joints[:, ARMS[side][0]]
        return shoulder + apply(self.hips, self.body.arm * vectors(0.16 * SIDES[side], -0.93, 0.12))

    def pose_arm(self, side: str, hand: np.ndarray, *, elbow=None, fingers=None, thumb=None) -> None:
        """Moves a hand to a target.

        Args:
          side: 'left' or 'right'.
          hand: [T, 3], where the wrist should be, meters.
          elbow: [T, 3] or [3], the direction in which the elbow points; by default down, back and outwards.
          fingers: [T, 3] or [3], the direction from the wrist to the fingers; by default along the forearm.
          thumb: [T, 3] or [3], the direction of the thumb, made perpendicular to the fingers; by default forwards.
        """
        body, sign = self.body, SIDES[side]
        shoulder, elbow_joint, wrist, palm, tip, thumb_joint = ARMS[side]
        elbow = apply(self.hips, vectors(0.5 * sign, -1.0, -0.6)) if elbow is None else elbow
        middle, end = two_bones(self.joints[:, shoulder], hand, body.upper_arm, body.forearm, elbow)
        fingers = unit(end - middle) if fingers is None else np.broadcast_to(unit(fingers), end.shape)
        thumb = apply(self.hips, vectors(0, 0.3, 1)) if thumb is None else thumb
        thumb = unit(thumb - np.sum(thumb * fingers, axis=-1, keepdims=True) * fingers + 1e-9)
        self.joints[:, elbow_joint], self.joints[:, wrist] = middle, end
        self.joints[:, palm] = end + body.hand * fingers
        self.joints[:, tip] = self.joints[:, palm] + body.fingers * fingers
        self.joints[:, thumb_joint] = self.joints[:, palm] + 0.8 * body.fingers * (0.6 * fingers + 0.8 * thumb)

    def pose_leg(self, side: str, ankle: np.ndarray, *, knee=None, foot=None) -> None:
        """Moves an ankle to a target [T, 3], meters; the knee and the foot point forwards by default."""
        body = self.body
        hip, knee_joint, ankle_joint, foot_joint = LEGS[side]
        knee = apply(self.hips, vectors(0.12 * SIDES[side], 0, 1)) if knee is None else knee
        foot = apply(self.hips, vectors(0.25 * SIDES[side], -0.45, 1)) if foot is None else foot
        middle, end = two_bones(self.joints[:, hip], ankle, body.thigh, body.shin, knee)
        self.joints[:, knee_joint], self.joints[:, ankle_joint] = middle, end
        self.joints[:, foot_joint] = end + body.foot * np.broadcast_to(unit(foot), end.shape)
