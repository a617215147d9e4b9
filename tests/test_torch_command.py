"""The command that takes PyTorch checkpoints in and gives them back: whole, bit for bit, or not at all."""

import json
import os
import pathlib

import jax
import numpy as np
import pytest
import torch

from mmcl_jax import checkpoints, torch_models, torch_names, torch_weights
from mmcl_jax.evaluate import evaluate_workdir
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS
from mmcl_jax.run_log import RunLog, WorkdirError
from mmcl_jax.torch_command import main
from tests import runs
from tests.golden import filled_state_dict, load, require_golden

CLASSES, BODIES, WIDTH = 12, 1, 4


def random_state_dict(name: str, **changes: int) -> dict[str, np.ndarray]:
    """A narrow model's state dict, with batch norms that have counted 12345 batches."""
    sizes = {"num_classes": CLASSES, "joints": 25, "channels": 3, "bodies": BODIES, "base_channels": WIDTH}
    sizes |= {"image_width": 7, "text_width": 3, "num_layers": 6} | changes
    rng = np.random.default_rng(0)
    model = torch_models.PUBLISHED[name]
    template = torch_models._template(model, sizes, torch_models._entries(model, sizes))
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(np.float32), template)
    state_dict = torch_weights.to_torch(variables, torch_models.entries_of(name, variables))
    return {k: np.array(12345) if k.endswith("tracked") else v for k, v in state_dict.items()}


@pytest.fixture(scope="module")
def published():
    return {name: random_state_dict(name) for name in torch_models.PUBLISHED}


def tensors(state_dict: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {key: torch.tensor(value) for key, value in state_dict.items()}


def save(content, path: pathlib.Path) -> pathlib.Path:
    """Writes `content` with torch, or arrays by name as `.npz`."""
    if path.suffix == ".npz":
        np.savez(path, **content)
    else:
        torch.save(content, path)
    return path


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    return {key: value.numpy() for key, value in torch.load(path, weights_only=True).items()}


def command(direction: str, *arguments) -> None:
    main([direction, *map(str, arguments)])


def fails(capsys, direction: str, *arguments) -> str:
    """Runs a command that must end with status 1 and a message; returns the message."""
    with pytest.raises(SystemExit) as caught:
        command(direction, *arguments)
    assert caught.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "Traceback" not in message
    return message.removeprefix("error: ")


def assert_bit_for_bit(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(actual) == list(expected)
    for key, value in expected.items():
        assert (actual[key].dtype, actual[key].shape) == (value.dtype, value.shape), key
        assert actual[key].tobytes() == value.tobytes(), key


@pytest.mark.parametrize(
    ("name", "suffix"), [("ctrgcn", "pt"), ("ctrsgcn", "pth"), ("hdgcn", "npz"), ("infogcn", "pt"), ("mmcl", "npz")]
)
def test_import_then_export_is_bit_for_bit(name, suffix, published, tmp_path, capsys):
    file, workdir, back = tmp_path / f"a.{suffix}", tmp_path / "deep" / "run", tmp_path / f"b.{suffix}"
    save(published[name] if suffix == "npz" else tensors(published[name]), file)
    command("import", file, workdir)
    said = capsys.readouterr().out
    assert f"{name}: 12 classes, 25 joints, 1 bodies, 3 channels a joint, width 4;" in said
    backbone = "ctrgcn" if name == "mmcl" else name
    assert f"--config.model.backbone={backbone} --config.model.base_channels=4 --workdir={workdir}" in said
    command("export", back, workdir, *(["--model", "mmcl"] if name == "mmcl" else []))
    assert_bit_for_bit(read(back), published[name])


@require_golden
@pytest.mark.parametrize(
    ("reference", "more"),
    [
        ("ctrgcn_ucla", []),
        ("ctrsgcn_ntu120", []),
        ("hdgcn_com1_ntu120", []),
        ("infogcn_k1_ntu120", []),
        ("mmcl_ntu120", ["--model=mmcl"]),
    ],
)
def test_published_names_and_order_come_back(reference, more, tmp_path):
    state_dict = filled_state_dict(load(reference)[0])
    state_dict = torch_weights.resolve_aliases(state_dict, torch_names.hdgcn_entries())
    command("import", save(tensors(state_dict), tmp_path / "a.pt"), tmp_path / "run")
    command("export", tmp_path / "b.pt", tmp_path / "run", *more)
    expected = {k: np.asarray(v, np.int64) if k.endswith("tracked") else v for k, v in state_dict.items()}
    assert_bit_for_bit(read(tmp_path / "b.pt"), expected)


def test_counters_that_an_old_file_lacks_stay_away(published, tmp_path):
    state_dict = {key: value for key, value in published["ctrgcn"].items() if not key.endswith("tracked")}
    command("import", save(state_dict, tmp_path / "a.npz"), tmp_path / "run")
    command("export", tmp_path / "b.npz", tmp_path / "run")
    assert_bit_for_bit(read(tmp_path / "b.npz"), state_dict)


def test_the_skeleton_model_of_mmcl_is_exported_alone(published, tmp_path):
    command("import", save(published["mmcl"], tmp_path / "a.npz"), tmp_path / "run")
    command("export", tmp_path / "b.npz", tmp_path / "run")
    exported = read(tmp_path / "b.npz")
    assert_bit_for_bit(exported, {key: published["mmcl"][key] for key in exported})
    assert list(exported) == list(published["ctrgcn"])


def test_every_tensor_is_told_its_leaf(published, tmp_path, capsys):
    command("import", save(published["ctrgcn"], tmp_path / "a.npz"), tmp_path / "run", "--verbose")
    lines = capsys.readouterr().out.splitlines()
    assert "l1.gcn1.PA [3, 25, 25] <-> params/blocks_0/gcn/topology/PA" in lines
    kernel = "params/blocks_0/gcn/topology/relation_kernel[:, 1, 2]"
    assert f"l1.gcn1.convs.2.conv2.weight [8, 3, 1, 1] <-> {kernel}" in lines
    assert sum(" <-> " in line for line in lines) == len(published["ctrgcn"])


def cast(state_dict, kind):
    return {key: v.to(kind) if v.is_floating_point() else v for key, v in tensors(state_dict).items()}


def with_optimiser(state_dict):
    layer = torch.nn.Linear(2, 2)
    optimiser = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    return {"epoch": 64, "nested": {"state_dict": tensors(state_dict)}, "optimizer": optimiser.state_dict()}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda s: cast(s, torch.float16), "tensors were float16; converted to float32"),
        (lambda s: {f"module.{k}": v for k, v in tensors(s).items()}, "dropped 'module.' before every name"),
        (
            lambda s: {f"module._orig_mod.{k}": torch.nn.Parameter(v, False) for k, v in tensors(s).items()},
            "dropped 'module._orig_mod.' before every name",
        ),
        (
            lambda s: {"epoch": 3, "state_dict": {f"model.{k}": v for k, v in tensors(s).items()}},
            "dropped 'model.' before every name",
        ),
        (with_optimiser, "took the dict of tensors under 'nested.state_dict'"),
    ],
    ids=["half", "data_parallel", "compiled_parallel", "lightning", "nested"],
)
def test_what_training_code_saves_is_taken(content, said, published, tmp_path, capsys):
    content = content(published["ctrgcn"])
    command("import", save(content, tmp_path / "a.pt"), tmp_path / "run")
    assert said in capsys.readouterr().out
    _, variables = checkpoints.read_variables(tmp_path / "run")
    kernel = np.asarray(variables["params"]["backbone"]["fc"]["kernel"])
    expected = published["ctrgcn"]["fc.weight"].T
    if "float" in said:
        expected = content["fc.weight"].float().numpy().T
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, expected)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_floats_of_any_width_become_float32(kind, published, tmp_path):
    content, notes = cast(published["ctrgcn"], kind), []
    arrays = torch_weights.read_state_dict(save(content, tmp_path / "a.pt"), notes.append)
    assert_bit_for_bit(
        arrays,
        read(save({k: v.float() if v.is_floating_point() else v for k, v in content.items()}, tmp_path / "b.pt")),
    )
    (note,) = notes
    assert f"were {str(kind).removeprefix('torch.')}; converted to float32" in note


class Payload:
    """Unpickled, it would make a file."""

    def __init__(self, call, marker):
        self._call, self._marker = call, marker

    def __reduce__(self):
        if self._call is exec:
            return exec, (f"open({str(self._marker)!r}, 'w').close()",)
        return os.system, (f"touch {self._marker}",)


def without(state_dict, key):
    return {name: value for name, value in state_dict.items() if name != key}


def spoiled(state_dict, key, spoil):
    value = state_dict[key].copy()
    return {**state_dict, key: spoil(value)}


def nan(value):
    value.flat[3] = np.nan
    return value


def renamed(state_dict):
    return {key.replace("gcn1", "gcn"): value for key, value in state_dict.items()}


BROKEN = {
    "class counts disagree": (
        lambda s: spoiled(s, "fc.weight", lambda v: v[:-1]),
        ["read as ctrgcn", "misshapen: fc.weight, seen float32 (11, 16), expected float (12, 16)"],
    ),
    "a key is missing": (
        lambda s: without(s, "l5.residual.bn.running_var"),
        ["(1 problems;", "missing: l5.residual.bn.running_var, expected (8,)"],
    ),
    "a key that tells a size is missing": (
        lambda s: without(without(s, "l1.gcn1.PA"), "fc.weight"),
        ["missing: l1.gcn1.PA, which tells joints", "missing: fc.weight"],
    ),
    "a key too many": (
        lambda s: {**s, "l11.fc.weight": s["fc.weight"]},
        ["extra: l11.fc.weight, seen (12, 16), expected no such key"],
    ),
    "transposed classifier": (
        lambda s: spoiled(s, "fc.weight", np.transpose),
        ["misshapen: fc.weight, seen float32 (16, 12), expected float (12, 16)"],
    ),
    "transposed first convolution": (
        lambda s: spoiled(s, "l1.gcn1.down.0.weight", lambda v: v.swapaxes(0, 1)),
        ["misshapen: data_bn.weight, seen (75,), expected a multiple of 100: 25 joints (l1.gcn1.PA) x 4 channels"],
    ),
    "a width that no model has": (
        lambda s: spoiled(s, "l1.gcn1.bn.weight", lambda v: v[:3]),
        ["misshapen: l1.gcn1.bn.weight, 3 channels, expected a multiple of 4"],
    ),
    "integers": (
        lambda s: spoiled(s, "fc.bias", lambda v: v.astype(np.int64)),
        ["misshapen: fc.bias, seen int64 (12,), expected float (12,)"],
    ),
    "not a number": (
        lambda s: spoiled(s, "l3.gcn1.bn.weight", nan),
        ["not finite: l3.gcn1.bn.weight (4,), 1 of 4 values are NaN or infinite"],
    ),
    "a fractional counter": (
        lambda s: spoiled(s, "data_bn.num_batches_tracked", lambda v: v / 2),
        ["misshapen: data_bn.num_batches_tracked, expected one integer"],
    ),
    "renamed keys": (
        renamed,
        ["none of the models known here (ctrgcn", "--model=ctrgcn lists what is missing"],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_state_dict_that_does_not_fit(case, published, tmp_path, capsys):
    spoil, expected = BROKEN[case]
    file = save(spoil(published["ctrgcn"]), tmp_path / "a.npz")
    message = fails(capsys, "import", file, tmp_path / "run")
    assert message.startswith(f"{file}: ")
    for words in expected:
        assert words in message
    assert list(tmp_path.iterdir()) == [file]  # nothing is left behind


def test_every_missing_key_is_listed_where_the_model_is_named(published, tmp_path, capsys):
    file = save(renamed(published["ctrgcn"]), tmp_path / "a.npz")
    message = fails(capsys, "import", file, tmp_path / "run", "--model=ctrgcn")
    assert "missing: l1.gcn1.PA, which tells joints" in message
    assert "missing: l9.gcn1.convs.2.conv4.weight" in message


def cut(file, _):
    file.write_bytes(file.read_bytes()[:-5000])


def empty(file, _):
    file.write_bytes(b"")


def prose(file, _):
    file.write_text("404: not found")


def nothing(file, _):
    file.unlink()


def payload(call):
    return lambda file, marker: torch.save({"fc.weight": torch.ones(2), "fc.bias": Payload(call, marker)}, file)


def old_payload(file, marker):
    torch.save({"state_dict": Payload(os.system, marker)}, file, _use_new_zipfile_serialization=False)


def whole_model(file, _):
    torch.save(torch.nn.Linear(2, 2), file)


def two_models(file, _):
    torch.save({"model": {"a": torch.ones(1)}, "ema": {"model": {"a": torch.ones(1)}}}, file)


def no_tensors(file, _):
    torch.save({"epoch": 3, "names": ["a"]}, file)


def sparse(file, _):
    torch.save({"a": torch.eye(3).to_sparse()}, file)


def objects(file, marker):
    np.savez(file, a=np.array([Payload(os.system, marker)], object))


def of_torch(file, _):
    torch.save({"a": torch.ones(1)}, file)


def nothing_in_it(file, _):
    np.savez(file)


def script(file, _):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)


def encoder(file, _):
    entries = IMAGE_ENCODERS["resnet34"].torch_entries()
    np.savez(file, **{entry.key: np.ones(entry.ndim * (1,), np.float32) for entry in entries})


@pytest.mark.parametrize(
    ("spoil", "suffix", "problem", "remedy"),
    [
        (cut, "pt", "not a readable state dict", "Copy or download it again"),
        (cut, "npz", "not a readable state dict", "Copy or download it again"),
        (empty, "pt", "not a readable state dict: its 0 bytes", "Copy or download it again"),
        (empty, "npz", "not a readable state dict: its 0 bytes", "Copy or download it again"),
        (prose, "pth", "holds more than tensors, or is damaged", "torch.save(model.state_dict(), FILE)"),
        (nothing, "pt", "no such file", "name a PyTorch checkpoint"),
        (
            payload(os.system),
            "pt",
            f"it refers to {os.system.__module__}.system",
            "torch.save(model.state_dict(), FILE)",
        ),
        (payload(exec), "pt", "it refers to exec", "torch.save(model.state_dict(), FILE)"),
        (old_payload, "pt", f"it refers to {os.system.__module__}.system", "torch.save(model.state_dict(), FILE)"),
        (objects, "npz", "not a readable state dict", "Object arrays cannot be loaded"),
        (of_torch, "npz", "is no array", "a file of torch.save is named .pt or .pth"),
        (nothing_in_it, "npz", "it is empty", "Copy or download it again"),
        (script, "pt", "TorchScript", "Copy or download it again"),
        (whole_model, "pt", "it refers to torch.nn.modules.linear.Linear", "torch.save(model.state_dict(), FILE)"),
        (two_models, "pt", "2 dicts of tensors, under 'model', 'ema.model'", "torch.save(model.state_dict(), FILE)"),
        (no_tensors, "pt", "0 dicts of tensors, where one is expected", "torch.save(model.state_dict(), FILE)"),
        (sparse, "pt", "sparse or quantised tensors", "save dense ones"),
        (encoder, "npz", "weights of the image encoder resnet34", "--config.model.image_encoder_weights=FILE"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_file_that_is_no_state_dict(spoil, suffix, problem, remedy, published, tmp_path, capsys):
    file, marker = tmp_path / f"a.{suffix}", tmp_path / "marker"
    save(published["ctrgcn"] if suffix == "npz" else tensors(published["ctrgcn"]), file)
    spoil(file, marker)
    message = fails(capsys, "import", file, tmp_path / "run")
    assert len(message.strip().splitlines()) == 1
    assert message.startswith(f"{file}: ")
    assert problem in message and remedy in message
    assert not marker.exists()
    assert set(tmp_path.iterdir()) <= {file}


def test_a_folder_in_use_is_left_alone(published, tmp_path, capsys):
    file = save(published["ctrgcn"], tmp_path / "a.npz")
    message = fails(capsys, "import", file, tmp_path)
    assert message.startswith(f"{tmp_path}: not an empty folder")
    assert "not an empty folder" in fails(capsys, "import", file, file)
    assert list(tmp_path.iterdir()) == [file]


@pytest.fixture(scope="module")
def imported(published, tmp_path_factory):
    """A workdir with an imported model, and its file. Not to be changed."""
    folder = tmp_path_factory.mktemp("imported")
    (folder / "run").mkdir()  # empty ones are welcome
    command("import", save(published["ctrgcn"], folder / "a.npz"), folder / "run")
    return folder / "run"


def test_an_existing_file_is_replaced_on_demand_alone(imported, published, tmp_path, capsys):
    file = tmp_path / "b.npz"
    file.write_text("mine")
    assert "exists; name another file, or add --overwrite" in fails(capsys, "export", file, imported)
    assert file.read_text() == "mine"
    command("export", file, imported, "--overwrite")
    assert_bit_for_bit(read(file), published["ctrgcn"])
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("file", "model", "message"),
    [
        ("b.bin", [], "the suffix '.bin' is not one of .pt, .pth, .npz"),
        ("b.npz", ["--model=mmcl"], "holds no alignment and no refinement module; leave --model out"),
        ("nowhere/b.npz", [], "No such file or directory"),
    ],
)
def test_what_cannot_be_exported(file, model, message, imported, tmp_path, capsys):
    assert message in fails(capsys, "export", tmp_path / file, imported, *model)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_workdir(tmp_path, capsys):
    assert "config.json: unreadable" in fails(capsys, "export", tmp_path / "b.npz", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model": {"backbone": "ctrgcn", "base_channels": 4}}))
    assert "no checkpoints; train first" in fails(capsys, "export", tmp_path / "b.npz", tmp_path)


@pytest.mark.parametrize("shape", [(3, CLASSES), (2, CLASSES, CLASSES)])
def test_other_refinement_than_the_released_one(shape, published, tmp_path, capsys):
    variables = torch_models.convert(published["mmcl"]).variables
    variables["params"]["refinement"]["matrices"] = np.ones(shape, np.float32)
    checkpoints.save_variables(tmp_path, variables)
    (tmp_path / "config.json").write_text(json.dumps({"model": {"backbone": "ctrgcn"}}))
    message = fails(capsys, "export", tmp_path / "b.npz", tmp_path, "--model=mmcl")
    assert f"its refinement matrices are {shape}; the released MMCL has two diagonal ones" in message


def test_evaluation_with_other_records_or_another_config_is_refused(imported, published, tiny_records, tmp_path):
    state_dict = random_state_dict("ctrgcn", num_classes=10)
    command("import", save(state_dict, tmp_path / "a.npz"), tmp_path / "run")
    with pytest.raises(checkpoints.CheckpointError, match="records with other classes") as caught:
        evaluate_workdir(runs.tiny_config(tiny_records), tmp_path / "run")
    assert "params/fc/bias: (10,) there, (12,) in the model; params/fc/kernel: (16, 10) there" in str(caught.value)
    wider = runs.tiny_config(tiny_records, model__base_channels=8)
    with pytest.raises(WorkdirError, match=r"model\.base_channels: 4 there, 8 now"):
        evaluate_workdir(wider, imported)


def test_training_does_not_go_on_in_an_imported_workdir(imported, tiny_records):
    with pytest.raises(WorkdirError, match=r"holds checkpoints but no config\.json; use another --workdir"):
        RunLog(imported, runs.tiny_config(tiny_records), "clips")


@pytest.mark.slow
def test_a_trained_model_goes_out_and_comes_in_with_the_same_scores(finished_run, tiny_records, compiled, tmp_path):
    file = tmp_path / "a.pt"
    command("export", file, finished_run)
    counters = {int(value) for key, value in read(file).items() if key.endswith("tracked")}
    assert counters == {runs.STEPS}
    command("import", file, tmp_path / "run")
    status, text = runs.run(runs.command(tiny_records, tmp_path / "run", mode="eval"), compiled, tmp_path / "log")
    assert status == 0, text
    actual, expected = runs.read_scores(tmp_path / "run"), runs.read_scores(finished_run)
    assert (actual.pop("step"), expected.pop("step")) == (0, runs.STEPS)
    runs.assert_same_arrays(actual, expected)

    command("export", tmp_path / "mmcl.npz", finished_run, "--model=mmcl")
    command("import", tmp_path / "mmcl.npz", tmp_path / "mmcl")
    before, after = (checkpoints.read_variables(workdir)[1] for workdir in (finished_run, tmp_path / "mmcl"))
    for kind, part in (("params", "alignment"), ("params", "refinement"), ("batch_stats", "backbone")):
        jax.tree.map(np.testing.assert_array_equal, after[kind][part], before[kind][part])
