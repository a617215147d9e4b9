"""Absent bodies computed once: the training step of the whole batch, its statistics and gradients, in float64."""

import functools
import types

import jax
import numpy as np
import optax
import pytest

from mmcl_jax import steps
from mmcl_jax.data.capacities import bodies_to_compute
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.models import BACKBONES
from mmcl_jax.models.mmcl import MMCL, FeatureAlignment
from mmcl_jax.models.packed import Packing
from mmcl_jax.runtime.backend import HASTY

LAYOUT = LAYOUTS["ntu"]
CLIPS, MOST, FRAMES, GROUP = 8, 3, 4, 4
# Of both groups, one clip of no body, which counts as one; the second has an absent body of number 2 only.
BODIES = np.array([1, 2, 3, 0, 2, 3, 2, 2], np.int32)
OPTIONS = types.SimpleNamespace(
    base_channels=8,
    batch_norm_group_size=GROUP,
    graph="natural",
    center_of_mass=2,
    k=8,
    relatives="ancestors",
    latent_noise=0.1,
    label_smoothing=0.1,
    mmd_weights=(1e-4, 1e-1),
    prior_gain=3.0,
)


def make_recipe(name: str) -> steps.Recipe:
    backbone = BACKBONES[name](5, LAYOUT, 3, OPTIONS).clone(stages=((1, 1), (2, 2)))
    model = MMCL(backbone, None, FeatureAlignment(backbone.feature_width))
    return steps.Recipe(
        model=model,
        transform=lambda clip, frames, bodies, key: clip,
        optimizer=optax.sgd(1.0),
        loss=steps.LossOptions(refinement_weight=0.0),
    )


def make_batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    skeleton = rng.normal(1, 2, size=(CLIPS, MOST, FRAMES, 25, 3))
    skeleton *= np.arange(MOST)[:, None, None, None] < BODIES[:, None, None, None, None]
    return {
        "skeleton": skeleton,
        "frames": np.full(CLIPS, FRAMES, np.int32),
        "bodies": BODIES,
        "label": (np.arange(CLIPS) % 5).astype(np.int32),
        "image": rng.normal(size=(CLIPS, 6)),
        "position": np.arange(CLIPS, dtype=np.uint32),
    }


def double(tree):
    rng = np.random.default_rng(1)
    # Away from the start, where graph convolutions hardly count.
    return jax.tree.map(
        lambda leaf: leaf + 0.1 * rng.uniform(size=leaf.shape) if np.issubdtype(leaf.dtype, np.floating) else leaf,
        jax.tree.map(np.asarray, tree),
    )


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name == "hdgcn")) for name in BACKBONES]
)
def test_the_packed_step_is_the_plain_one(name):
    recipe, batch = make_recipe(name), make_batch()
    least = int(bodies_to_compute(BODIES.reshape(-1, GROUP), MOST).max())
    assert least == 9 + MOST - 1
    with jax.enable_x64(True):
        start = double(steps.initial_state(recipe, 0, batch))

        def both(state, batch):
            step = functools.partial(steps.train_step, state, batch, recipe=recipe, key=jax.random.key(1))
            return step(), step(packing=Packing(least + 2))  # with room to spare

        plain, packed = jax.tree.map(np.asarray, jax.jit(both, compiler_options=HASTY)(start, batch))
    moved = jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), plain.params, start.params))
    assert np.mean(np.array(moved) > 1e-4) > 0.4
    for part in ("params", "batch_stats", "totals"):
        actual, expected = getattr(packed, part), getattr(plain, part)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), actual, expected)
