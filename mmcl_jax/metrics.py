"""Classification metrics, exact sums over the scores of every clip."""

from typing import NamedTuple

import numpy as np

from mmcl_jax.runtime.errors import MMCLError


class NonFiniteScoresError(MMCLError, ValueError):
    """Scores are NaN or infinite: a comparison with NaN would count as correct."""


class Metrics(NamedTuple):
    """Classification metrics over one part of a dataset.

    Attributes:
      clips: their number.
      loss: mean cross entropy.
      top1: fraction whose label has the highest score.
      top5: fraction whose label is among the five highest.
      mean_class: mean of the classes' top-1 accuracies, over the classes that occur.
      confusion: int64 `[K, K]`, rows true labels, columns predictions.
    """

    clips: int
    loss: float
    top1: float
    top5: float
    mean_class: float
    confusion: np.ndarray


def cross_entropies(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross entropy of each clip, `[N]`, from logits `[N, K]` and int labels `[N]`, in float64."""
    scores = scores.astype(np.float64)
    highest = scores.max(axis=1)
    log_sum = highest + np.log(np.exp(scores - highest[:, None]).sum(axis=1))
    return log_sum - scores[np.arange(len(labels)), labels]


def classification_metrics(scores: np.ndarray, labels: np.ndarray) -> Metrics:
    """Computes the metrics of logits `[N, K]` and int labels `[N]`, in float64. Ties go to the lower class.

    Raises:
      ValueError: no clips.
      NonFiniteScoresError: scores that are not finite.
    """
    if not len(scores):
        raise ValueError(f"scores of shape {scores.shape} are empty")
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(bad):
        raise NonFiniteScoresError(f"the scores of {len(bad)} of {len(scores)} clips are not finite")
    scores = scores.astype(np.float64)
    clips, classes = scores.shape
    rank = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)[np.arange(clips), labels]
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, scores.argmax(axis=1)), 1)
    occurring = confusion.sum(axis=1) > 0
    per_class = np.diag(confusion)[occurring] / confusion.sum(axis=1)[occurring]
    return Metrics(
        clips=clips,
        loss=float(cross_entropies(scores, labels).mean()),
        top1=float((rank < 1).mean()),
        top5=float((rank < 5).mean()),
        mean_class=float(per_class.mean()),
        confusion=confusion,
    )
