"""Reads the folders of runs; a run that is not finished may lack some of the files."""

import dataclasses
import math
import pathlib

from experiments import scores
from mmcl_jax.run_log import EARLY_STOP, WorkdirError, read_workdir_json
from mmcl_jax.runtime.errors import MMCLError
from mmcl_jax.runtime.files import read_text
from mmcl_jax.runtime.tables import TableError, parse_table

CURVES = ("train_loss", "test_loss", "train_top1", "test_top1", "learning_rate")


class ReportError(MMCLError, ValueError):
    """A run that cannot be reported, or runs that do not fit together. Names the file and the remedy."""


@dataclasses.dataclass
class Run:
    """A run as its folder describes it.

    Attributes:
      workdir: the folder.
      name: a short name that distinguishes it from the other runs.
      config: contents of `config.json`.
      starts: the starts in `version.json`.
      rows: the rows of `metrics.csv`; None for a missing or non-finite number.
      scores: the test scores; None: not evaluated yet.
      missing: what is missing, in words.
    """

    workdir: pathlib.Path
    name: str
    config: dict
    starts: list[dict]
    rows: list[dict[str, float | None]]
    scores: scores.Scores | None
    missing: list[str]

    def part(self, name: str) -> dict:
        """A part of the config; empty where the config has none."""
        found = self.config.get(name)
        return found if isinstance(found, dict) else {}


def read_runs(workdirs: list[pathlib.Path]) -> list[Run]:
    """Reads runs; all scores have the same clip order. Raises: ReportError, ScoresError, WorkdirError."""
    resolved = [workdir.resolve() for workdir in workdirs]
    if len(set(resolved)) < len(resolved):
        raise ReportError("a run is named twice; name each run once")
    runs = [_read(workdir, name) for workdir, name in zip(workdirs, _names(resolved), strict=True)]
    scored = [run for run in runs if run.scores is not None]
    together = scores.read_together([run.workdir for run in scored]) if scored else []
    for run, file in zip(scored, together, strict=True):
        run.scores = file
    return runs


def _names(paths: list[pathlib.Path]) -> list[str]:
    """The shortest ends of the paths that distinguish them."""
    names = [path.name for path in paths]
    for length in range(2, max(len(path.parts) for path in paths) + 1):
        names = [
            "/".join(path.parts[-length:]) if names.count(name) > 1 else name
            for name, path in zip(names, paths, strict=True)
        ]
    return names


def _read(workdir: pathlib.Path, name: str) -> Run:
    path = workdir / "config.json"
    if not path.is_file():
        raise ReportError(_no_run(workdir))
    config = read_workdir_json(path)
    if not isinstance(config, dict):
        raise WorkdirError(f"{path}: does not hold a config; restore it or use another workdir")
    missing = []
    starts, rows, cut, file = [], [], False, None
    version = workdir / "version.json"
    if version.is_file():
        stored = read_workdir_json(version)
        starts = stored.get("starts") if isinstance(stored, dict) else None
        if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
            raise WorkdirError(f"{version}: lists no starts; restore or remove it")
    else:
        missing.append("version.json: commit and dates are unknown")
    if (workdir / "metrics.csv").is_file():
        rows, cut = _read_rows(workdir / "metrics.csv")
        if cut:
            missing.append(
                "metrics.csv: the last line is incomplete and was dropped; restore the file, or resume the training"
            )
    if not rows:
        missing.append("metrics.csv: no epoch has been logged yet, so there are no curves")
    if (workdir / "scores_test.npz").is_file():
        file = scores.read_scores(workdir)
    else:
        missing.append(
            "scores_test.npz: not evaluated yet, so there is no confusion matrix, no accuracy per class and no hardest "
            "clips; let the training finish, or run --mode=eval"
        )
    epochs = config.get("num_epochs")
    if rows and isinstance(epochs, int) and rows[-1]["epoch"] < epochs and not (workdir / EARLY_STOP).exists():
        missing.append(f"metrics.csv: {rows[-1]['epoch']:.0f} of {epochs} epochs; the training is not finished")
    step = rows[-1].get("step") if rows else None
    if file is not None and step is not None and not cut and file.step not in (None, -1, step):
        missing.append(
            f"scores_test.npz: scores of step {file.step}, but the last epoch in metrics.csv ended at step {step:.0f}; "
            "run --mode=eval to score the newest checkpoint"
        )
    return Run(workdir, name, config, starts, rows, file, missing)


def _no_run(workdir: pathlib.Path) -> str:
    """Why a folder is not the folder of a run, with the runs in it if there are any."""
    remedy = "name the --workdir of a training run"
    if not workdir.exists():
        return f"{workdir}: no such folder; {remedy}"
    if not workdir.is_dir():
        return f"{workdir}: not a folder; {remedy}"
    inner = sorted(str(path.parent) for path in workdir.glob("*/config.json"))
    if inner:
        remedy = f"name one or more of the runs in it: {' '.join(inner[:8])}{' ...' if len(inner) > 8 else ''}"
    return f"{workdir / 'config.json'}: no such file, so this is not the folder of a run; {remedy}"


def _read_rows(path: pathlib.Path) -> tuple[list[dict[str, float | None]], bool]:
    """Reads the rows, None for missing and non-finite numbers. Also returns if an incomplete last line was dropped.

    A line without an end was cut off, and its last number may be incomplete.
    """
    try:
        text = read_text(path)
        whole, end, rest = text.rpartition("\n")
        table = parse_table(whole + end, path, (), None)
        rows = [{key: _number(value) for key, value in cells.items()} for _, cells in table]
    except TableError as error:
        raise ReportError(f"{error}; restore it, or resume the training") from error
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: damaged ({str(error)[:100]}); restore it, or resume the training") from error
    if any(row.get("epoch") is None for row in rows):
        raise ReportError(f"{path}: a row has no epoch; restore it, or resume the training")
    return rows, bool(rest)


def _number(text: str | None) -> float | None:
    value = float(text) if text else math.nan
    return value if math.isfinite(value) else None
