"""Evaluation: exact for any batch size, and from only the skeleton."""

import shutil

import jax
import numpy as np
import pytest

from mmcl_jax import evaluate
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS, ImageEncoder
from mmcl_jax.runtime import sharding
from mmcl_jax.task import build_training_task
from tests.helpers import runs

pytestmark = pytest.mark.slow


@pytest.fixture
def skeletons_alone(tiny_records, tmp_path):
    """The tiny records without images and text."""
    folder = tmp_path / "records"
    shutil.copytree(tiny_records, folder)
    shutil.rmtree(folder / "images")
    shutil.rmtree(folder / "text")
    return folder


@pytest.fixture
def copied_run(finished_run, tmp_path):
    """A copy of the finished run without what training left beside the checkpoint, FAM and FRM included."""
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    for item in ("auxiliary", "training"):
        shutil.rmtree(workdir / "checkpoints" / str(runs.STEPS) / item)
    (workdir / "scores_test.npz").unlink()
    (workdir / "confusion_test.png").unlink()
    return workdir


def _refuse(*_arguments, **_options):
    raise AssertionError("evaluation built an image encoder")


def test_the_skeleton_alone_gives_the_scores_of_training(copied_run, skeletons_alone, finished_run, monkeypatch):
    for name in IMAGE_ENCODERS:
        monkeypatch.setitem(IMAGE_ENCODERS, name, ImageEncoder(_refuse, 96))
    expected = runs.read_scores(finished_run)
    evaluate.evaluate_workdir(runs.tiny_config(skeletons_alone, eval_batch_size=5), copied_run)
    scores = runs.read_scores(copied_run)
    assert scores.keys() == expected.keys()
    for name in ("names", "labels", "class_names", "step"):
        np.testing.assert_array_equal(scores[name], expected[name])
    np.testing.assert_allclose(scores["scores"], expected["scores"], rtol=1e-4, atol=1e-4)
    assert (copied_run / "confusion_test.png").exists()


def test_the_command_evaluates(copied_run, skeletons_alone, finished_run, compiled, tmp_path):
    command = runs.command(skeletons_alone, copied_run, mode="eval")
    status, text = runs.run(command, compiled, tmp_path / "log")
    assert status == 0, text
    assert f"step {runs.STEPS}" in text
    for what in ("scores", "confusion matrix", "checkpoint", "metrics"):
        assert f"{what}: {copied_run}" in text
    runs.assert_same_arrays(runs.read_scores(copied_run), runs.read_scores(finished_run))


def test_metrics_do_not_depend_on_the_batch_size(tiny_records, shallow, compilations):
    mesh = sharding.data_mesh()
    changes = {"data__validation_subjects": (2,)}
    variables = None
    seen = {}
    for batch_size in (7, 12):  # every size is a program to compile
        config = runs.tiny_config(tiny_records, eval_batch_size=batch_size, **changes)
        evaluator = evaluate.Evaluator(config, mesh)
        assert evaluator.parts == ("validation", "test")
        if variables is None:
            variables = jax.jit(evaluator.task.init)(jax.random.key(3))
        seen[batch_size] = {part: evaluator.evaluate(variables, part) for part in evaluator.parts}
    other, before = jax.tree.map(lambda leaf: leaf * 1.01, variables), compilations()
    changed = evaluator.evaluate(other, "test")
    assert compilations() == before  # for other weights neither
    assert np.abs(changed.scores - seen[12]["test"].scores).max() > 1e-3
    records = evaluator.task.records
    for part, evaluation in seen[12].items():
        rows = records.select("xsub", part, (2,))
        np.testing.assert_array_equal(evaluation.names, records.index["name"][rows])
        np.testing.assert_array_equal(evaluation.labels, records.index["label"][rows])
        assert evaluation.scores.shape == (12, 12)
        for other in seen.values():
            np.testing.assert_allclose(other[part].scores, evaluation.scores, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(other[part].metrics.loss, evaluation.metrics.loss, rtol=1e-5)
            assert other[part].metrics.clips == 12
            assert other[part].metrics.top1 == evaluation.metrics.top1
            np.testing.assert_array_equal(other[part].metrics.confusion, evaluation.metrics.confusion)
    assert set(seen[12]["test"].names).isdisjoint(seen[12]["validation"].names)


def test_training_rows_are_none_of_the_evaluated(tiny_records):
    config = runs.tiny_config(tiny_records, data__validation_subjects=(2,))
    task = build_training_task(config)
    subjects = task.skeleton.records.index["subject"]
    assert set(subjects[task.rows].tolist()) == {1}
