"""The predictor's packing of bodies, with a backbone whose features are read off: each body's are where it was."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcl_jax import predictor
from mmcl_jax.models.folded import TWINS
from mmcl_jax.predictor import Predictor

SHAPES = [(1, 1), (1, 2), (2, 2), (4, 1), (3, 2), (2, 5), (7, 3)]  # clips, bodies: few and many
ABSENT = 100.0


class Sums:
    """A backbone that is its own twin: a body's features are the sum of its coordinates, and `ABSENT` more."""

    feature_width = 1

    @classmethod
    def of(cls, backbone: "Sums") -> "Sums":
        return backbone

    @classmethod
    def fold(cls, variables):
        return variables

    def apply(self, variables, x, train: bool, method: str):
        del variables
        assert not train
        if method == "embed":  # [N, M, T, V, C] -> [C, N, M, T, V]
            return jnp.moveaxis(x, -1, 0)
        if method == "trunk":  # [C, B, 1, T, V] -> [B, 1, T, V, 1]
            return jnp.moveaxis(x.sum(axis=0, keepdims=True), 0, -1) + ABSENT
        return x[:, :, 0, 0, 0], {}  # every body's features instead of logits


TWINS[Sums] = Sums


@functools.cache
def compiled(skips_absent: bool):
    predict = Predictor(Sums(), skips_absent)
    return jax.jit(
        lambda clips, bodies: predict.logits(predict.prepare({"params": jnp.zeros(1)}, clips.shape[1:]), clips, bodies)
    )


@st.composite
def batches(draw) -> tuple[np.ndarray, np.ndarray]:
    """Clips `[N, M, 1, 1, C]` full of numbers, whether their bodies are present or not, and how many are."""
    count, most = draw(st.sampled_from(SHAPES))
    clips = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(-50, 50, (count, most, 1, 1, 2))
    bodies = draw(st.lists(st.integers(0, most), min_size=count, max_size=count))
    return clips.astype(np.float32), np.array(bodies, np.int32)


@given(batches())
def test_absent_bodies_have_the_features_of_absent_bodies(batch):
    clips, bodies = batch
    present = np.arange(clips.shape[1]) < bodies[:, None]
    expected = np.where(present, clips.sum(axis=(2, 3, 4)), 0) + ABSENT
    np.testing.assert_array_equal(compiled(True)(clips, bodies), expected)


@given(batches())
def test_where_none_is_skipped_every_body_is_computed(batch):
    clips, bodies = batch
    np.testing.assert_array_equal(compiled(False)(clips, bodies), clips.sum(axis=(2, 3, 4)) + ABSENT)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@given(st.integers(5, 23), st.data())
def test_many_bodies_are_computed_from_the_first_on(backend, count, data):
    """On an accelerator in eight parts, on a processor in pairs; the last part may begin before the last body."""
    present = data.draw(st.integers(0, count))
    computed = np.zeros(count, bool)

    def loop(begin: int, trips, body, features):
        for trip in range(begin, int(trips)):
            features = body(trip, features)
        return features

    def compute(features, begin, size: int):
        begin = min(int(begin), count - size)  # as a slice of an array does
        computed[begin : begin + size] = True
        return features

    with mock.patch.object(jax, "default_backend", lambda: backend), mock.patch.object(jax.lax, "fori_loop", loop):
        predictor._replace_many(compute, np.zeros(count), np.int32(present))
    assert computed[:present].all()
    size = 2 if backend == "cpu" else -(-count // 8)
    assert computed.sum() < present + size
