"""Runs that go on: prolonged, stopped early, their best epoch, and as the start of another run."""

import functools
import json

import jax
import numpy as np
import pytest

from mmcl_jax import best, bundle, checkpoints, run_state, steps, train
from mmcl_jax.description import read_description
from mmcl_jax.pretrained import read_source, start_from
from mmcl_jax.run_log import WorkdirError
from mmcl_jax.runtime.backend import HASTY
from mmcl_jax.runtime.errors import ConfigError, MMCLError
from tests.helpers import documents, runs

pytestmark = pytest.mark.slow
# One clip of each of 12 classes trains, one validates, in 6 steps an epoch.
SKELETON_ONLY = {"loss__contrastive_weight": 0.0, "loss__refinement_weight": 0.0, "data__validation_subjects": (2,)}


@pytest.fixture
def config(tiny_records, monkeypatch):
    """A function of changes that returns a config; programs are not optimized."""
    documents.add_backbone(monkeypatch)
    monkeypatch.setattr(train.jax, "jit", functools.partial(jax.jit, compiler_options=HASTY))
    return functools.partial(runs.tiny_config, tiny_records, model__backbone="tiny_gcn", **SKELETON_ONLY)


def backbone(workdir, step, item="skeleton") -> dict[str, np.ndarray]:
    return {name: leaf for name, leaf in runs.read_checkpoint(workdir, step).items() if name.startswith(item)}


def test_two_epochs_and_one_more_are_three(config, tmp_path, caplog):
    """With everything that a state can hold, an average, the best epoch, AdamW's moments; bit for bit."""
    switches = {"ema_decay": 0.9, "keep_best": True, "optimizer": "adamw", "learning_rate": 0.02, "gradient_clip": 1.0}
    switches |= {"loss__class_weights": "balanced", "data__flip": 0.5}
    train.train(config(num_epochs=3, **switches), tmp_path / "at_once")
    train.train(config(num_epochs=2, **switches), tmp_path / "longer")
    with caplog.at_level("INFO", logger="absl"):
        train.train(config(num_epochs=3, **switches), tmp_path / "longer")
    assert "num_epochs was 2, is 3; epochs done: 2" in caplog.text
    assert "the result is that of 3 epochs at once" in caplog.text
    expected = runs.read_checkpoint(tmp_path / "at_once", 18)
    runs.assert_same_arrays(runs.read_checkpoint(tmp_path / "longer", 18), expected)
    assert runs.read_rows(tmp_path / "longer") == runs.read_rows(tmp_path / "at_once")

    # The item that evaluation reads is the average; the weights that go on training are beside it.
    own = {name for name in expected if name.startswith("training['own']")}
    assert {name.replace("training['own']", "skeleton") for name in own} == set(backbone(tmp_path / "longer", 18))
    assert any((expected[name] != expected[name.replace("training['own']", "skeleton")]).any() for name in own)

    # The best epoch by validation, which is evaluated like a run.
    top1 = [float(row["validation_top1"]) for row in runs.read_rows(tmp_path / "longer")]
    epoch = int(np.argmax(top1)) + 1
    assert runs.saved_steps(tmp_path / "longer" / "best") == [6 * epoch]
    assert int(expected["training['best']['epoch']"]) == epoch
    scores, row = runs.read_scores(tmp_path / "longer" / "best"), runs.read_rows(tmp_path / "longer")[epoch - 1]
    assert (scores["scores"].argmax(axis=1) == scores["labels"]).mean() == pytest.approx(
        float(row["test_top1"]), rel=1e-5
    )
    assert json.loads((tmp_path / "longer" / "best" / "config.json").read_text())["keep_best"]
    with pytest.raises(WorkdirError, match="3 epochs are trained or begun, num_epochs is 2; give it 3 or more"):
        train.train(config(num_epochs=2, **switches), tmp_path / "longer")


def test_a_run_without_a_better_epoch_stops_early_and_has_ended(config, tmp_path, caplog):
    changes = {"keep_best": True, "learning_rate": 0.0, "momentum": 0.0, "num_epochs": 5, "data__rotation": 0.0}
    # The weights never change, so only the running statistics do: after the first epoch nothing is better for long.
    with caplog.at_level("INFO", logger="absl"):
        train.train(config(early_stopping_epochs=1, **changes), tmp_path)
    rows = runs.read_rows(tmp_path)
    top1 = [float(row["validation_top1"]) for row in rows]
    assert len(rows) < 5 and top1[-1] <= max(top1[:-1])
    assert f"stopped early after epoch {len(rows)}: the best by validation is epoch {len(rows) - 1}" in caplog.text
    stop = json.loads((tmp_path / "early_stop.json").read_text())
    assert (stop["epoch"], stop["best_epoch"]) == (len(rows), len(rows) - 1)
    train.train(config(early_stopping_epochs=1, **changes), tmp_path)
    assert runs.read_rows(tmp_path) == rows
    (still, patient) = (best.is_exhausted({"top1": 0.5, "epoch": len(rows) - 1}, len(rows), n) for n in (1, 2))
    assert still and not patient


def test_a_run_starts_from_another_ones_weights(config, tmp_path):
    source = tmp_path / "source"
    train.train(config(num_epochs=1), source)
    trained = backbone(source, 6)

    # What is not there or does not fit leaves the workdir to the corrected command.
    images = {"loss__contrastive_weight": 0.1, "model__image_encoder": "resnet34"}
    for wrong, message in (
        ({"init_from": str(tmp_path / "sorce")}, "sorce: no such folder"),
        ({"init_from": str(source), "model__base_channels": 8}, r"set --config\.model\.base_channels=4"),
        ({"model__image_encoder_weights": str(tmp_path / "resnett.pth"), **images}, r"resnett\.pth"),
    ):
        with pytest.raises((MMCLError, OSError), match=message):
            train.train(config(**wrong), tmp_path / "probe")

    probe = config(num_epochs=1, init_from=str(source), freeze="backbone", seed=3, weight_decay=0.01)
    train.train(probe, tmp_path / "probe")
    probed = backbone(tmp_path / "probe", 6)
    changed = {name for name in trained if trained[name].tobytes() != probed[name].tobytes()}
    assert changed == {"skeleton['params']['fc']['bias']", "skeleton['params']['fc']['kernel']"}
    report = json.loads((tmp_path / "probe" / "initial_weights.json").read_text())
    assert (report["source"], report["step"], len(report["taken"])) == (str(source), 6, len(trained))
    assert not report["new"] and not report["mapped"]

    task = train.build_training_task(config(init_from=str(source), seed=3))
    other = train.build_training_task(config(init_from=str(source), model__base_channels=8))
    with pytest.raises(ConfigError, match=r"4 in the source, 8 in this run; set --config\.model\.base_channels=4"):
        start_from(source, other, {})

    # A bundle of it is the same source.
    described, (step, variables) = read_description(source), checkpoints.read_variables(source)
    bundle.write_bundle(tmp_path / "bundle", described, variables, bundle.Provenance(step=step))
    packed = read_source(tmp_path / "bundle")
    assert (packed.step, packed.bodies, packed.class_names) == (6, described.bodies, described.class_names)
    assert packed.layout == described.info.skeleton_layout
    assert jax.tree.all(jax.tree.map(np.array_equal, packed.variables, variables))

    # Records that cannot be read any more: joints and classes are taken to be the same.
    (source / "model.json").unlink()
    stored = json.loads((source / "config.json").read_text())
    stored["data"]["records"] = str(tmp_path / "gone")
    (source / "config.json").write_text(json.dumps(stored))
    state = jax.eval_shape(functools.partial(steps.random_state, task.recipe, 0, task.input_shapes()))
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), run_state.state_variables(state))
    variables, report = start_from(source, task, blank)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(variables["params"]["backbone"]["fc"]))
    assert report.notes[0].startswith(f"the joints and classes of {source} are unknown: ")
    assert [note.split(";")[0] for note in report.notes[1:]] == [
        "the source does not name its joints",
        "the source does not name its 12 classes",
    ]


def test_a_new_cosine_is_said_to_be_another_schedule(config):
    task = train.build_training_task(config(schedule="cosine", num_epochs=9))
    text = train.describe_change(task, 6 * task.steps_per_epoch, 6)
    assert "The cosine ends after 9 epochs now, so the learning rate is 0.0309 where it would have been 0" in text
    assert "the result is not that of 9 epochs at once" in text
