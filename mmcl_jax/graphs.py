"""Skeleton layouts: joint names, bones, and the adjacency matrices that graph convolutions start from."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """The joints of one sensor and how bones connect them.

    Attributes:
      joints: joint names, in the order of the records.
      bones: (joint, parent) pairs of 0-based joint numbers; every joint but the root is a child once.
      centre: the joint that view transforms put at the origin.
    """

    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    centre: int

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


def _from_names(joints: str, bones: str, centre: str) -> Layout:
    names = tuple(name.strip() for name in joints.split(","))
    pairs = (pair.split("<") for pair in bones.split(","))
    links = tuple((names.index(child.strip()), names.index(parent.strip())) for child, parent in pairs)
    return Layout(names, links, names.index(centre))


_NTU = _from_names(
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

_NW_UCLA = _from_names(
    joints="""hip centre, spine, shoulder centre, head, left shoulder, left elbow, left wrist, left hand,
    right shoulder, right elbow, right wrist, right hand, left hip, left knee, left ankle, left foot, right hip,
    right knee, right ankle, right foot""",
    bones=_KINECT_V1_BONES,
    centre="spine",
)

_UTD_MHAD = _from_names(
    joints="""head, shoulder centre, spine, hip centre, left shoulder, left elbow, left wrist, left hand,
    right shoulder, right elbow, right wrist, right hand, left hip, left knee, left ankle, left foot, right hip,
    right knee, right ankle, right foot""",
    bones=_KINECT_V1_BONES,
    centre="spine",
)

LAYOUTS = {"ntu": _NTU, "nw_ucla": _NW_UCLA, "utd_mhad": _UTD_MHAD}


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


def rerooted_parents(layout: Layout, root: int) -> np.ndarray:
    """Returns int `[V]`: each joint's parent in the same tree hung up at joint `root`, which is its own parent.

    Bones between `root` and the layout's own root change direction, the others keep theirs.
    """
    parents = layout.parents
    joint = below = root
    while True:
        above = parents[joint]
        parents[joint] = below
        if above == joint:
            return parents
        joint, below = above, joint


def relative_positions(layout: Layout, k: int) -> np.ndarray:
    """Returns float32 `[V, V]`, Info-GCN's `I - A^k`: what makes a skeleton's k-th representation from its joints.

    Each joint is seen from its ancestor `k` bones nearer to the root; joints that have none keep their position. So
    1 gives bones, but the root its position; a `k` beyond the tree's depth (8, in the published model) gives the
    joints themselves; 0 gives zeros. `A[joint, parent]` is 1 in the tree whose root is the layout's centre, the middle
    of the spine, as the published model has it for NTU RGB+D. (Its matrix for NW-UCLA points from parents to children,
    and hence subtracts sums of descendants; that is not followed here.)

    Raises:
      ValueError: `k` is negative.
    """
    if k < 0:
        raise ValueError(f"k {k} is negative; 1 gives bones, 8 joints")
    parents = rerooted_parents(layout, layout.centre)
    identity = np.eye(layout.num_joints)
    to_parent = identity[parents]
    to_parent[layout.centre] = 0
    return (identity - np.linalg.matrix_power(to_parent, k)).astype(np.float32)


def _normalise_columns(adjacency: np.ndarray) -> np.ndarray:
    degree = adjacency.sum(axis=0)
    return adjacency / np.where(degree > 0, degree, 1)
