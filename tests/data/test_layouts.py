"""Skeleton layouts against the published joint numbers, and mapping the joints of one to those of another."""

import numpy as np
import pytest

from mmcl_jax.data.layouts import LAYOUTS, Layout, joint_mapping, map_joints

# (joint, parent) pairs, counted from 1, as CTR-GCN publishes them; the root is missing.
NTU_PAIRS = """1 2, 2 21, 3 21, 4 3, 5 21, 6 5, 7 6, 8 7, 9 21, 10 9, 11 10, 12 11, 13 1, 14 13, 15 14, 16 15, 17 1,
    18 17, 19 18, 20 19, 22 23, 23 8, 24 25, 25 12"""


NW_UCLA_PAIRS = """1 2, 2 3, 4 3, 5 3, 6 5, 7 6, 8 7, 9 3, 10 9, 11 10, 12 11, 13 1, 14 13, 15 14, 16 15, 17 1, 18 17,
    19 18, 20 19"""


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
        ("a, b, a", "b < a", "a", r"joints \['a'\] occur twice"),
        ("a, b", "c < a", "a", "'c' is not one of the joints a, b"),
        ("a, b", "b > a", "a", "'b > a' is not a bone, 'joint < parent'"),
        ("a, b", "b < a", "c", "'c' is not one of the joints a, b"),
        ("a, b, c", "b < a, b < c", "a", r"\['b'\] have two parents"),
        ("a, b, c", "b < a", "a", r"2 joints have no parent \(a, c\)"),
        ("a, b, c", "b < c, c < b", "a", "b, c never reach the root a; their bones form a cycle"),
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
    # And back: the hip center over the hips, the spine low on the trunk.
    again = map_joints(np.array(list(mapped.values())), joint_mapping(v2, v1), 3)
    np.testing.assert_allclose(again, person, atol=0.01)


def test_roles_tell_one_spine_from_another():
    """NTU's `spine` is the chest, Kinect v1's the belly; in a custom layout the roles say which it is."""
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
        ("neck = head, head = neck, Neck = head", "'neck': given more than once"),
        ("tail = head", "'tail': not one of the joints base of spine"),
    ],
)
def test_rules_that_do_not_fit_are_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        joint_mapping(LAYOUTS["nw_ucla"], LAYOUTS["ntu"], rule)


@pytest.mark.parametrize(
    ("name", "joints"),
    [
        ("openpose18", {0: "nose", 1: "neck", 2: "right shoulder", 7: "left wrist", 13: "left ankle", 17: "left ear"}),
        ("body25", {1: "neck", 4: "right wrist", 8: "pelvis", 14: "left ankle", 19: "left big toe", 24: "right heel"}),
        ("halpe26", {0: "nose", 16: "right ankle", 17: "top of head", 19: "pelvis", 21: "right big toe"}),
        ("blazepose33", {2: "left eye", 11: "left shoulder", 16: "right wrist", 23: "left hip", 32: "right big toe"}),
        ("h36m17", {0: "pelvis", 1: "right hip", 8: "chest", 11: "left shoulder", 16: "right wrist"}),
    ],
)
def test_estimators_joints_have_their_published_numbers(name, joints):
    layout = LAYOUTS[name]
    assert str(layout.num_joints) in name
    assert {number: layout.joints[number] for number in joints} == joints


def test_body13_are_the_joints_that_all_estimators_have():
    for name in ("coco", "blazepose33", "openpose18", "body25", "halpe26"):
        mapping = joint_mapping(LAYOUTS[name], LAYOUTS["body13"])
        np.testing.assert_array_equal(mapping.max(axis=1), 1)  # copied, none is computed
    head = joint_mapping(LAYOUTS["ntu"], LAYOUTS["body13"])[0]
    assert LAYOUTS["ntu"].joints[head.argmax()] == "head"


def test_mirrored_joints(layout):
    sides = {"left": "right", "right": "left"}
    for name, partner in zip(layout.joints, layout.mirror, strict=True):
        assert layout.joints[partner] == " ".join(sides.get(word, word) for word in name.split())
    np.testing.assert_array_equal(layout.mirror[layout.mirror], np.arange(layout.num_joints))
    assert Layout.from_names(
        "L_hand, r hand, Left eye, tail", "r hand < L_hand, Left eye < L_hand, tail < L_hand", "tail"
    ).mirror.tolist() == [1, 0, 2, 3]


def test_a_pose_estimators_trunk_becomes_kinect_v1s():
    """Hips at 0.9 m, shoulders at 1.38 m: the hip center is above the hips, the spine low on the trunk."""
    source = LAYOUTS["blazepose33"]
    height = np.array([1.38 if "shoulder" in name else 0.9 for name in source.joints])
    mapped = dict(zip(LAYOUTS["nw_ucla"].joints, joint_mapping(source, LAYOUTS["nw_ucla"]) @ height, strict=True))
    assert mapped["shoulder centre"] == pytest.approx(1.38)
    assert mapped["hip centre"] == pytest.approx(0.9 + 0.15 * 0.48)
    assert mapped["spine"] == pytest.approx(0.9 + 0.29 * 0.48)
