"""The adjacency matrices and hierarchies of skeleton layouts, against the published ones."""

import numpy as np
import pytest

from mmcl_jax.data.layouts import LAYOUTS, Layout
from mmcl_jax.models.graphs import (
    GRAPHS,
    collapsed_hierarchy,
    hierarchical_adjacency,
    joint_groups,
    relative_positions,
    rerooted_parents,
    spatial_adjacency,
)

# HD-GCN's groups of joints, counted from 1, by center of mass, as published.
NTU_GROUPS = {
    1: "1; 2 13 17; 14 18 21; 3 5 9 15 19; 4 6 10 16 20; 7 11; 8 12 22 23 24 25",
    2: "2; 1 21; 13 17 3 5 9; 14 18 4 6 10; 15 19 7 11; 16 20 8 12; 22 23 24 25",
    21: "21; 2 3 5 9; 4 6 10 1; 7 11 13 17; 8 12 14 18; 22 23 24 25 15 19; 16 20",
}


# (parent, child) pairs, counted from 1, of Info-GCN's tree, whose root is the middle of the spine.
INFOGCN_PAIRS = """2 1, 2 21, 21 3, 3 4, 21 5, 5 6, 6 7, 7 8, 8 23, 23 22, 21 9, 9 10, 10 11, 11 12, 12 25, 25 24, 1 13,
    13 14, 14 15, 15 16, 1 17, 17 18, 18 19, 19 20"""


@pytest.fixture(params=sorted(LAYOUTS))
def layout(request) -> Layout:
    return LAYOUTS[request.param]


def test_adjacency_of_a_fork_by_hand():
    # 0 and 1 are children of 2, which is a child of 3.
    adjacency = spatial_adjacency(Layout(("a", "b", "c", "d"), ((0, 2), (1, 2), (2, 3)), centre=3))
    assert adjacency.dtype == np.float32
    identity = np.eye(4)
    inward = [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]
    outward = [[0, 0, 0.5, 0], [0, 0, 0.5, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    np.testing.assert_array_equal(adjacency, [identity, inward, outward])


def test_adjacency_columns_sum_to_one_or_are_empty(layout):
    adjacency = spatial_adjacency(layout)
    assert adjacency.shape == (3, layout.num_joints, layout.num_joints)
    sums = adjacency.sum(axis=1)
    np.testing.assert_allclose(sums[0], 1)
    assert (sums[1] == 0).sum() == 1  # the root has no parent
    leaves = set(range(layout.num_joints)) - set(layout.parents[[joint for joint, _ in layout.bones]])
    assert set(np.nonzero(sums[2] == 0)[0]) == leaves
    for column in (sums[1], sums[2]):
        np.testing.assert_allclose(column[column > 0], 1, rtol=1e-6)


def test_adjacency_edges_go_both_ways(layout):
    _, inward, outward = spatial_adjacency(layout)
    np.testing.assert_array_equal(inward > 0, outward.T > 0)
    assert {(child, parent) for parent, child in zip(*np.nonzero(inward), strict=True)} == set(layout.bones)


@pytest.mark.parametrize("center", NTU_GROUPS)
def test_published_hierarchies(center):
    expected = [{int(joint) - 1 for joint in group.split()} for group in NTU_GROUPS[center].split(";")]
    assert [set(group) for group in joint_groups(LAYOUTS["ntu"], center)] == expected


# Most pose estimators have neither pelvis nor chest.
CENTERS = [
    (name, center)
    for name, layout in LAYOUTS.items()
    for center, joint in ((1, layout.pelvis), (2, layout.centre), (21, layout.chest))
    if joint is not None
]


@pytest.mark.parametrize(("layout", "center"), CENTERS, indirect=["layout"])
def test_every_joint_is_in_one_group(layout, center):
    groups = joint_groups(layout, center)
    assert sorted(joint for group in groups for joint in group) == list(range(layout.num_joints))
    assert groups[0] == [layout.center_of_mass(center)]
    assert len(groups) <= 8


def test_hierarchy_of_nw_ucla_by_name():
    names = LAYOUTS["nw_ucla"].joints
    groups = [{names[joint] for joint in group} for group in joint_groups(LAYOUTS["nw_ucla"], 2)]
    assert groups[:2] == [{"spine"}, {"hip centre", "shoulder centre"}]
    assert groups[-1] == {"left hand", "right hand", "left foot", "right foot"}
    assert len(groups) == 6


def test_a_layout_without_pelvis_and_chest_has_the_hierarchy_of_its_centre():
    layout = Layout(("a", "b", "c", "d"), ((0, 2), (1, 2), (2, 3)), centre=3)
    assert joint_groups(layout, 2) == [[3], [2], [0, 1]]
    for center in (1, 21, 3):
        with pytest.raises(ValueError, match=f"model.center_of_mass {center} is not one of 2 that"):
            joint_groups(layout, center)


def test_hierarchical_adjacency_of_a_fork_by_hand():
    layout = Layout(("a", "b", "c", "d"), ((0, 2), (1, 2), (2, 3)), centre=3)
    adjacency = hierarchical_adjacency(layout, 2)
    assert adjacency.dtype == np.float32
    first, second = np.zeros((2, 3, 4, 4))
    first[0, [2, 3], [2, 3]] = 1
    first[1, 2, 3] = first[2, 3, 2] = 1  # center to c, and back
    second[0, [0, 1, 2], [0, 1, 2]] = 1
    second[1, [0, 1], 2] = 0.5  # c to a and b: what c gives is shared out
    second[2, 2, [0, 1]] = 1
    np.testing.assert_array_equal(adjacency, [first, second])
    collapsed = collapsed_hierarchy(layout, 2)
    np.testing.assert_array_equal(collapsed, [np.eye(4), first[1] + second[1], first[2] + second[2]])


@pytest.mark.parametrize(("layout", "center"), CENTERS, indirect=["layout"])
def test_collapsed_hierarchy_is_normalised_like_the_natural_graph(layout, center):
    adjacency = collapsed_hierarchy(layout, center)
    assert adjacency.shape == GRAPHS["natural"](layout, center).shape
    np.testing.assert_array_equal(adjacency[0], np.eye(layout.num_joints))
    groups = joint_groups(layout, center)
    for subset, edgeless in (
        (1, groups[-1]),
        (2, groups[0]),
    ):  # the outermost gives nothing outwards, the center inwards
        sums = adjacency[subset].sum(axis=0)
        assert set(np.nonzero(sums == 0)[0]) == set(edgeless)
        np.testing.assert_allclose(sums[sums > 0], 1, rtol=1e-6)


def test_rerooted_like_infogcn():
    parents = rerooted_parents(LAYOUTS["ntu"], LAYOUTS["ntu"].centre)
    assert parents[1] == 1
    expected = {tuple(int(joint) - 1 for joint in pair.split()) for pair in INFOGCN_PAIRS.split(",")}
    assert {(parent, joint) for joint, parent in enumerate(parents) if joint != parent} == expected


def test_rerooted_trees_keep_their_bones(layout):
    bones = {frozenset(bone) for bone in layout.bones}
    for root in range(layout.num_joints):
        parents = rerooted_parents(layout, root)
        assert parents[root] == root
        children = [joint for joint in range(layout.num_joints) if joint != root]
        assert {frozenset((joint, int(parents[joint]))) for joint in children} == bones
        joints = np.arange(layout.num_joints)
        for _ in range(layout.num_joints):
            joints = parents[joints]
        assert (joints == root).all()
    (own_root,) = np.flatnonzero(layout.parents == np.arange(layout.num_joints))
    np.testing.assert_array_equal(rerooted_parents(layout, own_root), layout.parents)


def test_relative_positions(layout):
    joints = range(layout.num_joints)
    parents = rerooted_parents(layout, layout.centre)
    for k in range(9):
        expected = np.eye(layout.num_joints)
        for joint in joints:
            ancestors = _ancestors(parents, joint)
            if k < len(ancestors):
                expected[joint, ancestors[k]] -= 1
        matrix = relative_positions(layout, k)
        assert matrix.dtype == np.float32
        np.testing.assert_array_equal(matrix, expected, err_msg=f"k = {k}")
    np.testing.assert_array_equal(matrix, np.eye(layout.num_joints))  # k = 8: no joint is as deep
    with pytest.raises(ValueError, match="k -1 is negative"):
        relative_positions(layout, -1)


def test_relative_positions_of_descendants(layout):
    """As Info-GCN's published code has them for NW-UCLA: of each joint, the sum of its k-th descendants is taken."""
    joints = range(layout.num_joints)
    for k in (1, 2, 12):
        expected = np.eye(layout.num_joints)
        for joint in joints:
            ancestors = _ancestors(layout.parents, joint)
            if k < len(ancestors):
                expected[ancestors[k], joint] -= 1
        np.testing.assert_array_equal(relative_positions(layout, k, "descendants"), expected, err_msg=f"k = {k}")
    with pytest.raises(ValueError, match=r"model\.relatives 'siblings' is not one of ancestors, descendants"):
        relative_positions(layout, 1, "siblings")


def _ancestors(parents: np.ndarray, joint: int) -> list[int]:
    """The joint itself, its parent, and so on to the root."""
    return [joint] if parents[joint] == joint else [joint, *_ancestors(parents, parents[joint])]
