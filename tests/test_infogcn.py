"""Info-GCN against the published PyTorch model; its latent sampling, its prior and its initial parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.graphs import LAYOUTS, relative_positions
from mmcl_jax.models.infogcn import InfoGCN
from mmcl_jax.torch_names import infogcn_entries
from mmcl_jax.torch_weights import TorchWeightsError, to_flax, to_torch
from tests.golden import (
    filled_state_dict,
    gradient_norm_mismatches,
    load,
    model_input,
    relative_error,
    require_golden,
)

NTU = functools.partial(relative_positions, LAYOUTS["ntu"])
# The published training outputs are plain cross entropy of the latent means.
PLAIN = {"latent_noise": 0.0, "label_smoothing": 0.0, "mmd_weights": (0.0, 0.0)}


def shapes(model: InfoGCN, clips) -> dict:
    return jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), clips)


@pytest.mark.parametrize(
    ("base_channels", "clips", "features", "count"),
    [
        (64, (1, 2, 64, 25, 3), (1, 2, 16, 25, 256), 1_572_227),
        (8, (1, 1, 52, 20, 3), (1, 1, 13, 20, 32), None),
        (4, (1, 1, 52, 20, 3), (1, 1, 13, 20, 16), None),  # narrower than 8 / channels: one channel a head
    ],
)
def test_parameter_count_and_shapes(base_channels, clips, features, count):
    model = InfoGCN(120, np.eye(clips[3], dtype=np.float32), base_channels)
    x = jax.ShapeDtypeStruct(clips, jnp.float32)
    variables = shapes(model, x)
    if count is not None:
        assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count
    run = functools.partial(jax.eval_shape, functools.partial(model.apply, train=False), variables)
    logits, aux = run(x)
    assert logits.shape == (1, 120)
    assert {name: leaf.shape for name, leaf in aux.items()} == {"z": (1, features[-1]), "z_prior": (120, features[-1])}
    before_pooling = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)
    assert before_pooling.shape == features
    assert model.feature_width == features[-1]


@pytest.fixture(scope="module")
def evaluated():
    """Evaluation of the published model, compiled once for every k: the features' matrix is an argument."""
    return jax.jit(lambda matrix, variables, clips: InfoGCN(120, matrix).apply(variables, clips, train=False)[0])


@pytest.fixture(scope="module")
def trained():
    """Loss, logits, changed statistics and gradients of the published model, compiled once for every k."""

    def run(matrix, variables, clips, labels):
        def loss(params):
            model = InfoGCN(120, matrix, **PLAIN)
            (logits, aux), updates = model.apply({**variables, "params": params}, clips, True, mutable=["batch_stats"])
            return model.classification_loss(logits, aux, labels), (logits, updates["batch_stats"])

        (value, (logits, updates)), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return value, logits, updates, gradients

    return jax.jit(run)


@pytest.fixture(params=(0, 1, 8), ids="k{}".format)
def published(request):
    """k, its reference, the published weights and clips."""
    reference, expected = load(f"infogcn_k{request.param}_ntu120")
    clips = model_input(reference).transpose(0, 4, 2, 3, 1)
    return request.param, reference, expected, imported(filled_state_dict(reference), clips), clips


def imported(state_dict: dict, clips) -> dict:
    template = shapes(InfoGCN(120, NTU(8)), clips)
    template["batch_stats"]["z_prior"] = np.full((120, 256), 0.5, np.float32)
    return to_flax(state_dict, infogcn_entries(), template)


@require_golden
def test_published_logits(published, evaluated):
    k, _, expected, variables, clips = published
    assert relative_error(evaluated(NTU(k), variables, clips), expected["eval_logits"]) <= 1e-4


@require_golden
def test_published_training(published, trained):
    k, reference, expected, variables, clips = published
    value, logits, statistics, gradients = trained(NTU(k), variables, clips, expected["labels"])
    assert relative_error(logits, expected["train_logits"]) <= 1e-3
    assert float(value) == pytest.approx(float(expected["train_loss"]), rel=1e-3)
    norms = to_torch({"params": gradients}, infogcn_entries())
    if k == 0:
        # The input is constant in front of a batch norm: what reaches its biases is rounding noise, 1 / sqrt(1e-5)
        # times amplified.
        for key in ("to_joint_embedding.bias", "pos_embedding"):
            assert np.linalg.norm(norms.pop(key)) < 1e-3 * max(reference["grad_norm"].values())
            reference = {**reference, "grad_norm": {**reference["grad_norm"]}}
            del reference["grad_norm"][key]
    assert gradient_norm_mismatches(norms, reference) == []
    np.testing.assert_array_equal(statistics.pop("z_prior"), 0.5)
    before = {name: tree for name, tree in variables["batch_stats"].items() if name != "z_prior"}
    changed = jax.tree.map(lambda new, old: (new != old).any(), statistics, before)
    assert all(jax.tree.leaves(changed))


@require_golden
def test_published_weights_come_back_bit_for_bit_without_the_prior():
    reference, _ = load("infogcn_k8_ntu120")
    state_dict = filled_state_dict(reference)
    clips = jax.ShapeDtypeStruct((1, 2, 64, 25, 3), jnp.float32)
    variables = imported(state_dict, clips)
    assert (variables["batch_stats"]["z_prior"] == 0.5).all()
    exported = to_torch(variables, infogcn_entries())
    assert list(exported) == list(state_dict)
    for key, value in state_dict.items():
        assert exported[key].shape == value.shape and exported[key].tobytes() == value.tobytes(), key
    with pytest.raises(TorchWeightsError, match=r"not stored by PyTorch: batch_stats/z_prior; the template must hold"):
        to_flax(state_dict, infogcn_entries(), shapes(InfoGCN(120, NTU(8)), clips))
