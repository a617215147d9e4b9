"""Evaluation: exact for any batch size, and from only the skeleton."""

import dataclasses
import errno
import pathlib
import shutil
import sys

import jax
import numpy as np
import pytest
from absl import logging

from mmcl_jax import evaluate
from mmcl_jax.data.records import Clip, Records, RecordsError, write_records
from mmcl_jax.metrics import classification_metrics
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS, ImageEncoder
from mmcl_jax.run_log import WorkdirError
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


def test_the_command_needs_only_the_workdir(copied_run, finished_run, compiled, tmp_path):
    command = [sys.executable, "-m", "mmcl_jax.main", "--mode=eval", f"--workdir={copied_run}"]
    status, text = runs.run(command, compiled, tmp_path / "log")
    assert status == 0, text
    assert f"step {runs.STEPS}" in text
    for what in ("scores", "confusion matrix", "checkpoint", "metrics"):
        assert f"{what}: {copied_run}" in text
    runs.assert_same_arrays(runs.read_scores(copied_run), runs.read_scores(finished_run))


def test_the_scores_of_other_records_are_written_beside(copied_run, finished_run, tiny_records, compiled, tmp_path):
    """Six of the classes, in another order, with other coordinates and the same names of clips."""
    own = shutil.copy(finished_run / "scores_test.npz", copied_run)
    trained = Records(tiny_records)
    names = trained.info.class_names[5::-1]
    info = dataclasses.replace(trained.info, class_names=names, image_source=None)
    rows = [row for row in range(len(trained)) if trained.index["label"][row] < 6]
    clips = [
        Clip(
            name=str(trained.index["name"][row]),
            label=names.index(trained.info.class_names[trained.index["label"][row]]),
            skeleton=trained.skeleton(row).transpose(1, 0, 2, 3) * 1.01,
            **{field: int(trained.index[field][row]) for field in ("subject", "camera", "setup", "replication")},
        )
        for row in rows
    ]
    write_records(tmp_path / "others", info, clips)
    before = pathlib.Path(own).read_bytes()
    command = [sys.executable, "-m", "mmcl_jax.main", "--mode=eval", f"--workdir={copied_run}"]
    status, text = runs.run([*command, f"--config.data.records={tmp_path / 'others'}"], compiled, tmp_path / "log")
    assert status == 0, text
    assert pathlib.Path(own).read_bytes() == before
    (beside,) = copied_run.glob("scores_test_on_others_*.npz")
    with np.load(beside, allow_pickle=False) as found:
        assert tuple(found["class_names"]) == trained.info.class_names
        expected = runs.read_scores(finished_run)
        there = np.isin(expected["names"], found["names"])
        np.testing.assert_array_equal(found["names"], expected["names"][there])
        np.testing.assert_array_equal(found["labels"], expected["labels"][there])


def test_metrics_do_not_depend_on_the_batch_size(tiny_records, shallow, compilations, caplog):
    logging.set_verbosity(logging.INFO)
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
    announced = [message for message in caplog.messages if message.startswith("compiling the evaluation; about half a")]
    assert len(announced) == len(seen)  # the second part, and other weights, compile nothing
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


def test_scores_that_are_not_finite_for_some_clips_name_these_clips(tiny_records):
    evaluator = evaluate.Evaluator(runs.tiny_config(tiny_records), sharding.data_mesh())
    rows, names = evaluator.rows, evaluator.task.records.index["name"]
    scores = np.zeros((len(rows), 12), np.float32)
    evaluator._check_clips(rows, scores)
    evaluator._check_clips(rows, np.full_like(scores, np.nan))  # the weights' fault: `classification_metrics` refuses
    scores[3, 2], scores[5] = np.inf, np.nan
    with pytest.raises(RecordsError, match="the scores of 2 of 12 clips are not finite") as caught:
        evaluator._check_clips(rows, scores)
    assert f"{names[rows[3]]}, {names[rows[5]]}, and prepare again" in str(caught.value)
    assert "learning_rate" not in str(caught.value)
    evaluator._check_clips(rows[:1], scores[3:4])


def _evaluation(labels) -> evaluate.Evaluation:
    scores = np.eye(4, dtype=np.float32)
    return evaluate.Evaluation(
        classification_metrics(scores, labels), np.array(list("abcd")), scores, labels, tuple("klmn")
    )


@pytest.mark.parametrize("error", [OSError(errno.EROFS, "Read-only file system"), PermissionError(13, "denied")])
def test_a_workdir_that_cannot_be_written_to_costs_no_result(tmp_path, monkeypatch, caplog, error):
    def refuse(*_):
        raise error

    parts = {"validation": _evaluation(np.zeros(4, int)), "test": _evaluation(np.arange(4))}
    monkeypatch.setattr(evaluate, "_evaluate", lambda *_: (7, parts, ""))
    monkeypatch.setattr(evaluate, "write_scores", refuse)
    with caplog.at_level("INFO"), pytest.raises(WorkdirError, match="cannot be written") as caught:
        evaluate.evaluate_workdir(runs.tiny_config("records"), tmp_path)
    assert str(tmp_path) in str(caught.value) and "make the workdir writable" in str(caught.value)
    assert "validation, 4 clips, skeleton only, step 7 (the last, not the best): top-1 25.00 %" in caplog.text
    assert "test, 4 clips, skeleton only, step 7 (the last, not the best): top-1 100.00 %" in caplog.text
