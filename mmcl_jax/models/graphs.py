"""The graphs of a skeleton layout: the adjacency matrices of graph convolutions, and HD-GCN's hierarchies."""

import collections
import itertools

import numpy as np

from mmcl_jax.data.layouts import Layout
from mmcl_jax.runtime.errors import ConfigError


def spatial_adjacency(layout: Layout) -> np.ndarray:
    """Returns float32 `[3, V, V]`: identity, inward and outward edges, columns normalized (S of the MMCL paper, 3.1).

    Entry `[k, u, v]` is the weight with which joint `u` receives from joint `v`. An inward edge leads from a joint to
    its parent, an outward edge from a parent to its child.
    """
    num_joints = layout.num_joints
    inward = np.zeros((num_joints, num_joints))
    for joint, parent in layout.bones:
        inward[parent, joint] = 1
    return np.stack([np.eye(num_joints), _normalize_columns(inward), _normalize_columns(inward.T)]).astype(np.float32)


def rerooted_parents(layout: Layout, root: int) -> np.ndarray:
    """Returns int `[V]`: each joint's parent in the same tree with `root` as its root, which is its own parent.

    Bones between `root` and the layout's own root change direction; the others keep theirs.
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
    """Returns float32 `[V, V]`, Info-GCN's `I - A^k`, which takes joints to the k-th representation of a skeleton.

    Each joint becomes its position relative to its ancestor `k` bones nearer to the root; joints without such an
    ancestor keep their position. So 1 gives bones and the position of the root; a `k` beyond the depth of the tree (8
    in the published model) gives the joints themselves; 0 gives zeros.

    Args:
      layout: the skeleton.
      k: how many bones.
      relatives: 'ancestors': `A[joint, parent]` is 1 in the tree whose root is the layout's center, the middle of the
        spine, as in the published model for NTU RGB+D; 'descendants': `A[parent, joint]` is 1 in the layout's own
        tree, as in the published model for Northwestern-UCLA: the sum of its k-th descendants is subtracted from each
        joint.

    Raises:
      ConfigError: `k` is negative, or `relatives` is neither of the two.
    """
    if k < 0:
        raise ConfigError(f"k {k} is negative; 1 gives bones, 8 joints")
    if relatives not in RELATIVES:
        raise ConfigError(f"model.relatives {relatives!r} is not one of {', '.join(RELATIVES)}")
    upwards = relatives == "ancestors"
    parents = rerooted_parents(layout, layout.centre) if upwards else layout.parents
    identity = np.eye(layout.num_joints)
    to_parent = identity[parents]
    to_parent[parents == np.arange(layout.num_joints)] = 0  # the root has none
    adjacency = to_parent if upwards else to_parent.T
    return (identity - np.linalg.matrix_power(adjacency, k)).astype(np.float32)


def _normalize_columns(adjacency: np.ndarray) -> np.ndarray:
    degree = adjacency.sum(axis=0)
    return adjacency / np.where(degree > 0, degree, 1)


# HD-GCN's hierarchies for NTU have seven groups: joints further out belong to the last.
_MAX_GROUPS = 7


def joint_groups(layout: Layout, center_of_mass: int) -> list[list[int]]:
    """Returns HD-GCN's hierarchy: joints by their distance in bones from a center of mass, in at most seven groups.

    For NTU and the centers 1, 2 and 21 these are the published groups, joint for joint; the published code has none for
    other layouts.

    Args:
      layout: the skeleton.
      center_of_mass: 1 pelvis, 2 belly, 21 chest.

    Raises:
      LayoutError: the layout has no such center.
    """
    neighbors = collections.defaultdict(list)
    for first, second in (*layout.bones, *layout.links):
        neighbors[first].append(second)
        neighbors[second].append(first)
    groups, seen = [], set()
    nearest = {layout.center_of_mass(center_of_mass)}
    while nearest:
        groups.append(sorted(nearest))
        seen |= nearest
        nearest = {neighbor for joint in nearest for neighbor in neighbors[joint]} - seen
    last = sorted(joint for group in groups[_MAX_GROUPS - 1 :] for joint in group)
    return [*groups[: _MAX_GROUPS - 1], last] if last else groups


def hierarchical_adjacency(layout: Layout, center_of_mass: int) -> np.ndarray:
    """Returns float32 `[L, 3, V, V]`, HD-Graph (Lee et al., ICCV 2023): a layer for each two neighboring groups.

    The subsets of a layer are the identity of its joints, edges from every joint of the inner group to every joint of
    the outer group, and edges back; the columns of the latter two are normalized. Entry `[l, k, u, v]` is the weight
    with which joint `u` receives from joint `v`. Raises: LayoutError if the layout has no such center.
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

    Table 8 of the MMCL paper starts CTR-GCN from HD-Graph without saying how six layers become one. Our choice is the
    union of the layers' edges, subset by subset. Columns stay normalized, because every joint is in the inner group of
    one layer and in the outer group of one other. Raises: LayoutError if the layout has no such center.
    """
    return hierarchical_adjacency(layout, center_of_mass).max(axis=0)


# The graphs that CTR-GCN can start from: functions of a layout and a center of mass.
GRAPHS = {"natural": lambda layout, _center_of_mass: spatial_adjacency(layout), "hierarchical": collapsed_hierarchy}
