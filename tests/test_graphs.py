"""Skeleton layouts against the published joint numbers, and the adjacency matrices made from them."""

import numpy as np
import pytest

from mmcl_jax.data.layouts import LAYOUTS, Layout, joint_mapping, map_joints
from mmcl_jax.models.graphs import (
    GRAPHS,
    collapsed_hierarchy,
    hierarchical_adjacency,
    joint_groups,
    relative_positions,
    rerooted_parents,
    spatial_adjacency,
)

# (joint, parent) pairs, counted from 1, as CTR-GCN publishes them; the root is missing.
NTU_PAIRS = """1 2, 2 21, 3 21, 4 3, 5 21, 6 5, 7 6, 8 7, 9 21, 10 9, 11 10, 12 11, 13 1, 14 13, 15 14, 16 15, 17 1,
    18 17, 19 18, 20 19, 22 23, 23 8, 24 25, 25 12"""
NW_UCLA_PAIRS = """1 2, 2 3, 4 3, 5 3, 6 5, 7 6, 8 7, 9 3, 10 9, 11 10, 12 11, 13 1, 14 13, 15 14, 16 15, 17 1, 18 17,
    19 18, 20 19"""

# HD-GCN's groups of joints, counted from 1, by centre of mass, as published.
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


@pytest.mark.parametrize(("name", "pairs"), [("ntu", NTU_PAIRS), ("nw_ucla", NW_UCLA_PAIRS)])
def test_published_bones(name, pairs):
    expected = {tuple(int(joint) - 1 for joint in pair.split()) for pair in pairs.split(",")}
    assert set(LAYOUTS[name].bones) == expected
    assert LAYOUTS[name].centre == 1


def test_utd_mhad_is_the_same_skeleton_as_nw_ucla_in_another_order():
    def by_name(layout):
        return {(layout.joints[joint], layout.joints[parent]) for joint, parent in layout.bones}

    assert by_name(LAYOUTS["utd_mhad"]) == by_name(LAYOUTS["nw_ucla"])
    assert LAYOUTS["utd_mhad"].joints[LAYOUTS["utd_mhad"].centre] == "spine"


def test_coco_is_symmetric_and_hangs_on_the_nose():
    layout = LAYOUTS["coco"]
    assert layout.num_joints == 17 and layout.joints[layout.parents[0]] == layout.joints[layout.centre] == "nose"
    by_name = {(layout.joints[joint], layout.joints[parent]) for joint, parent in layout.bones}
    swap = {"left": "right", "right": "left"}
    mirrored = {tuple(" ".join(swap.get(word, word) for word in name.split()) for name in pair) for pair in by_name}
    assert mirrored == by_name
    assert {("left shoulder", "nose"), ("left hip", "left shoulder"), ("left wrist", "left elbow")} <= by_name


@pytest.mark.parametrize(
    ("joints", "bones", "centre", "message"),
    [
        ("a, b, a", "b < a", "a", r"joints \['a'\] come twice"),
        ("a, b", "c < a", "a", "'c' is not one of the joints a, b"),
        ("a, b", "b > a", "a", "'b > a' is not a bone, 'joint < parent'"),
        ("a, b", "b < a", "c", "'c' is not one of the joints a, b"),
        ("a, b, c", "b < a, b < c", "a", r"\['b'\] have two parents"),
        ("a, b, c", "b < a", "a", r"2 joints have no parent \(a, c\)"),
        ("a, b, c", "b < c, c < b", "a", "b, c never reach the root a; their bones are a circle"),
        ("a, b", "a < b, b < a", "a", "0 joints have no parent"),
        ("a, b", "a < a", "a", "a never reach the root b"),
    ],
)
def test_a_layout_that_is_no_tree_is_refused(joints, bones, centre, message):
    with pytest.raises(ValueError, match=message):
        Layout.from_names(joints, bones, centre)


@pytest.mark.parametrize("wrong", [{"bones": ((1, 2),)}, {"bones": ((1, -1),)}, {"centre": 2}, {"joints": ()}])
def test_a_layout_with_numbers_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=r"joints are 0 to 1|no joints"):
        Layout(**{"joints": ("a", "b"), "bones": ((1, 0),), "centre": 0, **wrong})


def test_layouts_are_trees(layout):
    assert len(set(layout.joints)) == layout.num_joints == len(layout.bones) + 1
    children = [joint for joint, _ in layout.bones]
    assert len(set(children)) == len(children)
    (root,) = set(range(layout.num_joints)) - set(children)
    joints = np.arange(layout.num_joints)
    for _ in range(layout.num_joints):
        joints = layout.parents[joints]
    assert (joints == root).all()


def test_parents(layout):
    assert {(joint, parent) for joint, parent in enumerate(layout.parents) if joint != parent} == set(layout.bones)


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


# COCO has neither pelvis nor chest.
CENTERS = [(name, center) for name in LAYOUTS for center in NTU_GROUPS if name != "coco" or center == 2]


@pytest.mark.parametrize(("layout", "center"), CENTERS, indirect=["layout"])
def test_every_joint_is_in_one_group(layout, center):
    groups = joint_groups(layout, center)
    assert sorted(joint for group in groups for joint in group) == list(range(layout.num_joints))
    assert groups[0] == [layout.center_of_mass(center)]
    assert len(groups) <= 7


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
    first[1, 2, 3] = first[2, 3, 2] = 1  # centre to c, and back
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
    ):  # the outermost gives nothing outwards, the centre inwards
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


@pytest.mark.parametrize("source", sorted(LAYOUTS))
@pytest.mark.parametrize("target", sorted(LAYOUTS))
def test_any_layout_is_made_of_any_other(source, target):
    source, target = LAYOUTS[source], LAYOUTS[target]
    mapping = joint_mapping(source, target)
    assert mapping.shape == (target.num_joints, source.num_joints) and mapping.dtype == np.float32
    np.testing.assert_allclose(mapping.sum(axis=1), 1, atol=1e-6)  # a person who moves keeps the shape
    limbs = {"shoulder", "elbow", "wrist", "hip", "knee", "ankle"}
    for joint, name in enumerate(target.joints):
        if source is target or name.split()[-1] in limbs:
            np.testing.assert_array_equal(mapping[joint], np.eye(source.num_joints)[source.joints.index(name)])


def test_the_two_datasets_of_kinect_v1_differ_in_order_alone():
    mapping = joint_mapping(LAYOUTS["utd_mhad"], LAYOUTS["nw_ucla"])
    np.testing.assert_array_equal(mapping.sum(axis=0), 1)
    names = [LAYOUTS["utd_mhad"].joints[row.argmax()] for row in mapping]
    assert names == list(LAYOUTS["nw_ucla"].joints)


def test_kinect_v1_becomes_v2_where_v2_has_its_joints():
    """A person of 20 joints who stands upright, x to the right, y up: every joint that v2 adds is where it belongs."""
    v1, v2 = LAYOUTS["nw_ucla"], LAYOUTS["ntu"]
    places = {"hip centre": (0, 0.97), "spine": (0, 1.04), "shoulder centre": (0, 1.38), "head": (0, 1.57)}
    for side, sign in (("left", -1), ("right", 1)):
        arm = {"shoulder": (0.18, 1.28), "elbow": (0.2, 1.03), "wrist": (0.2, 0.8), "hand": (0.2, 0.72)}
        leg = {"hip": (0.08, 0.9), "knee": (0.08, 0.48), "ankle": (0.08, 0.1), "foot": (0.08, 0.03)}
        places |= {f"{side} {name}": (sign * x, y) for name, (x, y) in {**arm, **leg}.items()}
    person = np.array([[*places[name], 3.0] for name in v1.joints], np.float32)
    mapped = dict(zip(v2.joints, map_joints(person, joint_mapping(v1, v2), 3).tolist(), strict=True))
    for name in ("left elbow", "right foot", "head"):
        np.testing.assert_allclose(mapped[name], (*places[name], 3), atol=1e-6)
    np.testing.assert_allclose(mapped["spine"], (0, 1.38, 3), atol=1e-6)
    np.testing.assert_allclose(mapped["base of spine"], (0, 0.9, 3), atol=1e-6)
    np.testing.assert_allclose(mapped["middle of spine"], (0, 0.9 + 0.57 * 0.48, 3), atol=1e-6)
    np.testing.assert_allclose(mapped["neck"], (0, 1.38 + 0.33 * 0.19, 3), atol=1e-6)
    np.testing.assert_allclose(mapped["left hand tip"], (-0.2, 0.72 - 0.75 * 0.08, 3), atol=1e-6)
    # And back: the hip centre over the hips, the spine low on the trunk.
    again = map_joints(np.array(list(mapped.values())), joint_mapping(v2, v1), 3)
    np.testing.assert_allclose(again, person, atol=0.01)


def test_roles_tell_one_spine_from_another():
    """NTU's `spine` is the chest, Kinect v1's the belly; in a layout of one's own the roles say which it is."""
    own = Layout.from_names(
        "Hips, Spine, Upper_Chest, left_hip, Right Hip",
        "Spine < Hips, Upper_Chest < Spine, left_hip < Hips, Right Hip < Hips",
        centre="Spine",
        pelvis="Hips",
        chest="Upper_Chest",
    )
    mapping = joint_mapping(LAYOUTS["ntu"], own)
    assert [LAYOUTS["ntu"].joints[row.argmax()] for row in mapping] == [
        "base of spine",
        "middle of spine",
        "spine",
        "left hip",
        "right hip",
    ]
    with pytest.raises(ValueError, match=r"neck, head, left shoulder.* cannot be made of Hips, Spine"):
        joint_mapping(own, LAYOUTS["ntu"])


def test_rules_of_ones_own_go_first():
    rules = "neck = 0.5 shoulder centre + 0.5 head, Left_Thumb = -1 left wrist + 2 left hand"
    mapping = joint_mapping(LAYOUTS["utd_mhad"], LAYOUTS["ntu"], rules)
    source = LAYOUTS["utd_mhad"].joints

    def made(name):
        row = mapping[LAYOUTS["ntu"].joints.index(name)]
        return {source[joint]: round(float(row[joint]), 6) for joint in np.flatnonzero(row)}

    assert made("neck") == {"shoulder centre": 0.5, "head": 0.5}
    assert made("left thumb") == {"left wrist": -1, "left hand": 2}
    assert made("right thumb") == {"right wrist": -0.2, "right hand": 1.2}


def test_confidence_is_never_extrapolated():
    mapping = joint_mapping(LAYOUTS["coco"], LAYOUTS["nw_ucla"])
    clip = np.zeros((2, 3, 17, 3))
    clip[..., 2] = 0.4
    mapped = map_joints(clip, mapping, 2)
    assert mapped.shape == (2, 3, 20, 3)
    np.testing.assert_allclose(mapped[..., 2], 0.4, rtol=1e-6)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("neck 0.5 head", "'neck 0.5 head' is not of the form"),
        ("neck =", "'neck =' is not of the form"),
        ("= head", "'= head' is not of the form"),
        ("neck = 0.5 head", "weights sum to 0.5, not to 1"),
        ("neck = 0.5 head + 0.5 tail", "'tail' is not one of the joints hip centre"),
        ("neck = head, head = neck, Neck = head", "'neck': there are several"),
        ("tail = head", "'tail': not one of the joints base of spine"),
    ],
)
def test_rules_that_do_not_fit_are_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        joint_mapping(LAYOUTS["nw_ucla"], LAYOUTS["ntu"], rule)
