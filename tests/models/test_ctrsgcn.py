"""CTRS-GCN against the published PyTorch model, and what its initial parameters promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.models import losses
from mmcl_jax.models.blocks import Block
from mmcl_jax.models.ctrsgcn import CTRSGCN, GraphConv, NormedTemporalConv
from mmcl_jax.models.layers import BatchNorm
from mmcl_jax.pytorch.names import ctrsgcn_entries
from mmcl_jax.pytorch.state_dicts import to_flax, to_torch
from tests.helpers.golden import (
    filled_state_dict,
    gradient_norm_mismatches,
    load,
    model_input,
    relative_error,
)


def identities(num_joints: int) -> np.ndarray:
    return np.stack([np.eye(num_joints, dtype=np.float32)] * 3)


def shapes(model: CTRSGCN, clips) -> dict:
    return jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), clips)


@pytest.mark.parametrize(
    ("classes", "clips", "features", "count"),
    [
        (120, (1, 2, 64, 25, 3), (1, 2, 16, 25, 256), 2_108_322),
        (10, (1, 1, 52, 20, 3), (1, 1, 13, 20, 256), 2_108_322 - 110 * 257 - 30 * (25**2 - 20**2) - 2 * (150 - 60)),
    ],
)
def test_parameter_count_and_shapes(classes, clips, features, count):
    model = CTRSGCN(classes, identities(clips[3]))
    x = jax.ShapeDtypeStruct(clips, jnp.float32)
    variables = shapes(model, x)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count
    run = functools.partial(jax.eval_shape, functools.partial(model.apply, train=False))
    assert run(variables, x)[0].shape == (1, classes)
    before_pooling = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)
    assert before_pooling.shape == features
    assert model.feature_width == features[-1]


@pytest.fixture(scope="module")
def published():
    """The reference, the model with its weights, and its clips."""
    reference, expected = load("ctrsgcn_ntu120")
    model = CTRSGCN(120, identities(25))
    clips = model_input(reference).transpose(0, 4, 2, 3, 1)
    variables = to_flax(filled_state_dict(reference), ctrsgcn_entries(), shapes(model, clips))
    return reference, expected, model, variables, clips


def test_published_logits(published):
    _, expected, model, variables, clips = published
    logits, aux = jax.jit(functools.partial(model.apply, train=False))(variables, clips)
    assert relative_error(logits, expected["eval_logits"]) <= 1e-4
    assert aux == {}


def test_published_training(published):
    reference, expected, model, variables, clips = published

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params, batch_stats, clips):
        (logits, _), _ = model.apply(
            {"params": params, "batch_stats": batch_stats}, clips, train=True, mutable=["batch_stats"]
        )
        return losses.cross_entropy(logits, expected["labels"]), logits

    hasty = {"xla_backend_optimization_level": 0}  # what runs once need not be optimized
    run = functools.partial(jax.jit(loss, compiler_options=hasty), variables["params"], variables["batch_stats"])
    (value, logits), gradients = run(clips)

    def by_name(gradients):
        return to_torch({"params": gradients}, ctrsgcn_entries())

    assert relative_error(logits, expected["train_logits"]) <= 1e-3
    assert float(value) == pytest.approx(float(expected["train_loss"]), rel=1e-3)
    again = lambda moved: by_name(run(*moved)[1])  # noqa: E731
    assert gradient_norm_mismatches(by_name(gradients), reference, again, (clips,)) == []


def test_published_weights_come_back_bit_for_bit(published):
    reference, _, _, variables, _ = published
    state_dict = filled_state_dict(reference)
    back = to_torch(variables, ctrsgcn_entries())
    assert list(back) == list(state_dict)
    assert [key for key in back if back[key].tobytes() != state_dict[key].tobytes()] == []


def test_initial_parameters():
    norm = functools.partial(BatchNorm, channel_major=True)
    block = Block(64, 2, True, functools.partial(GraphConv, adjacency=identities(20)), NormedTemporalConv, norm)
    clips = jnp.ones((32, 1, 1, 4, 20))
    params = jax.jit(lambda key: block.init(key, clips, True)["params"])(jax.random.key(0, impl="rbg"))
    np.testing.assert_array_equal(params["gcn"]["PA"], identities(20))
    np.testing.assert_array_equal(params["gcn"]["bn"]["scale"], np.float32(1e-6))
    assert float(params["gcn"]["kernel"].std()) == pytest.approx((2 / (64 * 32 * 3)) ** 0.5, rel=0.1)
    assert float(params["tcn"]["conv"]["kernel"].std()) == pytest.approx((2 / (64 * 5)) ** 0.5, rel=0.1)
    np.testing.assert_array_equal(params["tcn"]["bn"]["scale"], 1)
    assert not any(params[module]["bias"].any() for module in ("gcn", "residual"))


def test_only_the_direction_of_an_adjacency_column_counts():
    graph_conv = GraphConv(4, identities(5), functools.partial(BatchNorm, channel_major=True))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 2, 1, 3, 5)).astype(np.float32)
    variables = jax.jit(graph_conv.init, static_argnums=2)(jax.random.key(0), x, False)
    adjacency = rng.uniform(1, 2, (3, 5, 5)).astype(np.float32)
    run = jax.jit(
        lambda pa: graph_conv.apply(
            {**variables, "params": {**variables["params"], "PA": pa, "bn": {"scale": np.ones(4), "bias": np.ones(4)}}},
            x,
            False,
        )
    )
    np.testing.assert_allclose(
        run(adjacency * np.arange(10, 15, dtype=np.float32)), run(10 * adjacency), rtol=1e-4, atol=1e-4
    )
    assert np.abs(run(adjacency.transpose(0, 2, 1)) - run(adjacency)).max() > 1e-2
