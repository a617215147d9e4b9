"""Any layout: mapping its joints onto themselves or another's moves with the body, and its graphs hang together."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmcl_jax.data.layouts import LAYOUTS, Layout, joint_mapping, map_joints
from mmcl_jax.models.graphs import relative_positions, rerooted_parents, spatial_adjacency

KINECTS = ("ntu", "nw_ucla", "utd_mhad")
seeds = st.integers(0, 2**32 - 1)


@st.composite
def layouts(draw) -> Layout:
    """A random tree of 1 to 12 joints, in a random order."""
    size = draw(st.integers(1, 12))
    order = draw(st.permutations(range(size)))
    bones = tuple((order[joint], order[draw(st.integers(0, joint - 1))]) for joint in range(1, size))
    return Layout(tuple(f"joint {joint}" for joint in range(size)), bones, draw(st.integers(0, size - 1)))


@st.composite
def clips(draw, num_joints: int, channels: int = 3) -> np.ndarray:
    """float64 `[M, T, V, C]`."""
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 3)), num_joints, channels)
    return np.random.default_rng(draw(seeds)).normal(size=shape)


def pairs_that_map() -> list[tuple[str, str]]:
    found = []
    for source in LAYOUTS:
        for target in LAYOUTS:
            try:
                joint_mapping(LAYOUTS[source], LAYOUTS[target])
            except ValueError:
                continue
            found.append((source, target))
    return found


PAIRS = pairs_that_map()


def test_which_layouts_can_be_made_of_which():
    assert {(source, target) for source in KINECTS for target in KINECTS} <= set(PAIRS)
    assert ("ntu", "coco") in PAIRS


@given(st.data(), layouts())
def test_a_layout_of_its_own_joints_in_another_order(data, layout):
    order = data.draw(st.permutations(range(layout.num_joints)))
    place = {joint: number for number, joint in enumerate(order)}
    other = Layout(
        tuple(layout.joints[joint] for joint in order),
        tuple((place[joint], place[parent]) for joint, parent in layout.bones),
        place[layout.centre],
    )
    clip = data.draw(clips(layout.num_joints))
    there = map_joints(clip, joint_mapping(layout, other), coordinates=3)
    np.testing.assert_array_equal(there, clip[:, :, list(order)])
    np.testing.assert_array_equal(map_joints(there, joint_mapping(other, layout), coordinates=3), clip)


@given(st.sampled_from(PAIRS), st.data(), st.integers(-100, 100), st.integers(1, 1000), seeds)
def test_mapped_joints_move_turn_and_grow_with_the_body(pair, data, shift, tenths, seed):
    source, target = pair
    mapping = joint_mapping(LAYOUTS[source], LAYOUTS[target])
    np.testing.assert_allclose(mapping.sum(axis=1), 1, atol=1e-6)
    clip = data.draw(clips(LAYOUTS[source].num_joints))
    size, turn = tenths / 10, np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    shift = shift * np.array([1, -2, 3])
    mapped = map_joints(clip, mapping, coordinates=3)
    moved = map_joints(size * clip @ turn + shift, mapping, coordinates=3)
    np.testing.assert_allclose(moved, size * mapped @ turn + shift, atol=1e-4 * (1 + size + np.abs(shift).max()))


@given(st.sampled_from(PAIRS), seeds)
def test_confidences_stay_within_those_that_they_are_made_of(pair, seed):
    source, target = pair
    mapping = joint_mapping(LAYOUTS[source], LAYOUTS[target])
    confidence = np.random.default_rng(seed).integers(0, 5, mapping.shape[1]) / 4
    clip = np.zeros((1, 1, mapping.shape[1], 4))
    clip[..., 3] = confidence
    mapped = map_joints(clip, mapping, coordinates=3)[0, 0, :, 3]
    for row, value in zip(mapping, mapped, strict=True):
        used = confidence[row != 0]
        assert used.min() - 1e-6 <= value <= used.max() + 1e-6


@given(layouts(), st.data())
def test_a_tree_hung_up_elsewhere_has_the_same_bones(layout, data):
    root = data.draw(st.integers(0, layout.num_joints - 1))
    parents = rerooted_parents(layout, root)
    assert parents[root] == root
    bones = {frozenset((joint, parent)) for joint, parent in enumerate(parents) if joint != parent}
    assert bones == {frozenset(bone) for bone in layout.bones}
    reached = np.arange(layout.num_joints)
    for _ in range(layout.num_joints):
        reached = parents[reached]
    assert (reached == root).all()


@given(layouts(), st.integers(0, 14))
def test_relative_positions_are_those_of_ancestors(layout, k):
    parents = rerooted_parents(layout, layout.centre)
    clip = np.random.default_rng(k).normal(size=(layout.num_joints, 3))
    expected = clip.copy()
    for joint in range(layout.num_joints):
        above, steps = joint, 0
        while steps < k and parents[above] != above:
            above, steps = parents[above], steps + 1
        if steps == k:
            expected[joint] -= clip[above]
    np.testing.assert_allclose(relative_positions(layout, k) @ clip, expected, atol=1e-6)


@given(layouts())
def test_spatial_adjacency_has_every_bone_once_and_normalised_columns(layout):
    itself, inward, outward = spatial_adjacency(layout)
    np.testing.assert_array_equal(itself, np.eye(layout.num_joints))
    assert {(joint, parent) for parent, joint in np.argwhere(inward)} == set(layout.bones)
    np.testing.assert_array_equal(inward > 0, outward.T > 0)
    for edges in (inward, outward):
        sums = edges.sum(axis=0)
        np.testing.assert_allclose(sums[sums > 0], 1, atol=1e-6)
