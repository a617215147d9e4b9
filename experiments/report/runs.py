"""What a run's folder says of it, whatever is there of a run that is not finished."""

import csv
import dataclasses
import math
import pathlib

from experiments import scores
from mmcl_jax.run_log import WorkdirError, read_workdir_json

CURVES = ("train_loss", "test_loss", "train_top1", "test_top1", "learning_rate")


class ReportError(ValueError):
    """A run that cannot be reported, or runs that do not fit together. Names the file and the remedy."""


@dataclasses.dataclass
class Run:
    """A run: its folder, `config.json`, starts of `version.json`, rows of `metrics.csv`, scores, what is missing."""

    workdir: pathlib.Path
    name: str
    config: dict
    starts: list[dict]
    rows: list[dict[str, float | None]]
    scores: scores.Scores | None
    missing: list[str]


def read_runs(workdirs: list[pathlib.Path]) -> list[Run]:
    """Reads runs; those with scores have them in one order. Raises: ReportError, ScoresError, WorkdirError."""
    resolved = [workdir.resolve() for workdir in workdirs]
    if len(set(resolved)) < len(resolved):
        raise ReportError("a run is named twice; name each once")
    names = [path.name for path in resolved]
    names = [
        name if names.count(name) == 1 else f"{path.parent.name}/{name}"
        for name, path in zip(names, resolved, strict=True)
    ]
    runs = [_read(workdir, name) for workdir, name in zip(workdirs, names, strict=True)]
    scored = [run for run in runs if run.scores is not None]
    together = scores.read_together([run.workdir for run in scored]) if scored else []
    for run, file in zip(scored, together, strict=True):
        run.scores = file
    return runs


def _read(workdir: pathlib.Path, name: str) -> Run:
    path = workdir / "config.json"
    if not path.is_file():
        raise ReportError(f"{path}: no such file, so this is no run's folder; name the --workdir of a training")
    config = read_workdir_json(path)
    if not isinstance(config, dict):
        raise WorkdirError(f"{path}: holds no config; restore it or use another workdir")
    missing = []
    starts, rows, file = [], [], None
    version = workdir / "version.json"
    if version.is_file():
        stored = read_workdir_json(version)
        starts = stored.get("starts") if isinstance(stored, dict) else None
        if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
            raise WorkdirError(f"{version}: lists no starts; restore or remove it")
    else:
        missing.append("version.json: commit and dates are unknown")
    if (workdir / "metrics.csv").is_file():
        rows = _read_rows(workdir / "metrics.csv")
    if not rows:
        missing.append("metrics.csv: no epoch is logged yet, so there are no curves")
    if (workdir / "scores_test.npz").is_file():
        file = scores.read_scores(workdir)
    else:
        missing.append(
            "scores_test.npz: not evaluated yet, so there is no confusion matrix, no accuracy by class and no hardest "
            "clip; let the training end, or run --mode=evaluate"
        )
    epochs = config.get("num_epochs")
    if rows and isinstance(epochs, int) and rows[-1]["epoch"] < epochs:
        missing.append(f"metrics.csv: {rows[-1]['epoch']:.0f} of {epochs} epochs; the training is not finished")
    return Run(workdir, name, config, starts, rows, file, missing)


def _read_rows(path: pathlib.Path) -> list[dict[str, float | None]]:
    """Rows of numbers; None where there is none, or one that is not finite."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(stream)]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise ReportError(f"{path}: damaged ({error}); restore it, or resume the training") from error
    if any(row.get("epoch") is None for row in rows):
        raise ReportError(f"{path}: a row has no epoch; restore it, or resume the training")
    return rows


def _number(text: str | None) -> float | None:
    value = float(text) if text else math.nan
    return value if math.isfinite(value) else None
