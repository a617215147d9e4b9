"""Inception-v3 against the published PyTorch model."""

import jax
import jax.numpy as jnp
import pytest

from mmcl_jax.models.image_encoders import IMAGE_ENCODERS
from mmcl_jax.models.inception import InceptionV3
from mmcl_jax.pytorch.names import inception_entries
from mmcl_jax.pytorch.state_dicts import to_flax
from tests.helpers.golden import filled_state_dict, load, model_input, relative_error


@pytest.fixture(scope="module")
def shapes():
    images = jax.ShapeDtypeStruct((2, 299, 299, 3), jnp.float32)
    return jax.eval_shape(lambda key, x: InceptionV3().init(key, x, False), jax.random.key(0), images)


def test_parameter_count(shapes):
    # torchvision's inception_v3 with 1000 classes has 27,161,264; the auxiliary head has 3,326,696 of them.
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 23_834_568


def test_group_size_keeps_the_structure_and_encoders_are_built_alike(shapes):
    encoder = IMAGE_ENCODERS["inception_v3"]
    images = jax.ShapeDtypeStruct((4, encoder.image_size, encoder.image_size, 3), jnp.float32)
    module = encoder.module(group_size=2)
    logits, variables = jax.eval_shape(
        lambda key, x: module.init_with_output({"params": key, "dropout": key}, x, True), jax.random.key(0), images
    )
    assert logits.shape == (4, 1000) and logits.dtype == jnp.float32
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes)


def test_published_logits(shapes):
    reference, expected = load("inception_v3")
    variables = to_flax(filled_state_dict(reference), inception_entries(), shapes)
    images = model_input(reference).transpose(0, 2, 3, 1)

    logits = jax.jit(lambda v, x: InceptionV3().apply(v, x, False))(variables, images)
    assert relative_error(logits, expected["eval_logits"]) <= 1e-4

    train = jax.jit(lambda v, x: InceptionV3().apply(v, x, True, mutable=["batch_stats"]))
    logits, updates = train(variables, images)
    assert relative_error(logits, expected["train_logits"]) <= 1e-3
    assert jax.tree.structure(updates["batch_stats"]) == jax.tree.structure(variables["batch_stats"])
