"""Classification metrics against values computed by hand."""

import numpy as np
import pytest

from mmcl_jax.metrics import classification_metrics


def test_known_logits():
    scores = np.log([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]])
    metrics = classification_metrics(scores, np.array([0, 1, 1, 2]))
    assert metrics.clips == 4
    assert metrics.top1 == 0.75
    assert metrics.top5 == 1.0  # three classes: every label is among the five highest
    np.testing.assert_allclose(metrics.loss, -np.log([0.7, 0.3, 0.8, 0.5]).mean(), rtol=1e-12)
    np.testing.assert_allclose(metrics.mean_class, (1 + 0.5 + 1) / 3, rtol=1e-12)
    np.testing.assert_array_equal(metrics.confusion, [[1, 0, 0], [1, 1, 0], [0, 0, 1]])


def test_top5_counts_the_five_highest():
    scores = np.arange(8.0)[None].repeat(8, axis=0)
    metrics = classification_metrics(scores, np.arange(8))
    assert metrics.top1 == 1 / 8
    assert metrics.top5 == 5 / 8


def test_ties_go_to_the_lower_class():
    metrics = classification_metrics(np.zeros((6, 6)), np.arange(6))
    assert metrics.top1 == 1 / 6
    assert metrics.top5 == 5 / 6
    np.testing.assert_array_equal(metrics.confusion.sum(axis=0), [6, 0, 0, 0, 0, 0])


def test_a_class_that_does_not_occur_is_no_part_of_the_class_mean():
    scores = np.eye(3)[[0, 0, 0, 1]]
    metrics = classification_metrics(scores, np.array([0, 0, 2, 2]))
    assert metrics.mean_class == 0.5


def test_large_scores_do_not_overflow():
    metrics = classification_metrics(np.array([[3e4, -3e4]], np.float32), np.array([1]))
    assert metrics.loss == 6e4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="not finite"):
        classification_metrics(np.array([[0.0, bad]]), np.array([0]))


def test_no_clips_are_refused():
    with pytest.raises(ValueError, match="empty"):
        classification_metrics(np.zeros((0, 3)), np.zeros(0, np.int64))
