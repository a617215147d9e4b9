"""Training as a user runs it: end to end, stopped and resumed, on several devices, and when it goes wrong."""

import functools
import json
import multiprocessing
import os
import shutil
import signal
import sys
import types

import jax
import numpy as np
import pytest

from mmcl_jax import train
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS, ImageEncoder
from mmcl_jax.runtime.backend import HASTY
from mmcl_jax.runtime.locks import exclusive
from tests.helpers import interrupted, runs

pytestmark = pytest.mark.slow


def test_end_to_end(finished_run):
    rows = runs.read_rows(finished_run)
    assert [row["step"] for row in rows] == [str(runs.STEPS_PER_EPOCH), str(runs.STEPS)]
    first, last = rows
    for term in ("loss", "classification", "contrastive", "refinement"):
        assert 0 < float(last[f"train_{term}"]) < float(first[f"train_{term}"]), term
    total = sum(
        weight * float(last[f"train_{term}"])
        for term, weight in (("classification", 1.0), ("contrastive", 0.1), ("refinement", 0.2))
    )
    np.testing.assert_allclose(total, float(last["train_loss"]), rtol=1e-4)
    assert runs.saved_steps(finished_run) == [runs.STEPS_PER_EPOCH, runs.STEPS]
    for name in ("config.json", "version.json", "confusion_test.png", "scores_test.npz"):
        assert (finished_run / name).stat().st_size > 0, name
    assert list((finished_run / "tensorboard").glob("events*"))
    assert not list(finished_run.rglob("*.partial*"))
    assert not (finished_run / train.LOCK).exists()
    assert json.loads((finished_run / "config.json").read_text())["batch_size"] == 8
    scores = runs.read_scores(finished_run)
    assert scores["scores"].shape == (12, 12)
    top1 = (scores["scores"].argmax(axis=1) == scores["labels"]).mean()
    np.testing.assert_allclose(float(last["test_top1"]), top1, rtol=1e-5)


def test_a_second_training_in_a_workdir_is_refused_at_start(tiny_records, compiled, tmp_path):
    workdir = tmp_path / "run"
    with exclusive(workdir / train.LOCK, what="training", remedy="wait"):
        holder = (workdir / train.LOCK).read_text()
        status, text = runs.run(runs.command(tiny_records, workdir), compiled, tmp_path / "log")
        assert status == 1, text
        assert "Traceback" not in text
        for part in (str(workdir / train.LOCK), f"process {os.getpid()} of", "use another --workdir"):
            assert part in text
        assert [path.name for path in workdir.iterdir()] == [train.LOCK]
        assert (workdir / train.LOCK).read_text() == holder


def test_a_run_killed_and_stopped_on_the_way_ends_as_one_left_alone(finished_run, tiny_records, compiled, tmp_path):
    workdir, log = tmp_path / "run", tmp_path / "log"
    command = functools.partial(runs.command, tiny_records, workdir, checkpoint_every_steps=3)

    # After step 7, when the checkpoint of step 6 may not be complete yet.
    status, text = runs.run(interrupted.training(command(data__workers=1), "SIGKILL", 7), compiled, log)
    assert status == -signal.SIGKILL, text
    reached = runs.saved_steps(workdir)[-1]
    assert reached in (3, 6), text
    assert (workdir / train.LOCK).exists()

    status, text = runs.run(interrupted.training(command(), "SIGTERM", 10), compiled, log)
    assert status == 0, text
    assert f"resuming at step {reached} of {runs.STEPS}" in text
    assert "has ended; it is taken over" in text
    assert "stopped by signal; saved at step 10" in text
    assert runs.saved_steps(workdir)[-1] == 10

    status, text = runs.run(command(), compiled, log)
    assert status == 0, text
    assert f"resuming at step 10 of {runs.STEPS}" in text
    runs.assert_same_arrays(runs.read_checkpoint(workdir, runs.STEPS), runs.read_checkpoint(finished_run, runs.STEPS))
    runs.assert_same_arrays(runs.read_scores(workdir), runs.read_scores(finished_run))
    assert runs.read_rows(workdir) == runs.read_rows(finished_run)


def test_one_device_and_eight_take_the_same_steps(tiny_records, compiled, tmp_path):
    # CTR-GCN's recipe multiplies a rounding error by 10 to 100 a step, on one device as on eight: two free runs diverge
    # after a few steps on any devices. So each of 20 steps is compared from the same state.
    command = [sys.executable, "-m", "tests.helpers.device_losses", str(tiny_records), "20"]
    status, text = runs.run(command, compiled, tmp_path / "log", devices=8, hasty=True)
    assert status == 0, text
    results = {name: np.array(values) for name, values in json.loads(text.splitlines()[-1]).items()}
    difference = np.abs(results["eight"] / results["one"] - 1)
    print("loss", np.array2string(difference, precision=1), "update", np.array2string(results["update error"]))
    assert len(difference) == 20 and len(set(results["one"])) == 20
    assert difference[0] <= 1e-6, difference
    assert difference.max() <= 1e-4, difference
    assert np.median(results["update error"]) <= 1e-4, results["update error"]


@pytest.fixture
def hasty_with_mean_colours(monkeypatch):
    monkeypatch.setitem(IMAGE_ENCODERS, "mean_colour", ImageEncoder(runs.MeanColour, image_size=8))
    monkeypatch.setattr(train.jax, "jit", functools.partial(train.jax.jit, compiler_options=HASTY))


@pytest.fixture
def programs(monkeypatch):
    """Names of the programs that were compiled, and how many there were at the end of each step's log."""
    compiled, counts = [], []

    def note(event: str, _seconds: float, fun_name: str = "", **_others) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(fun_name)

    logged = train.RunLog.steps
    monkeypatch.setattr(train.RunLog, "steps", lambda *given: (counts.append(len(compiled)), logged(*given))[1])
    jax.monitoring.register_event_duration_secs_listener(note)
    yield compiled, counts
    jax.monitoring.unregister_event_duration_listener(note)


def test_nothing_is_compiled_again_after_the_first_step_and_the_first_evaluation(
    tiny_records, tmp_path, shallow, hasty_with_mean_colours, programs
):
    changes = {"log_every_steps": 1, "checkpoint_every_steps": 5}
    config = runs.tiny_config(tiny_records, model__image_encoder="mean_colour", **changes)
    train.train(config, tmp_path / "run")
    compiled, counts = programs
    assert len(counts) == runs.STEPS
    assert sum("train_step" in name for name in compiled) == 1, compiled
    assert sum("eval_step" in name for name in compiled) == 1, compiled
    assert counts[4] == counts[0] > 0, compiled[counts[0] :]  # the five steps to the first checkpoint
    assert len(compiled) == counts[12], compiled[counts[12] :]  # from the second epoch to the end


@pytest.mark.long
def test_resident_and_several_steps_a_dispatch_go_on_streaming_after_a_stop(
    tiny_records, tmp_path, shallow, hasty_with_mean_colours, programs, monkeypatch
):
    changes = {"log_every_steps": 5, "checkpoint_every_steps": 5, "steps_per_dispatch": 3, "data__storage": "float16"}
    config = functools.partial(runs.tiny_config, tiny_records, model__image_encoder="mean_colour", **changes)
    train.train(config(data__device_resident=True), tmp_path)
    compiled, counts = programs
    assert len(counts) == 7  # after steps 3, 5, 10, 12, 15, 20, 24
    assert sum("train_step" in name for name in compiled) == 2, compiled  # three steps, and one
    assert sum("eval_step" in name for name in compiled) == 1, compiled
    assert len(compiled) == counts[4], compiled[counts[4] :]  # from the second epoch to the end
    saved, scores, rows = (
        runs.read_checkpoint(tmp_path, runs.STEPS),
        runs.read_scores(tmp_path),
        runs.read_rows(tmp_path),
    )
    assert runs.saved_steps(tmp_path) == [20, runs.STEPS]

    shutil.rmtree(tmp_path / "checkpoints" / str(runs.STEPS))
    logged = train.RunLog.steps
    with monkeypatch.context() as patch:
        patch.setattr(train.RunLog, "steps", lambda *given: (signal.raise_signal(signal.SIGTERM), logged(*given))[1])
        with pytest.raises(SystemExit) as left:
            train.train(config(data__workers=2), tmp_path)
    assert left.value.code == 0
    assert not multiprocessing.active_children()
    assert runs.saved_steps(tmp_path) == [20, 23]  # at the end of the dispatch
    train.train(config(), tmp_path)
    runs.assert_same_arrays(runs.read_checkpoint(tmp_path, runs.STEPS), saved)
    runs.assert_same_arrays(runs.read_scores(tmp_path), scores)
    assert runs.read_rows(tmp_path)[0] == rows[0]
    for name in ("train_loss", "test_loss", "test_top1"):
        assert runs.read_rows(tmp_path)[1][name] == rows[1][name]


@pytest.mark.long
def test_bfloat16_trains_resumes_and_saves_float32(tiny_records, tmp_path, shallow, monkeypatch):
    monkeypatch.setattr(train.jax, "jit", functools.partial(train.jax.jit, compiler_options=HASTY))
    changes = {"compute_dtype": "bfloat16", "loss__contrastive_weight": 0.0, "model__backbone": "ctrsgcn"}
    config = runs.tiny_config(tiny_records, **changes)
    train.train(config, tmp_path)
    first, last = (float(row["train_loss"]) for row in runs.read_rows(tmp_path))
    assert 0 < last < first
    saved = runs.read_checkpoint(tmp_path, runs.STEPS)
    assert {leaf.dtype.name for leaf in saved.values()} == {"float32", "int32"}
    scores = runs.read_scores(tmp_path)
    assert np.isfinite(scores["scores"]).all()

    shutil.rmtree(tmp_path / "checkpoints" / str(runs.STEPS))
    train.train(config, tmp_path)
    runs.assert_same_arrays(runs.read_checkpoint(tmp_path, runs.STEPS), saved)
    runs.assert_same_arrays(runs.read_scores(tmp_path), scores)


def test_frozen_encoder_and_a_loss_that_turns_infinite(tiny_records, compiled, tmp_path):
    # FAM on precomputed features, the other variants of both modules; the rate explodes after the first epoch.
    workdir, log = tmp_path / "run", tmp_path / "log"
    command = runs.command(
        tiny_records,
        workdir,
        program="tests.helpers.shallow",
        model__image_encoder_frozen=True,
        model__refinement_matrices="full",
        loss__contrastive="paper",
        drop_epochs="(1,)",
        drop_factor=1e30,
    )
    status, text = runs.run(command, compiled, log, hasty=True)
    assert status == 1, text
    assert "Traceback" not in text
    assert f"The last good checkpoint, step {runs.STEPS_PER_EPOCH}, is kept" in text
    assert "of step 13 is not finite" in text or "not finite after step 12" in text
    assert runs.saved_steps(workdir) == [runs.STEPS_PER_EPOCH]
    saved = runs.read_checkpoint(workdir, runs.STEPS_PER_EPOCH)
    assert all(np.isfinite(leaf).all() for leaf in saved.values())
    assert not any("image_encoder" in path for path in saved)
    (row,) = runs.read_rows(workdir)
    assert 0 < float(row["train_contrastive"]) < np.inf
    assert 0 < float(row["train_refinement"]) < np.inf

    features = workdir / "image_features.npz"
    written = os.stat(features).st_mtime_ns
    with np.load(features, allow_pickle=False) as stored:
        assert stored["features"].shape == (24, 256)
        assert np.isfinite(stored["features"]).all()
        assert stored["features"].std(axis=0).max() > 0
    status, text = runs.run(command, compiled, log, hasty=True)  # resumes, fails again, computes no features
    assert status == 1, text
    assert f"resuming at step {runs.STEPS_PER_EPOCH}" in text
    assert os.stat(features).st_mtime_ns == written
    assert "image features" not in text
    assert runs.saved_steps(workdir) == [runs.STEPS_PER_EPOCH]


@pytest.mark.parametrize("step", [0, 1])
def test_a_loss_that_is_not_finite_before_training_is_no_matter_of_the_learning_rate(tmp_path, step):
    manager = types.SimpleNamespace(
        wait_until_finished=lambda: None, check_for_errors=lambda: None, latest_step=lambda: None, directory=tmp_path
    )
    records = types.SimpleNamespace(root=tmp_path / "records")
    task = types.SimpleNamespace(skeleton=types.SimpleNamespace(records=records))
    run = types.SimpleNamespace(manager=manager, task=task)
    state = types.SimpleNamespace(totals={"loss": np.nan, "first_bad_step": step})
    with pytest.raises(train.NonFiniteLossError, match=f"the loss of step {step} is not finite") as caught:
        train._check_loss(run, state)
    assert ("learning_rate" in str(caught.value)) == bool(step)
    assert (f"the fault is in the clips of {records.root}" in str(caught.value)) == (not step)
