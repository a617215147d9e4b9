"""Depth and widths of the backbones follow from their field `stages`, and so do the names of PyTorch's weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.config import get_config
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.models import BACKBONES
from mmcl_jax.pytorch import names
from mmcl_jax.pytorch.state_dicts import to_flax, to_torch

STAGES = ((1, 1), (2, 2), (3, 2))


@pytest.mark.parametrize("backbone", ["ctrgcn", "ctrsgcn", "hdgcn", "infogcn"])
def test_stages(backbone):
    options = get_config().model
    options.base_channels = 8
    model = BACKBONES[backbone](5, LAYOUTS["ntu"], 3, options).clone(stages=STAGES)
    clips = jax.ShapeDtypeStruct((2, 2, 16, 25, 3), jnp.float32)
    shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), clips)
    blocks = {name for name in shapes["params"] if name.startswith("blocks_")}
    assert blocks == {"blocks_0", "blocks_1", "blocks_2"}
    features = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), shapes, clips)
    assert features.shape == (2, 2, 4, 25, 24)
    assert model.feature_width == 24

    entries = getattr(names, f"{backbone}_entries")(base_channels=8, stages=STAGES)
    rng = np.random.default_rng(0)
    filled = jax.tree.map(lambda leaf: rng.uniform(size=leaf.shape).astype(np.float32), shapes)
    back = to_flax(to_torch(filled, entries), entries, filled)
    jax.tree.map(np.testing.assert_array_equal, back, filled)
