"""Pictures of results."""

import pathlib

import numpy as np

from mmcl_jax.runtime.words import counted


def confusion_matrix(confusion: np.ndarray, class_names: tuple[str, ...], path: pathlib.Path) -> None:
    """Draws a confusion matrix (`[K, K]` counts, rows are true classes) as a PNG; cells show the share of their row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    classes = len(class_names)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = min(4 + 0.35 * classes, 24)
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    font = max(3, min(9, 300 // classes))
    axes.set_xticks(range(classes), class_names, rotation=90, fontsize=font)
    axes.set_yticks(range(classes), class_names, fontsize=font)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    clips = int(confusion.sum())
    axes.set_title(f"top-1 {100 * np.trace(confusion) / max(clips, 1):.2f} % of {counted(clips, 'clip')}")
    if classes <= 40:
        for row, column in np.argwhere(confusion):
            color = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(confusion[row, column]), ha="center", va="center", fontsize=font, color=color)
    figure.savefig(path, dpi=120)
