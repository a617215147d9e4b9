"""Clips of any numbers come back from what a page stores of them."""

import base64

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmcl_jax.viewers import skeleton_player
from tests.viewers.test_skeleton_player import decode, info, unpack


@given(st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=1, max_size=200))
def test_whole_numbers_come_back(values):
    packed = skeleton_player._pack(np.array(values))
    np.testing.assert_array_equal(unpack(packed, (len(values),)), np.cumsum(values))
    assert len(base64.b64decode(packed)) <= 5 * len(values)


@given(st.lists(st.integers(-64, 63), min_size=1, max_size=200))
def test_small_numbers_take_a_byte(values):
    assert len(base64.b64decode(skeleton_player._pack(np.array(values)))) == len(values)


@given(st.integers(1, 2), st.integers(1, 40), st.integers(-3, 4), st.integers(0, 2**32 - 1), st.data())
def test_clips_come_back(bodies, frames, magnitude, seed, data):
    rng = np.random.default_rng(seed)
    skeleton = (10.0**magnitude * rng.normal(size=(bodies, frames, 25, 3))).astype(np.float32)
    lost = data.draw(st.lists(st.integers(0, frames - 1), unique=True, max_size=frames - 1))
    skeleton[-1, lost] = 0
    clip = skeleton_player.encode(skeleton, info())
    decoded = decode(clip, 25, 3)
    assert np.abs(decoded - skeleton).max() <= 0.501 * clip["step"] + 1e-6 * np.abs(skeleton).max()
    assert not decoded[-1, lost].any()
