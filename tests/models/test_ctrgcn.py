"""CTR-GCN against the published PyTorch model, and what its options and initial parameters promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.models import losses
from mmcl_jax.models.blocks import Block, MultiScaleTemporalConv
from mmcl_jax.models.ctrgcn import CTRGCN, GraphConv
from mmcl_jax.models.graphs import spatial_adjacency
from mmcl_jax.models.layers import BatchNorm
from mmcl_jax.pytorch.names import ctrgcn_entries
from mmcl_jax.pytorch.state_dicts import to_flax, to_torch
from tests.helpers.golden import (
    filled_state_dict,
    gradient_norm_mismatches,
    load,
    model_input,
    relative_error,
)

ADJACENCY = {name: spatial_adjacency(layout) for name, layout in LAYOUTS.items()}


def shapes(model: CTRGCN, clips) -> dict:
    return jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), clips)


@pytest.mark.parametrize(
    ("layout", "classes", "clips", "features", "count"),
    [
        ("ntu", 120, (1, 2, 64, 25, 3), (1, 2, 16, 25, 256), 1_462_092),
        ("nw_ucla", 10, (1, 1, 52, 20, 3), (1, 1, 13, 20, 256), 1_426_892),
    ],
)
def test_parameter_count_and_shapes(layout, classes, clips, features, count):
    model = CTRGCN(classes, ADJACENCY[layout])
    x = jax.ShapeDtypeStruct(clips, jnp.float32)
    variables = shapes(model, x)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count
    run = functools.partial(jax.eval_shape, functools.partial(model.apply, train=False), variables)
    assert run(x)[0].shape == (1, classes)
    before_pooling = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)
    assert before_pooling.shape == features
    assert model.feature_width == features[-1]


@pytest.fixture(
    scope="module", params=[("ctrgcn_ntu120", "ntu", 120), ("ctrgcn_ucla", "nw_ucla", 10)], ids=lambda p: p[0]
)
def published(request):
    """A reference, the model with its weights, and its clips."""
    name, layout, classes = request.param
    reference, expected = load(name)
    model = CTRGCN(classes, ADJACENCY[layout])
    clips = model_input(reference).transpose(0, 4, 2, 3, 1)
    variables = to_flax(filled_state_dict(reference), ctrgcn_entries(), shapes(model, clips))
    return reference, expected, model, variables, clips


def test_published_logits(published):
    _, expected, model, variables, clips = published
    logits, aux = jax.jit(functools.partial(model.apply, train=False))(variables, clips)
    assert relative_error(logits, expected["eval_logits"]) <= 1e-4
    assert aux == {}


@pytest.mark.parametrize("published", [("ctrgcn_ucla", "nw_ucla", 10)], indirect=True, ids=lambda p: p[0])
def test_published_training(published):
    """NTU RGB+D 120's model trains in test_mmcl, under MMCL."""
    reference, expected, model, variables, clips = published

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params, batch_stats, clips):
        (logits, _), updates = model.apply(
            {"params": params, "batch_stats": batch_stats}, clips, train=True, mutable=["batch_stats"]
        )
        return losses.cross_entropy(logits, expected["labels"]), (logits, updates)

    run = functools.partial(jax.jit(loss), variables["params"], variables["batch_stats"])
    (value, (logits, updates)), gradients = run(clips)

    def by_name(gradients):
        return to_torch({"params": gradients}, ctrgcn_entries())

    assert relative_error(logits, expected["train_logits"]) <= 1e-3
    assert float(value) == pytest.approx(float(expected["train_loss"]), rel=1e-3)
    again = lambda moved: by_name(run(*moved)[1])  # noqa: E731
    assert gradient_norm_mismatches(by_name(gradients), reference, again, (clips,)) == []
    changed = jax.tree.map(lambda new, old: (new != old).any(), updates["batch_stats"], variables["batch_stats"])
    assert all(jax.tree.leaves(changed))


def test_the_gradient_rule_sees_mistakes(published):
    reference, *_ = published
    norms = {key: np.array([norm]) for key, norm in reference["grad_norm"].items()}
    assert gradient_norm_mismatches(norms, reference) == []
    bias = "l1.tcn1.branches.2.0.bias"  # directly in front of a batch norm: nothing but noise
    assert gradient_norm_mismatches({**norms, bias: np.zeros(1)}, reference) == []
    largest = max(reference["grad_norm"].values())
    for key, value in (
        ("fc.weight", norms["fc.weight"] * 1.02),
        (bias, norms[bias] + 6e-6 * largest),
        (bias, [np.nan]),
    ):
        (mismatch,) = gradient_norm_mismatches({**norms, key: np.array(value)}, reference)
        assert mismatch.startswith(f"{key}: ")
    del norms["fc.bias"]
    assert gradient_norm_mismatches(norms, reference) == ["fc.bias: only in one of the two"]


@pytest.fixture(scope="module")
def block():
    """A block with stride 2 and more channels than its input, so that it has every part."""
    norm = functools.partial(BatchNorm, channel_major=True)
    graph_conv = functools.partial(GraphConv, adjacency=ADJACENCY["nw_ucla"])

    def make(size):
        return Block(8, 2, True, graph_conv, MultiScaleTemporalConv, functools.partial(norm, group_size=size))

    x = np.random.default_rng(0).normal(size=(4, 4, 2, 6, 20)).astype(np.float32)  # [C, N, M, T, V]
    # Random values, not initial ones: the graph convolution starts as almost nothing.
    rng = np.random.default_rng(1)
    template = jax.eval_shape(lambda key: make(None).init(key, x, True), jax.random.key(0))
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32), template)
    run = {
        (size, train): jax.jit(functools.partial(make(size).apply, train=train, mutable=["batch_stats"]))
        for size in (None, 2)
        for train in (False, True)
    }
    return run, variables, x


def test_groups_are_batches_of_their_own(block):
    run, variables, x = block
    grouped, updates = run[2, True](variables, x)
    first, first_updates = run[None, True](variables, x[:, :2])
    second, _ = run[None, True](variables, x[:, 2:])
    np.testing.assert_allclose(grouped, np.concatenate([first, second], axis=1), rtol=1e-4, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), updates, first_updates)
    assert np.abs(first - second).max() > 1e-2


def test_clips_and_bodies_are_independent_in_evaluation(block):
    run, variables, x = block
    together, _ = run[None, False](variables, x)
    assert together.shape == (8, 4, 2, 3, 20)
    swapped, _ = run[None, False](variables, x[:, ::-1, ::-1])
    np.testing.assert_allclose(swapped[:, ::-1, ::-1], together, rtol=1e-5, atol=1e-5)


def test_initial_parameters():
    norm = functools.partial(BatchNorm, channel_major=True)
    graph_conv = functools.partial(GraphConv, adjacency=ADJACENCY["nw_ucla"])
    first = Block(64, 1, False, graph_conv, MultiScaleTemporalConv, norm)
    clips = jnp.ones((3, 1, 1, 4, 20))
    params = jax.jit(lambda key: first.init(key, clips, True)["params"])(jax.random.key(0, impl="rbg"))  # compiles fast
    np.testing.assert_array_equal(params["gcn"]["topology"]["PA"], ADJACENCY["nw_ucla"])
    assert params["gcn"]["topology"]["alpha"].tolist() == [0]
    np.testing.assert_array_equal(params["gcn"]["bn"]["scale"], np.float32(1e-6))
    # PyTorch's kaiming_normal_(mode='fan_out') of each convolution by itself.
    assert float(params["gcn"]["values"]["kernel"].std()) == pytest.approx((2 / 64) ** 0.5, rel=0.1)
    assert float(params["tcn"]["conv_dilation_1"]["kernel"].std()) == pytest.approx((2 / (16 * 5)) ** 0.5, rel=0.1)
    assert float(params["tcn"]["reduce"]["kernel"].std()) == pytest.approx((2 / 16) ** 0.5, rel=0.1)
    assert float(params["tcn"]["out_bn"]["scale"].std()) == pytest.approx(0.02, rel=0.3)
