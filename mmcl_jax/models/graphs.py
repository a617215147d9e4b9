"""The graphs of a skeleton layout: adjacency matrices that graph convolutions start from, and HD-GCN's hierarchies."""

import collections
import itertools

import numpy as np

from mmcl_jax.data.layouts import Layout


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


RELATIVES = ("ancestors", "descendants")


def relative_positions(layout: Layout, k: int, relatives: str = "ancestors") -> np.ndarray:
    """Returns float32 `[V, V]`, Info-GCN's `I - A^k`: what makes a skeleton's k-th representation from its joints.

    Each joint is seen from its ancestor `k` bones nearer to the root; joints that have none keep their position. So
    1 gives bones, but the root its position; a `k` beyond the tree's depth (8, in the published model) gives the
    joints themselves; 0 gives zeros.

    Args:
      layout: the skeleton.
      k: how many bones.
      relatives: 'ancestors': `A[joint, parent]` is 1 in the tree whose root is the layout's centre, the middle of the
        spine, as the published model has it for NTU RGB+D; 'descendants': `A[parent, joint]` is 1 in the layout's own
        tree, as it has it for Northwestern-UCLA, so that from each joint the sum of its k-th descendants is taken.

    Raises:
      ValueError: `k` is negative, or `relatives` neither of the two.
    """
    if k < 0:
        raise ValueError(f"k {k} is negative; 1 gives bones, 8 joints")
    if relatives not in RELATIVES:
        raise ValueError(f"model.relatives {relatives!r} is not one of {', '.join(RELATIVES)}")
    upwards = relatives == "ancestors"
    parents = rerooted_parents(layout, layout.centre) if upwards else layout.parents
    identity = np.eye(layout.num_joints)
    to_parent = identity[parents]
    to_parent[parents == np.arange(layout.num_joints)] = 0  # the root has none
    adjacency = to_parent if upwards else to_parent.T
    return (identity - np.linalg.matrix_power(adjacency, k)).astype(np.float32)


def _normalise_columns(adjacency: np.ndarray) -> np.ndarray:
    degree = adjacency.sum(axis=0)
    return adjacency / np.where(degree > 0, degree, 1)


# HD-GCN's hierarchies of NTU have seven groups: what lies further out belongs to the last.
_MAX_GROUPS = 7


def joint_groups(layout: Layout, center_of_mass: int) -> list[list[int]]:
    """Returns HD-GCN's hierarchy: joints by their distance from a centre of mass, at most seven groups.

    For NTU and centres 1, 2 and 21 these are the published groups, joint for joint; the published code has none for
    another layout.

    Args:
      layout: the skeleton.
      center_of_mass: 1 pelvis, 2 belly, 21 chest.

    Raises:
      ValueError: the layout has no such centre.
    """
    neighbours = collections.defaultdict(list)
    for first, second in (*layout.bones, *layout.links):
        neighbours[first].append(second)
        neighbours[second].append(first)
    groups, seen = [], set()
    nearest = {layout.center_of_mass(center_of_mass)}
    while nearest:
        groups.append(sorted(nearest))
        seen |= nearest
        nearest = {neighbour for joint in nearest for neighbour in neighbours[joint]} - seen
    last = sorted(joint for group in groups[_MAX_GROUPS - 1 :] for joint in group)
    return [*groups[: _MAX_GROUPS - 1], last] if last else groups


def hierarchical_adjacency(layout: Layout, center_of_mass: int) -> np.ndarray:
    """Returns float32 `[L, 3, V, V]`, HD-Graph (Lee et al., ICCV 2023): a layer for each two neighbouring groups.

    Of each layer: the identity of its joints, edges from every joint of the inner group to every joint of the outer,
    and edges back; columns of the latter two normalised. Entry `[l, k, u, v]` is the weight with which joint `u`
    receives from joint `v`. Raises: ValueError where the layout has no such centre.
    """
    groups = joint_groups(layout, center_of_mass)
    adjacency = np.zeros((len(groups) - 1, 3, layout.num_joints, layout.num_joints), np.float32)
    for layer, (inner, outer) in enumerate(itertools.pairwise(groups)):
        joints = inner + outer
        adjacency[layer, 0, joints, joints] = 1
        adjacency[layer, 1][np.ix_(outer, inner)] = 1 / len(outer)
        adjacency[layer, 2][np.ix_(inner, outer)] = 1 / len(inner)
    return adjacency


def collapsed_hierarchy(layout: Layout, center_of_mass: int) -> np.ndarray:
    """Returns float32 `[3, V, V]`: HD-Graph for a graph convolution with one layer, such as CTR-GCN's.

    Table 8 of the MMCL paper starts CTR-GCN from HD-Graph without saying how six layers become one; this is our
    choice: the union of the layers' edges, subset by subset. Columns stay normalised, as every joint is in the inner
    group of one layer and in the outer group of one other. Raises: ValueError where the layout has no such centre.
    """
    return hierarchical_adjacency(layout, center_of_mass).max(axis=0)


# What CTR-GCN can start from, of a layout and a centre of mass.
GRAPHS = {"natural": lambda layout, _center_of_mass: spatial_adjacency(layout), "hierarchical": collapsed_hierarchy}
