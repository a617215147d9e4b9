"""What scores show: confusions, accuracy per class, gains, and the hardest clips."""

import numpy as np

from experiments import scores, tables
from mmcl_jax.data import records
from mmcl_jax.metrics import classification_metrics, cross_entropies
from mmcl_jax.runtime.progress import progress_bar
from mmcl_jax.viewers import skeleton_player

_CLIP_BYTES = 400  # of a skeleton, without its coordinates
_VALUE_BYTES = 8 / 3  # of a coordinate: two bytes as base64; most need one


def confusion(file: scores.Scores, most: int = 30) -> dict:
    """The nonzero cells of the confusion matrix, [true, predicted, count], and the most frequent confusions."""
    metrics = classification_metrics(file.scores, file.labels)
    matrix = metrics.confusion
    cells = [[int(row), int(column), int(matrix[row, column])] for row, column in np.argwhere(matrix)]
    wrong = sorted((cell for cell in cells if cell[0] != cell[1]), key=lambda cell: -cell[2])
    summary = {name: float(getattr(metrics, name)) for name in ("clips", "loss", "top1", "top5", "mean_class")}
    return {"cells": cells, "pairs": wrong[:most], "counts": matrix.sum(axis=1).tolist(), **summary}


def gains(baseline: scores.Scores, other: scores.Scores) -> list[list]:
    """[class, clips, percent before, percent after, points] per class, sorted by decreasing gain."""
    classes, counts, (before, after), points = tables.class_gains(baseline, other)
    order = np.argsort(-points, kind="stable")
    return [[int(classes[i]), int(counts[i]), *(round(float(x[i]), 2) for x in (before, after, points))] for i in order]


def hardest(files: list[scores.Scores], number: int) -> list[dict]:
    """The clips with the greatest loss, averaged over runs, hardest first, each with every run's five top classes."""
    every = [cross_entropies(file.scores, file.labels) for file in files]
    order = np.argsort(-np.mean(every, axis=0), kind="stable")[:number]
    clips = []
    for place in order:
        top = []
        for file, loss in zip(files, every, strict=True):
            row = file.scores[place]
            shares = np.exp(row - row.max())
            shares /= shares.sum()
            best = np.argsort(-row, kind="stable")[:5]
            top.append({"loss": float(loss[place]), "top5": [[int(k), round(float(shares[k]), 4)] for k in best]})
        clips.append({"name": str(files[0].names[place]), "label": int(files[0].labels[place]), "runs": top})
    return clips


def add_skeletons(clips: list[dict], opened: records.Records, room: int) -> dict:
    """Adds to each clip its skeleton, or the reason why it is missing; returns the layout that the player needs.

    Args:
      clips: the result of `hardest`.
      opened: the records of the clips.
      room: size in bytes; skeletons lose frames to fit into it, as far as `skeleton_player` permits.
    """
    most_values = max(1, int((room / len(clips) - _CLIP_BYTES) / _VALUE_BYTES))
    rows = {name: row for row, name in enumerate(opened.index["name"].tolist())}
    skeletons = []
    for clip in progress_bar(clips, unit="clip", desc="hardest clips"):
        try:
            if clip["name"] not in rows:
                raise records.RecordsError(
                    f"{opened.root}: no clip of this name; set --records to the records of the run"
                )
            skeleton = opened.skeleton(rows[clip["name"]])
        except records.RecordsError as error:
            clip["problem"] = str(error)
            continue
        clip["skeleton"] = skeleton_player.encode(skeleton, opened.info, most_values)
        skeletons.append(skeleton)
    return skeleton_player.layout(opened.info, skeleton_player.upward(opened.info, skeletons))
