"""The PyTorch baselines against the published models: names, sizes, outputs, gradients; one training step."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from experiments.pytorch_baselines.gcn import CTRGCN, CTRSGCN, ReleasedCTRGCN
from experiments.pytorch_baselines.hdgcn import HDGCN
from experiments.pytorch_baselines.inception import InceptionV3
from experiments.pytorch_baselines.infogcn import InfoGCN
from experiments.pytorch_baselines.mmcl import MMCL, contrastive_loss, make_optimizer, mmcl_loss, training_step
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.models import losses
from mmcl_jax.models.graphs import hierarchical_adjacency, relative_positions, spatial_adjacency
from mmcl_jax.pytorch.names import ctrgcn_entries, hdgcn_entries, inception_entries, mmcl_entries
from mmcl_jax.pytorch.state_dicts import IGNORED, resolve_aliases
from tests.helpers.golden import (
    filled_state_dict,
    gradient_norm_mismatches,
    load,
    model_input,
    relative_error,
    standard_input,
)

NTU = torch.from_numpy(spatial_adjacency(LAYOUTS["ntu"]))


@pytest.mark.parametrize(
    ("model", "entries", "count"),
    [(CTRGCN, ctrgcn_entries, 1_462_092), (MMCL, mmcl_entries, 1_784_766), (CTRSGCN, None, 2_108_322)],
)
def test_names_and_sizes(model, entries, count):
    made = model(120, NTU)
    assert sum(parameter.numel() for parameter in made.parameters()) == count
    if entries is not None:
        assert list(made.state_dict()) == [entry.key for entry in entries()]


def published(name: str, model):
    """A reference, its expected outputs, and the model with its weights."""
    reference, expected = load(name)
    state_dict = {key: torch.from_numpy(value) for key, value in filled_state_dict(reference).items()}
    joints = state_dict["l1.gcn1.PA"].shape[-1]
    made = model(
        len(state_dict["fc.bias"]),
        torch.zeros(3, joints, joints),
        num_bodies=len(state_dict["data_bn.bias"]) // joints // 3,
    )
    assert {key: list(value.shape) for key, value in made.state_dict().items()} == reference["state_dict"]
    assert list(made.state_dict()) == list(reference["state_dict"])
    made.load_state_dict(state_dict)
    return reference, expected, made


def gradients(model, loss) -> dict[str, np.ndarray]:
    """Gradients of one loss by name, independent of earlier computations."""
    model.zero_grad()
    loss.backward()
    return {key: value.grad.numpy().copy() for key, value in model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("ctrgcn_ucla", CTRGCN),
        ("ctrgcn_ucla", ReleasedCTRGCN),
        ("ctrsgcn_ntu120", CTRSGCN),
    ],
)
def test_published_outputs(name, model):
    reference, expected, model = published(name, model)
    clips = model_input(reference)
    with torch.no_grad():
        assert relative_error(model.eval()(torch.from_numpy(clips)), expected["eval_logits"]) <= 1e-4

    def run(clips):
        logits = model.train()(torch.from_numpy(clips))
        loss = F.cross_entropy(logits, torch.from_numpy(expected["labels"]))
        return logits, loss, gradients(model, loss)

    logits, loss, ours = run(clips)
    assert relative_error(logits.detach(), expected["train_logits"]) <= 1e-3
    assert loss.item() == pytest.approx(float(expected["train_loss"]), rel=1e-3)
    assert gradient_norm_mismatches(ours, reference, lambda moved: run(*moved)[2], (clips,)) == []


@pytest.mark.parametrize(
    ("name", "model", "graph", "entries"),
    [
        ("hdgcn_com2_ntu120", HDGCN, hierarchical_adjacency(LAYOUTS["ntu"], 2), hdgcn_entries()),
        ("infogcn_k1_ntu120", InfoGCN, relative_positions(LAYOUTS["ntu"], 1), []),
    ],
)
def test_published_outputs_of_models_for_inference(name, model, graph, entries):
    reference, expected = load(name)
    state_dict = resolve_aliases(filled_state_dict(reference), entries)
    made = model(120, torch.from_numpy(graph))
    assert list(made.state_dict()) == list(reference["state_dict"])
    made.load_state_dict({key: torch.from_numpy(value) for key, value in state_dict.items()})
    with torch.no_grad():
        logits = made.eval()(torch.from_numpy(model_input(reference)))
    assert relative_error(logits, expected["eval_logits"]) <= 1e-4


def test_published_co_learning():
    reference, expected, model = published("mmcl_ntu120", MMCL)
    drawn = {name: standard_input(name, shape, reference["seed"]) for name, shape in reference["inputs"].items()}
    inputs = drawn["mmcl/skeleton"], drawn["mmcl/image_logits"], drawn["mmcl/text"][:, 0]

    def run(*inputs):
        outputs = model.train()(*map(torch.from_numpy, inputs))
        loss = mmcl_loss(outputs, torch.from_numpy(expected["labels"]))
        return outputs, loss, gradients(model, loss)

    outputs, loss, ours = run(*inputs)
    assert relative_error(outputs.logits.detach(), expected["train_logits"]) <= 1e-3
    assert relative_error(outputs.refined_logits.detach(), expected["refined"]) <= 1e-3
    assert loss.item() == pytest.approx(float(expected["total_loss"]), rel=1e-4)
    assert gradient_norm_mismatches(ours, reference, lambda moved: run(*moved)[2], inputs) == []


def test_the_released_order_is_the_same_function():
    torch.manual_seed(0)
    released = ReleasedCTRGCN(7, NTU, base_channels=8).double()
    for parameter in released.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = CTRGCN(7, NTU, base_channels=8).double()
    ours.load_state_dict(released.state_dict())
    clips = torch.randn(2, 3, 16, 25, 2, dtype=torch.float64)
    torch.testing.assert_close(released(clips), ours(clips), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("clips", [1, 5])
def test_contrastive_loss_is_ours(clips):
    a, b = torch.randn(2, clips, 8, generator=torch.Generator().manual_seed(0))
    expected = losses.contrastive(a.numpy(), b.numpy(), temperature=0.4)
    assert contrastive_loss(a, b).item() == pytest.approx(float(expected), rel=1e-5, abs=1e-6)


def test_initial_parameters():
    torch.manual_seed(0)
    state_dict = CTRGCN(120, NTU).state_dict()
    assert torch.equal(state_dict["l7.gcn1.PA"], NTU)
    assert state_dict["l7.gcn1.alpha"] == 0 and (state_dict["l7.gcn1.bn.weight"] == 1e-6).all()
    assert state_dict["l9.gcn1.convs.1.conv3.weight"].std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.05)
    assert state_dict["l9.tcn1.branches.1.3.conv.weight"].std().item() == pytest.approx((2 / 320) ** 0.5, rel=0.05)
    assert state_dict["l9.tcn1.branches.1.3.bn.weight"].std().item() == pytest.approx(0.02, rel=0.3)
    state_dict = CTRSGCN(120, torch.eye(25).repeat(3, 1, 1)).state_dict()
    assert torch.equal(state_dict["l7.gcn1.PA"][1], torch.eye(25))
    assert state_dict["l9.gcn1.conv_d.1.weight"].std().item() == pytest.approx((2 / (256 * 256 * 3)) ** 0.5, rel=0.05)


@pytest.mark.long
def test_a_step_with_a_cnn_trains_everything():
    torch.manual_seed(0)
    model = MMCL(4, NTU, image_width=6, base_channels=4, num_bodies=1)
    cnn = torch.nn.Linear(12, 6)
    optimizer = make_optimizer([*model.parameters(), *cnn.parameters()], learning_rate=0.01)
    clips, images, text = torch.randn(4, 3, 8, 25, 1), torch.randn(4, 12), torch.randn(4, 3)
    before = [parameter.clone() for group in optimizer.param_groups for parameter in group["params"]]
    values = [
        training_step(optimizer, lambda: mmcl_loss(model(clips, cnn(images), text), torch.arange(4))).item()
        for _ in range(5)
    ]
    assert values[-1] < values[0]
    after = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_inception_has_torchvision_s_names_and_size():
    model = InceptionV3()
    assert sum(parameter.numel() for parameter in model.parameters()) == 23_834_568  # without the auxiliary head
    assert list(model.state_dict()) == [entry.key for entry in inception_entries() if entry.collection != IGNORED]


def test_inception_s_published_logits():
    reference, expected = load("inception_v3")
    weights = filled_state_dict(reference)
    model = InceptionV3()
    model.load_state_dict({name: torch.from_numpy(weights[name]) for name in model.state_dict()})
    with torch.inference_mode():
        logits = model.eval()(torch.from_numpy(model_input(reference)))
    assert relative_error(logits.numpy(), expected["eval_logits"]) <= 1e-4
