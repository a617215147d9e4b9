"""Skeleton layouts: joint names, bones, and the adjacency matrices that graph convolutions start from."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """The joints of one sensor or pose estimator, and how bones connect them.

    Attributes:
      joints: joint names, in the order of the records.
      bones: (joint, parent) pairs of 0-based joint numbers: a tree, every joint but the root is a child once.
      centre: the joint that view transforms put at the origin.

    Raises: ValueError naming the joints where the bones are no tree, or a name or number does not fit.
    """

    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    centre: int

    def __post_init__(self):
        repeated = {name for name in self.joints if self.joints.count(name) > 1}
        if repeated or not self.joints:
            raise ValueError(f"layout: joints {sorted(repeated)} come twice" if repeated else "layout: no joints")
        strangers = {joint for pair in (*self.bones, (self.centre,)) for joint in pair} - set(range(self.num_joints))
        if strangers:
            raise ValueError(f"layout: bones or centre name {sorted(strangers)}; joints are 0 to {self.num_joints - 1}")
        children = [joint for joint, _ in self.bones]
        twice = {self.joints[joint] for joint in children if children.count(joint) > 1}
        if twice:
            raise ValueError(f"layout: {sorted(twice)} have two parents; the bones must be a tree")
        roots = [name for joint, name in enumerate(self.joints) if joint not in children]
        if len(roots) != 1:
            raise ValueError(
                f"layout: {len(roots)} joints have no parent ({', '.join(roots)}); exactly one is the root"
            )
        reached = np.arange(self.num_joints)
        for _ in self.bones:
            reached = self.parents[reached]
        circling = [self.joints[joint] for joint in np.flatnonzero(self.joints.index(roots[0]) != reached)]
        if circling:
            raise ValueError(f"layout: {', '.join(circling)} never reach the root {roots[0]}; their bones are a circle")

    @classmethod
    def from_names(cls, joints: str, bones: str, centre: str) -> "Layout":
        """Makes a layout of words: joints "nose, left eye", bones "left eye < nose" (joint < parent), comma-separated.

        Raises: ValueError, naming what is not one of the joints, or where the bones are no tree.
        """
        names = tuple(" ".join(name.split()) for name in joints.split(","))

        def number(name: str) -> int:
            name = " ".join(name.split())
            if name not in names:
                raise ValueError(f"layout: {name!r} is not one of the joints {', '.join(names)}")
            return names.index(name)

        pairs = [pair.split("<") for pair in bones.split(",")] if bones.strip() else []
        wrong = ["<".join(pair).strip() for pair in pairs if len(pair) != 2]
        if wrong:
            raise ValueError(f"layout: {wrong[0]!r} is not a bone, 'joint < parent'")
        return cls(names, tuple((number(joint), number(parent)) for joint, parent in pairs), number(centre))

    @property
    def num_joints(self) -> int:
        return len(self.joints)

    @property
    def parents(self) -> np.ndarray:
        """int `[V]`: each joint's parent; the root is its own, so that its bone vector is zero."""
        parents = np.arange(self.num_joints)
        for joint, parent in self.bones:
            parents[joint] = parent
        return parents


_NTU = Layout.from_names(
    joints="""base of spine, middle of spine, neck, head, left shoulder, left elbow, left wrist, left hand,
    right shoulder, right elbow, right wrist, right hand, left hip, left knee, left ankle, left foot, right hip,
    right knee, right ankle, right foot, spine, left hand tip, left thumb, right hand tip, right thumb""",
    bones="""base of spine < middle of spine, middle of spine < spine, neck < spine, head < neck,
    left shoulder < spine, left elbow < left shoulder, left wrist < left elbow, left hand < left wrist,
    right shoulder < spine, right elbow < right shoulder, right wrist < right elbow, right hand < right wrist,
    left hip < base of spine, left knee < left hip, left ankle < left knee, left foot < left ankle,
    right hip < base of spine, right knee < right hip, right ankle < right knee, right foot < right ankle,
    left hand tip < left thumb, left thumb < left hand, right hand tip < right thumb, right thumb < right hand""",
    centre="middle of spine",
)

_KINECT_V1_BONES = """hip centre < spine, spine < shoulder centre, head < shoulder centre,
    left shoulder < shoulder centre, left elbow < left shoulder, left wrist < left elbow, left hand < left wrist,
    right shoulder < shoulder centre, right elbow < right shoulder, right wrist < right elbow,
    right hand < right wrist, left hip < hip centre, left knee < left hip, left ankle < left knee,
    left foot < left ankle, right hip < hip centre, right knee < right hip, right ankle < right knee,
    right foot < right ankle"""

_NW_UCLA = Layout.from_names(
    joints="""hip centre, spine, shoulder centre, head, left shoulder, left elbow, left wrist, left hand,
    right shoulder, right elbow, right wrist, right hand, left hip, left knee, left ankle, left foot, right hip,
    right knee, right ankle, right foot""",
    bones=_KINECT_V1_BONES,
    centre="spine",
)

_UTD_MHAD = Layout.from_names(
    joints="""head, shoulder centre, spine, hip centre, left shoulder, left elbow, left wrist, left hand,
    right shoulder, right elbow, right wrist, right hand, left hip, left knee, left ankle, left foot, right hip,
    right knee, right ankle, right foot""",
    bones=_KINECT_V1_BONES,
    centre="spine",
)

# The 17 keypoints of COCO, as HRNet, YOLO-pose and others give them. COCO has no neck: the shoulders hang on the nose,
# the hips on the shoulders, as in pyskl's graph.
_COCO = Layout.from_names(
    joints="""nose, left eye, right eye, left ear, right ear, left shoulder, right shoulder, left elbow, right elbow,
    left wrist, right wrist, left hip, right hip, left knee, right knee, left ankle, right ankle""",
    bones="""left eye < nose, right eye < nose, left ear < left eye, right ear < right eye, left shoulder < nose,
    right shoulder < nose, left elbow < left shoulder, right elbow < right shoulder, left wrist < left elbow,
    right wrist < right elbow, left hip < left shoulder, right hip < right shoulder, left knee < left hip,
    right knee < right hip, left ankle < left knee, right ankle < right knee""",
    centre="nose",
)

LAYOUTS = {"ntu": _NTU, "nw_ucla": _NW_UCLA, "utd_mhad": _UTD_MHAD, "coco": _COCO}


def spatial_adjacency(layout: Layout) -> np.ndarray:
    """Returns float32 `[3, V, V]`: identity, inward and outward edges, columns normalised (CTR-GCN, eq. 1's S).

    Entry `[k, u, v]` is the weight with which joint `u` receives from joint `v`. An inward edge goes from a joint
    to its parent; an outward edge back.
    """
    num_joints = layout.num_joints
    inward = np.zeros((num_joints, num_joints))
    for joint, parent in layout.bones:
        inward[parent, joint] = 1
    return np.stack([np.eye(num_joints), _normalise_columns(inward), _normalise_columns(inward.T)]).astype(np.float32)


def _normalise_columns(adjacency: np.ndarray) -> np.ndarray:
    degree = adjacency.sum(axis=0)
    return adjacency / np.where(degree > 0, degree, 1)
