"""`experiments.parity`: references written here with other seeds, shapes and names; every kind of mistake is found."""

import json
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from experiments.parity import baselines, families, golden, references
from experiments.parity.table import Table
from experiments.pytorch_baselines.gcn import CTRGCN
from experiments.pytorch_baselines.mmcl import MMCL, contrastive_loss, mmcl_loss
from mmcl_jax.models.layers import BatchNorm
from mmcl_jax.pytorch import published as published_models
from mmcl_jax.pytorch.state_dicts import batch_norm_entries, linear_entries
from tests.helpers.golden import COMPACT
from tests.helpers.runs import ROOT


def load_filled(model: torch.nn.Module, seed: int) -> dict[str, list[int]]:
    """Gives the model the format's weights; returns the shapes by key."""
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict({key: torch.from_numpy(golden.fill(key, tuple(s), seed)) for key, s in shapes.items()})
    return shapes


def write(folder, name: str, reference: dict, arrays: dict) -> None:
    (folder / f"{name}.json").write_text(json.dumps(reference))
    np.savez(folder / f"{name}.npz", **arrays)


def gradient_norms(model: torch.nn.Module) -> dict[str, float]:
    return {key: value.grad.norm().item() for key, value in model.named_parameters()}


def rows(output: str) -> dict[tuple[str, str], str]:
    """(model, what was compared) -> verdict."""
    cells = (line.split("  ") for line in output.splitlines())
    cells = [[cell.strip() for cell in line if cell.strip()] for line in cells]
    return {(line[0], line[1]): line[-1] for line in cells if len(line) == 6}  # the heading has five


def test_an_unseen_reference_and_a_corrupted_one(tmp_path, capsys):
    """MMCL, which has a CTR-GCN in it, of another width, layout, number of bodies, batch, seed and name."""
    seed, shapes = 7, {"any/skeleton": [3, 3, 12, 20, 1], "any/text": [3, 1, 5], "any/image_logits": [3, 30]}
    model = MMCL(6, torch.zeros(3, 20, 20), image_width=30, text_width=5, num_bodies=1, base_channels=8)
    reference = {"inputs": shapes, "seed": seed, "state_dict": load_filled(model, seed)}
    clips, text, images = (torch.from_numpy(golden.inputs(*item, seed)) for item in shapes.items())
    labels = torch.tensor([5, 0, 2])
    outputs = model.train()(clips, images, text[:, 0])
    loss = mmcl_loss(outputs, labels)
    loss.backward()
    arrays = {
        "labels": labels.numpy(),
        "train_logits": outputs.logits.detach().numpy(),
        "refined": outputs.refined_logits.detach().numpy(),
        "contrastive": contrastive_loss(outputs.skeleton_features, outputs.image_features).detach().numpy(),
        "total_loss": loss.item() * 1.01,  # wrong
        "eval_layer/l1": np.zeros(8),  # not compared
    }
    write(tmp_path, "x", {**reference, "grad_norm": gradient_norms(model)}, arrays)
    assert references.check_folder(tmp_path) == 1
    output = capsys.readouterr().out
    expected = {("x", key): "ok" for key in ("train_logits", "refined", "contrastive", "gradients of 574")}
    assert {key: value for key, value in rows(output).items() if key[0] == "x"} == {
        **expected,
        ("x", "total_loss"): "FAIL",
    }
    assert f" {sum(p.numel() for p in model.parameters()):,} " in output
    assert "is mmcl; not compared: eval_layer" in output
    assert output.splitlines()[-1] == "5 comparisons, 1 FAIL"


@pytest.mark.parametrize(("joints", "bodies", "base_channels"), [(25, 2, 64), (20, 1, 8), (17, 3, 16)])
def test_ctrgcn_is_recognized_by_keys_and_shapes(joints, bodies, base_channels):
    baseline = CTRGCN(9, torch.zeros(3, joints, joints), num_bodies=bodies, base_channels=base_channels)
    shapes = load_filled(baseline, 1)
    reference = {"input_name": "i", "input_shape": [2, 3, 8, joints, bodies], "seed": 1, "state_dict": shapes}
    state_dict = golden.state_dict(reference)
    name, family = families.recognise(state_dict)
    assert name == "ctrgcn"
    ((label, model),) = family.models("whatever", state_dict).items()
    assert label == ""
    inputs = family.inputs(reference)
    assert inputs[0].shape == (2, bodies, 8, joints, 3)
    with pytest.raises(golden.GoldenError, match=rf"inputs of shape \(2, {bodies}, 8, {joints - 1}, 3\) .* do not fit"):
        families.template(model, (inputs[0][:, :, :, 1:],))
    program = references.Program(family, model, state_dict, inputs, None, frozenset())
    assert program.parameters == sum(parameter.numel() for parameter in baseline.parameters())


class Tiny(nn.Module):
    """A model that compiles at once: linear, batch norm, ReLU, linear."""

    flipped: bool

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(BatchNorm(name="bn")(nn.Dense(5, name="hidden")(-x if self.flipped else x), train))
        return nn.Dense(4, name="fc")(x), {}


TINY = torch.nn.ModuleDict  # the PyTorch side, by the same names


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder with a reference of `Tiny`, and what was written there."""
    entries = [
        *linear_entries("hidden", ("hidden",)),
        *batch_norm_entries("bn", ("bn",)),
        *linear_entries("fc", ("fc",)),
    ]

    def models(name, state_dict):
        variants = {label: families.Model(Tiny(label == "flipped"), entries) for label in ("straight", "flipped")}
        return {key: model for key, model in variants.items() if key in name} or variants

    def inputs(reference):
        return (golden.inputs(reference["input_name"], tuple(reference["input_shape"]), reference["seed"]),)

    recognise = published_models.recognise
    known = lambda state_dict: "tiny" if "hidden.weight" in state_dict else recognise(state_dict)  # noqa: E731
    monkeypatch.setattr(published_models, "recognise", known)
    monkeypatch.setitem(families.FAMILIES, "tiny", families.Family(models, inputs, families._classification))
    model = TINY({"hidden": torch.nn.Linear(3, 5), "bn": torch.nn.BatchNorm1d(5), "fc": torch.nn.Linear(5, 4)})
    run = lambda x: model["fc"](F.relu(model["bn"](model["hidden"](x))))  # noqa: E731
    reference = {"input_name": "x", "input_shape": [6, 3], "seed": 2, "state_dict": load_filled(model, 2)}
    x, labels = torch.from_numpy(golden.inputs("x", (6, 3), 2)), torch.arange(6) % 4
    arrays = {"labels": labels.numpy(), "eval_logits": run_in(model.eval(), run, x)}
    model.train()
    logits = run(x)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    arrays.update(train_logits=logits.detach().numpy(), train_loss=loss.item())
    reference["grad_norm"] = gradient_norms(model)
    return tmp_path, reference, arrays


def run_in(model, run, x) -> np.ndarray:
    with torch.no_grad():
        return run(x).numpy()


def test_the_name_tells_or_the_nearest_is_found(tiny, capsys):
    folder, reference, arrays = tiny
    write(folder, "straight_a", reference, arrays)
    write(folder, "b", reference, arrays)
    assert references.check_folder(folder) == 0
    output = capsys.readouterr().out
    assert output.count("the nearest of straight, flipped is straight") == 1
    assert list(rows(output).values()) == ["ok"] * 8
    write(folder, "flipped_c", reference, arrays)
    assert references.check_folder(folder) == 1


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda r, a: a.update(eval_logits=a["eval_logits"] * 1.001), "eval_logits"),
        (lambda r, a: a.update(eval_logits=a["eval_logits"][:2]), "eval_logits"),
        (lambda r, a: a["train_logits"].__setitem__((0, 0), np.nan), "train_logits"),
        (lambda r, a: a.update(train_loss=a["train_loss"] * 1.01), "train_loss"),
        (lambda r, a: r["grad_norm"].update({"fc.weight": r["grad_norm"]["fc.weight"] * 1.02}), "gradients of 6"),
        (lambda r, a: r["grad_norm"].pop("fc.bias"), "gradients of 6"),
    ],
)
def test_each_corrupted_expectation_is_its_own_failure(tiny, capsys, change, failed):
    folder, reference, arrays = tiny
    change(reference, arrays)
    write(folder, "straight", reference, arrays)
    assert references.check_folder(folder) == 1
    verdicts = rows(capsys.readouterr().out)
    assert [key for key, verdict in verdicts.items() if verdict == "FAIL"] == [("straight", failed)]
    assert list(verdicts.values()).count("ok") == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "straight.npz").unlink(), "not a readable reference"),
        (lambda folder: (folder / "straight.npz").write_bytes(b"PK\3\4 no archive"), "not a readable reference"),
        (lambda folder: (folder / "straight.json").write_text("{"), "JSONDecodeError"),
        (lambda folder: (folder / "straight.json").unlink(), "straight.json is missing"),
        (lambda folder: edit(folder, lambda r: r.pop("seed")), "straight.json lacks seed"),
        (lambda folder: edit(folder, lambda r: r.pop("input_shape")), "straight.json lacks input_shape"),
        (lambda folder: edit(folder, lambda r: r.update(input_shape=[6, 2])), "misshapen: hidden.weight"),
        (lambda folder: (folder / "straight.json").write_text("[1]"), "does not hold a JSON object"),
        (lambda folder: edit(folder, lambda r: r["state_dict"].pop("hidden.weight")), "none of the models known here"),
        (lambda folder: edit(folder, lambda r: r["state_dict"].update({"fc.bias": [3]})), "misshapen: fc.bias"),
    ],
)
def test_what_cannot_be_judged_fails(tiny, capsys, change, message):
    folder, reference, arrays = tiny
    write(folder, "straight", reference, arrays)
    write(folder, "straight_too", reference, arrays)
    change(folder)
    assert references.check_folder(folder) == 1
    output = capsys.readouterr().out
    assert "cannot be judged" in output and message in output
    assert [verdict for (name, _), verdict in rows(output).items() if name == "straight_too"] == ["ok"] * 4


def edit(folder, change) -> None:
    path = folder / "straight.json"
    reference = json.loads(path.read_text())
    change(reference)
    path.write_text(json.dumps(reference))


def test_what_is_no_model_is_listed_and_is_not_enough(tmp_path, capsys):
    (tmp_path / "split.json").write_text(json.dumps({"train": 3}))
    np.savez(tmp_path / "transforms.npz", clip=np.zeros(3))
    (tmp_path / "weights.py").write_text("raise SystemExit('executed')")
    assert references.check_folder(tmp_path) == 1
    output = capsys.readouterr().out
    assert output.count("not a model: make test compares it") == 2
    assert "nothing was compared: FAIL" in output


def test_contrastive_values(tmp_path, capsys):
    a, b = (torch.from_numpy(golden.inputs(f"con/{side}4", (4, 8), 0)) for side in "ab")
    value = contrastive_loss(a, b, temperature=0.5).item()
    (tmp_path / "c.json").write_text(json.dumps({"tau": 0.5, "value": {"4x8": value}}))
    assert references.check_folder(tmp_path) == 0
    (tmp_path / "c.json").write_text(json.dumps({"tau": 0.4, "value": {"4x8": value}}))
    assert references.check_folder(tmp_path) == 1


def test_rounding_excuses_a_little_and_only_what_it_moves():
    reference = {"grad_norm": {"alpha": 1.0, "weight": 10.0}, "state_dict": {"alpha": [1], "weight": [1]}}
    ours = {"alpha": np.array([1.03]), "weight": np.array([10.0])}
    error = lambda rounding: golden.gradient_norm_errors(ours, reference, rounding)["alpha"]  # noqa: E731
    assert error({}) == pytest.approx(0.03, rel=0.01)
    assert error({"alpha": 0.025}) == pytest.approx(0.005, rel=0.01)
    assert error({"weight": 0.025}) == error({})
    ours["alpha"] = np.array([1.2])
    assert error({"alpha": 10.0}) == pytest.approx(0.15, rel=0.01)  # at most 5 % are excused
    ours["alpha"] = np.array([np.nan])
    assert error({"alpha": 10.0}) == np.inf


def test_gradients_that_are_nothing_but_rounding_agree_if_they_are_small():
    reference = {
        "grad_norm": {"conv_d.0.bias": 8e-6, "weight": 1.0},
        "state_dict": {"conv_d.0.bias": [1], "weight": [1]},
    }
    ours = {"conv_d.0.bias": np.array([2e-6]), "weight": np.array([1.0])}
    error = lambda rounding: golden.gradient_norm_errors(ours, reference, rounding)["conv_d.0.bias"]  # noqa: E731
    assert error({}) > 0.05
    assert error({"conv_d.0.bias": 4e-7}) > 0.05  # stable: a gradient
    assert error({"conv_d.0.bias": 6e-7}) == 0
    ours["conv_d.0.bias"] = np.array([1.1e-5])
    assert error({"conv_d.0.bias": 1.0}) > 0.02


def test_convolutions_are_scaled_where_the_note_says_so():
    reference = {"seed": 0, "state_dict": {"a.weight": [2, 3, 1, 1], "b.weight": [2, 3]}}
    plain = golden.state_dict(reference)
    scaled = golden.state_dict({**reference, "note": "4-d (conv) weights are fill() * sqrt(2); dropout off"})
    np.testing.assert_allclose(scaled["a.weight"], plain["a.weight"] * 2**0.5, rtol=1e-6)
    np.testing.assert_array_equal(scaled["b.weight"], plain["b.weight"])


def test_fill_and_inputs_are_the_formats():
    with np.load(COMPACT / "weights.npz") as stored:
        expected = dict(stored)
    np.testing.assert_array_equal(golden.inputs("x", (3, 4), 5), expected.pop("5/input"))
    assert len(expected) == 22
    for name, values in expected.items():
        seed, _, key = name.partition("/")
        ours = golden.fill(key, values.shape, int(seed))
        assert ours.dtype == values.dtype
        np.testing.assert_array_equal(ours, values)


@pytest.mark.long
def test_our_models_train_like_the_baselines_and_a_mistake_is_seen(capsys, monkeypatch):
    """CTRS-GCN, which compiles fast, in float64; the whole table is `python -m experiments.parity --torch`."""
    comparison = baselines.Comparison("ctrsgcn", 3, baselines.Size(5, 4, 3, 8))
    table = Table(["ctrsgcn"])
    with jax.enable_x64(True):
        comparison.compare(table, np.float64)
        assert (table.compared, table.failed) == (6, 0)
        capsys.readouterr()
        monkeypatch.setattr(baselines, "WEIGHT_DECAY", 5e-4)  # PyTorch's; ours is compiled
        comparison.compare(table, np.float64)
    failed = [what for (_, what), verdict in rows(capsys.readouterr().out).items() if verdict == "FAIL"]
    assert failed == ["float64 10 steps, each from one state: added"]
    assert table.finish() == 1


def test_the_command_wants_one_of_two():
    for arguments in ([], ["folder", "--torch"]):
        result = subprocess.run(
            [sys.executable, "-m", "experiments.parity", *arguments], cwd=ROOT, capture_output=True, text=True
        )
        assert result.returncode == 2 and "give either a folder" in result.stderr
