"""HD-GCN against the published PyTorch model with its three centers of mass, and its parts by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.models import losses
from mmcl_jax.models.graphs import hierarchical_adjacency
from mmcl_jax.models.hdgcn import HDGCN, EdgeConv, GraphConv, LayerAttention
from mmcl_jax.models.layers import BatchNorm
from mmcl_jax.pytorch.names import hdgcn_entries
from mmcl_jax.pytorch.state_dicts import TorchWeightsError, resolve_aliases, to_flax, to_torch
from mmcl_jax.steps import random_state
from mmcl_jax.task import build_training_task
from tests.helpers.golden import (
    filled_state_dict,
    gradient_norm_mismatches,
    load,
    model_input,
    relative_error,
)
from tests.helpers.runs import tiny_config

CENTERS = (1, 2, 21)
HASTY = {"xla_backend_optimization_level": 0}  # what runs once or twice need not be optimized
NORM = functools.partial(BatchNorm, channel_major=True)


def shapes(model: HDGCN, clips) -> dict:
    return jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), clips)


@pytest.fixture(scope="module")
def template() -> dict:
    adjacency = hierarchical_adjacency(LAYOUTS["ntu"], 2)
    return shapes(HDGCN(120, adjacency), jax.ShapeDtypeStruct((1, 2, 64, 25, 3), jnp.float32))


def test_parameter_count(template):
    assert sum(leaf.size for leaf in jax.tree.leaves(template["params"])) == 1_675_400


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("layout", ["nw_ucla", "utd_mhad"])
def test_other_layouts(layout, center):
    adjacency = hierarchical_adjacency(LAYOUTS[layout], center)
    model = HDGCN(10, adjacency, base_channels=4)
    clips = jax.ShapeDtypeStruct((2, 1, 52, 20, 3), jnp.float32)
    variables = shapes(model, clips)
    features = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, clips)
    assert features.shape == (2, 1, 13, 20, model.feature_width)
    entries = hdgcn_entries(base_channels=4, num_layers=len(adjacency))
    rng = np.random.default_rng(0)
    filled = jax.tree.map(lambda leaf: rng.uniform(size=leaf.shape).astype(np.float32), variables)
    back = to_flax(to_torch(filled, entries), entries, variables)
    jax.tree.map(np.testing.assert_array_equal, back, filled)


@pytest.fixture(scope="module")
def evaluate():
    """One compiled function for every center of mass: the adjacency is an argument."""
    return jax.jit(
        lambda adjacency, variables, clips: HDGCN(120, adjacency).apply(variables, clips, train=False)[0],
        compiler_options=HASTY,
    )


@pytest.fixture(scope="module")
def differentiate():
    """The same for loss, logits and gradients in training."""

    def loss(params, adjacency, batch_stats, clips, labels):
        (logits, _), _ = HDGCN(120, adjacency).apply(
            {"params": params, "batch_stats": batch_stats}, clips, train=True, mutable=["batch_stats"]
        )
        return losses.cross_entropy(logits, labels), logits

    return jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=HASTY)


def published(center: int, template: dict):
    """A reference, its adjacency, the model's weights and clips."""
    reference, expected = load(f"hdgcn_com{center}_ntu120")
    state_dict = resolve_aliases(filled_state_dict(reference), hdgcn_entries())
    clips = model_input(reference).transpose(0, 4, 2, 3, 1)
    adjacency = hierarchical_adjacency(LAYOUTS["ntu"], center)
    return reference, expected, adjacency, to_flax(state_dict, hdgcn_entries(), template), clips


@pytest.mark.parametrize("center", CENTERS)
def test_published_logits(center, template, evaluate):
    _, expected, adjacency, variables, clips = published(center, template)
    assert relative_error(evaluate(adjacency, variables, clips), expected["eval_logits"]) <= 1e-4


@pytest.mark.parametrize("center", CENTERS)
def test_published_training(center, template, differentiate):
    reference, expected, adjacency, variables, clips = published(center, template)

    def run(clips):
        (value, logits), gradients = differentiate(
            variables["params"], adjacency, variables["batch_stats"], clips, expected["labels"]
        )
        return value, logits, to_torch({"params": gradients}, hdgcn_entries())

    value, logits, gradients = run(clips)
    assert relative_error(logits, expected["train_logits"]) <= 1e-3
    assert float(value) == pytest.approx(float(expected["train_loss"]), rel=1e-3)
    assert gradient_norm_mismatches(gradients, reference, lambda moved: run(*moved)[2], (clips,)) == []


def test_published_weights_come_back_bit_for_bit(template):
    reference, _, _, variables, _ = published(2, template)
    state_dict = resolve_aliases(filled_state_dict(reference), hdgcn_entries())
    back = to_torch(variables, hdgcn_entries())
    assert list(back) == list(reference["state_dict"])
    assert [key for key in back if back[key].tobytes() != state_dict[key].tobytes()] == []
    state_dict["l4.gcn1.conv_d.3.conv.0.weight"] = state_dict["l3.gcn1.conv_d.3.conv.0.weight"]
    with pytest.raises(TorchWeightsError, match=r"unequal: l4\.gcn1\.conv_d\.3\.conv\.0\.weight and l4\.gcn1\.conv\.5"):
        to_flax(state_dict, hdgcn_entries(), template)


@pytest.mark.parametrize("neighbors", [1, 3, 9])
def test_edge_convolution_by_hand(neighbors):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 2, 1, 6)).astype(np.float32)  # [L, C, N, M, V]
    kernel = rng.normal(size=(2, 6, 3)).astype(np.float32)
    module = EdgeConv(neighbors, NORM)
    unit = {"scale": np.ones(6, np.float32), "bias": np.zeros(6, np.float32)}
    stats = {"mean": np.zeros(6, np.float32), "var": np.ones(6, np.float32)}
    variables = {"params": {"kernel": kernel, "bn": unit}, "batch_stats": {"bn": stats}}
    actual = jax.jit(module.apply, static_argnums=2)(variables, x, False)
    for layer, clip, node in np.ndindex(2, 2, 6):
        nodes = x[layer, :, clip, 0]
        distance = np.square(nodes - nodes[:, node : node + 1]).sum(axis=0)
        pairs = [
            np.concatenate([nodes[:, other] - nodes[:, node], nodes[:, node]]) @ kernel[layer]
            for other in np.argsort(distance)[:neighbors]
        ]
        expected = np.max([np.where(pair > 0, pair, 0.2 * pair) for pair in pairs], axis=0)
        np.testing.assert_allclose(actual[layer, :, clip, 0, node], expected, rtol=1e-4, atol=1e-4)


def test_attention_sees_the_joints_of_each_layer_alone():
    """A joint that is in the first layer only moves nothing but that layer's mean."""
    adjacency = hierarchical_adjacency(LAYOUTS["ntu"], 2)
    module = LayerAttention(4, adjacency, NORM)
    x = np.random.default_rng(0).normal(size=(6, 4, 1, 1, 25)).astype(np.float32)
    variables = jax.jit(module.init, static_argnums=2)(jax.random.key(3), x, False)
    apply = jax.jit(functools.partial(module.apply, train=False))
    weights = apply(variables, x)
    assert weights.shape == (6, 4, 1, 1)
    assert ((weights > 0) & (weights < 1)).all()
    outside = x.copy()
    for layer in range(6):
        outside[layer, ..., np.diagonal(adjacency[layer, 0]) == 0] += 100
    np.testing.assert_array_equal(apply(variables, outside), weights)
    assert not np.array_equal(apply(variables, x + 100), weights)


def test_initial_parameters():
    adjacency = hierarchical_adjacency(LAYOUTS["ntu"], 21)
    graph_conv = GraphConv(64, adjacency, attention=True, norm=NORM)
    clips = jnp.ones((32, 1, 1, 4, 25))
    params = jax.jit(lambda key: graph_conv.init(key, clips, True)["params"], compiler_options=HASTY)(
        jax.random.key(0, impl="rbg")
    )
    np.testing.assert_array_equal(params["PA"], adjacency)
    np.testing.assert_array_equal(params["bn"]["scale"], np.float32(1e-6))
    np.testing.assert_array_equal(params["linked_bn"]["scale"], 1)
    # PyTorch's kaiming_normal_(mode='fan_out') of each convolution by itself; `aggregate` is left at PyTorch's default.
    for kernel in (params["kernel"], params["reduce"]["kernel"], params["edge"]["kernel"]):
        assert float(kernel.std()) == pytest.approx((2 / 16) ** 0.5, rel=0.1)
    expand = params["attention"]["expand"]
    for leaf in (expand["kernel"], expand["bias"]):
        assert float(jnp.abs(leaf).max()) <= 0.25
        assert float(leaf.std()) == pytest.approx(0.25 / 3**0.5, rel=0.2)


@pytest.mark.parametrize("center", CENTERS)
def test_center_of_mass_reaches_the_model(tiny_records, center):
    config = tiny_config(tiny_records, model__backbone="hdgcn", model__center_of_mass=center)
    task = build_training_task(config)
    expected = hierarchical_adjacency(LAYOUTS["ntu"], center)
    np.testing.assert_array_equal(task.skeleton.backbone.adjacency, expected)
    state = jax.eval_shape(functools.partial(random_state, task.recipe, 0, task.input_shapes()))
    assert state.params["backbone"]["blocks_0"]["gcn"]["PA"].shape == expected.shape
