"""The small image encoder: its contract, its size, and that it can learn."""

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.models.image_encoders import IMAGE_ENCODERS


def build(**attributes):
    encoder = IMAGE_ENCODERS["small_cnn"]
    model = encoder.module(**attributes)
    images = jax.random.normal(jax.random.key(1), (4, encoder.image_size, encoder.image_size, 3))
    return model, model.init(jax.random.key(0), images, False), images


def test_contract_and_parameter_count():
    model, variables, images = build()
    features, updates = jax.jit(lambda v, x: model.apply(v, x, True, mutable=["batch_stats"]))(variables, images)
    assert features.shape == (4, 256) and features.dtype == jnp.float32
    assert np.std(features, axis=0).min() > 0  # the images are told apart
    assert not np.array_equal(updates["batch_stats"]["bn1"]["mean"], variables["batch_stats"]["bn1"]["mean"])
    convolutions, norms, dense = 392_112, 992, 65_792
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == convolutions + norms + dense


def test_groups_are_normalised_apart():
    model, variables, images = build(group_size=2, stages=(8, 8))
    apply = jax.jit(lambda v, x: model.apply(v, x, True, mutable=["batch_stats"])[0])
    together = apply(variables, images)
    apart = jnp.concatenate([apply(variables, images[:2]), apply(variables, images[2:])])
    np.testing.assert_allclose(together, apart, atol=1e-5)


def test_gradients_reach_every_parameter():
    model, variables, images = build(stages=(8, 16))

    def loss(params):
        features, _ = model.apply({**variables, "params": params}, images, True, mutable=["batch_stats"])
        return jnp.mean(jnp.square(features - 1))

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    assert all(np.linalg.norm(leaf) > 0 for leaf in jax.tree.leaves(gradients))
