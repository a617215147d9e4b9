"""The command that imports and exports PyTorch checkpoints: whole, bit for bit, or not at all."""

import argparse
import json
import pathlib
import shlex

import jax
import numpy as np
import pytest
import torch

from mmcl_jax import checkpoints
from mmcl_jax.evaluate import evaluate_workdir
from mmcl_jax.pytorch import state_dicts, weight_files
from mmcl_jax.pytorch.names import hdgcn_entries
from mmcl_jax.pytorch.published import PUBLISHED, convert
from mmcl_jax.run_log import LOCK, RunLog, WorkdirError
from mmcl_jax.runtime.locks import exclusive
from tests.helpers import locks_and_scratch, runs
from tests.helpers.golden import filled_state_dict, load
from tests.helpers.torch_files import CLASSES, command, fails, random_state_dict, save, tensors


@pytest.fixture(scope="module")
def published():
    return {name: random_state_dict(name) for name in PUBLISHED}


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    return {key: value.numpy() for key, value in torch.load(path, weights_only=True).items()}


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
    assert f"{name}: 12 classes, 25 joints, 1 body, 3 channels a joint, width 4;" in said
    backbone = "ctrgcn" if name == "mmcl" else name
    assert f"--config.model.backbone={backbone} --config.model.base_channels=4 --workdir={workdir}" in said
    command("export", back, workdir, *(["--model", "mmcl"] if name == "mmcl" else []))
    assert_bit_for_bit(read(back), published[name])


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
    state_dict = state_dicts.resolve_aliases(state_dict, hdgcn_entries())
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


def with_best_accuracy(state_dict):
    """What training code stores beside the weights; Lightning stores its arguments."""
    return {
        "state_dict": tensors(state_dict),
        "best_acc": np.float64(0.9),
        "hyper_parameters": argparse.Namespace(lr=1),
    }


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
        (with_best_accuracy, "took the dict of tensors under 'state_dict'"),
        (with_optimiser, "took the dict of tensors under 'nested.state_dict'"),
    ],
    ids=["half", "data_parallel", "compiled_parallel", "lightning", "numpy_and_namespace", "nested"],
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
    arrays = weight_files.read_state_dict(save(content, tmp_path / "a.pt"), notes.append)
    assert_bit_for_bit(
        arrays,
        read(save({k: v.float() if v.is_floating_point() else v for k, v in content.items()}, tmp_path / "b.pt")),
    )
    (note,) = notes
    assert f"were {str(kind).removeprefix('torch.')}; converted to float32" in note


def test_a_folder_in_use_is_left_alone(published, tmp_path, capsys):
    file = save(published["ctrgcn"], tmp_path / "a.npz")
    message = fails(capsys, "import", file, tmp_path)
    assert message.startswith(f"{tmp_path}: not an empty folder")
    assert "not an empty folder" in fails(capsys, "import", file, file)
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_where_another_process_trains_or_imports_is_left_alone(published, tmp_path, capsys):
    file, workdir = save(published["ctrgcn"], tmp_path / "a.npz"), tmp_path / "run"
    with exclusive(workdir / LOCK, what="training", remedy="wait"):
        message = fails(capsys, "import", file, workdir)
        assert f"importing weights into {workdir}: another process is at work" in message
        assert [path.name for path in workdir.iterdir()] == [LOCK]
    locks_and_scratch.leave_behind(tmp_path / ".run.import-0123abcd", "workdir")  # of an import that was killed
    (tmp_path / "run").mkdir()
    locks_and_scratch.leave_lock(workdir / LOCK)
    command("import", file, workdir)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "run"]
    assert sorted(path.name for path in workdir.iterdir()) == ["checkpoints", "imported.json"]


def test_the_printed_command_can_be_pasted(published, tmp_path, capsys):
    command("import", save(published["ctrgcn"], tmp_path / "a.npz"), tmp_path / "my run")
    (printed,) = [line for line in capsys.readouterr().out.splitlines() if "--mode=eval" in line]
    assert shlex.split(printed)[-1] == f"--workdir={tmp_path / 'my run'}"


@pytest.fixture(scope="module")
def imported(published, tmp_path_factory):
    """A workdir with an imported model, and its file. Do not change it."""
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
        (".", [], "a folder; the file to write comes first: export FILE.pt WORKDIR"),
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
    variables = convert(published["mmcl"]).variables
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
    differing = (
        "params/fc/bias: (10,) in the checkpoint, (12,) in the model; params/fc/kernel: (16, 10) in the checkpoint"
    )
    assert differing in str(caught.value)
    wider = runs.tiny_config(tiny_records, model__base_channels=8)
    with pytest.raises(WorkdirError, match=r"model\.base_channels: 4 in the workdir, 8 now"):
        evaluate_workdir(wider, imported)


def test_training_does_not_go_on_in_an_imported_workdir(imported, tiny_records):
    with pytest.raises(WorkdirError, match=r"holds imported weights.* --config\.init_from=.* --workdir=NEW"):
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
