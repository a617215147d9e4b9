"""Collects the page's data as JSON, and builds the page."""

import json
import pathlib

from experiments.report import content
from experiments.report.matrices import matrices
from experiments.report.runs import CURVES, Run
from mmcl_jax import checkpoints
from mmcl_jax.data import records
from mmcl_jax.viewers import html_page, skeleton_player

_HERE = pathlib.Path(__file__).parent
COMMAND = "experiments.report"
MOST_BYTES = 10_000_000


def page_data(runs: list[Run], clips: int, moved: pathlib.Path | None = None) -> dict:
    """The data that the page's script shows.

    Args:
      runs: the runs to show, compared with the first one that has scores.
      clips: the number of hardest clips to show.
      moved: records to read instead of those that the configs of the runs name; None: those.
    """
    scored = [run for run in runs if run.scores is not None]
    opened = [_open(run, moved) for run in runs]
    found, problem = opened[runs.index(scored[0]) if scored else 0]
    data = {
        "runs": [_run(run, own) for run, (own, _) in zip(runs, opened, strict=True)],
        "scored": [runs.index(run) for run in scored],
        "classes": list(scored[0].scores.class_names) if scored else [],
        "gains": [content.gains(scored[0].scores, run.scores) for run in scored[1:]],
        "records_problem": problem,
        "layout": None,
        "hardest": content.hardest([run.scores for run in scored], clips) if scored else [],
    }
    if found and data["hardest"]:
        room = MOST_BYTES - len(make_page(data).encode())
        data["layout"] = content.add_skeletons(data["hardest"], found, room)
    return data


def _open(run: Run, moved: pathlib.Path | None) -> tuple[records.Records | None, str | None]:
    """A run's records, or None if they cannot be opened; and what is wrong with them."""
    root = moved if moved is not None else run.part("data").get("records")
    if not root or not isinstance(root, str | pathlib.Path):
        return None, "No skeletons: the config of the run names no records; set --records."
    try:
        opened = records.Records(root)
    except (records.RecordsError, OSError) as error:
        return None, f"No skeletons: {error}. If the records were moved, set --records."
    clips = run.config.get("clips")
    if clips not in (None, opened.fingerprint()):
        return opened, f"{root}: not the clips that {run.name} was trained on; set --records to the right ones."
    return opened, None


def _run(run: Run, opened: records.Records | None) -> dict:
    learned, missing = None, list(run.missing)
    layout = opened.info.skeleton_layout if opened else None
    try:
        learned = matrices(run, layout, opened.info.num_coordinates if opened else 3)
    except checkpoints.CheckpointError as error:
        missing.append(f"no learned matrices: {error}")
    return {
        "name": run.name,
        "path": str(run.workdir),
        # JSON has no NaN, but Python's json, which wrote the config, does.
        "config": json.loads(json.dumps(run.config), parse_constant=str),
        "starts": json.loads(json.dumps(run.starts), parse_constant=str),
        "joints": list(layout.joints) if layout else [],
        "curves": [[row.get("epoch"), *(row.get(name) for name in CURVES)] for row in run.rows],
        "last": run.rows[-1] if run.rows else None,
        "missing": missing,
        "confusion": content.confusion(run.scores) if run.scores is not None else None,
        "matrices": learned,
    }


def notes(data: dict, size: int) -> list[str]:
    """What the user should know about a page of `size` bytes: what it lacks, and whether it is too large."""
    found = [f"{run['name']}: {text}" for run in data["runs"] for text in run["missing"]]
    if data["records_problem"]:
        found.append(data["records_problem"])
    if size > MOST_BYTES:
        shown = len(data["hardest"])
        each = (len(json.dumps(data["hardest"], separators=(",", ":"))) + 1) / max(shown, 1)
        fitting = int(shown - (size - MOST_BYTES) / each) if shown else 0
        fewer = "name fewer runs" if len(data["runs"]) > 1 else "its matrices are too large already"
        remedy = f"--clips {fitting} would keep it smaller" if fitting > 0 else fewer
        found.append(f"the page is {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f} MB; {remedy}")
    return found


def make_page(data: dict) -> str:
    """The page, as HTML."""
    return html_page.fill(
        COMMAND,
        " and ".join(run["name"] for run in data["runs"]) + ": report",
        data,
        scripts=(
            html_page.SCRIPT,
            skeleton_player.SCRIPT,
            *(_HERE / f"{name}.js" for name in ("charts", "grid", "report")),
        ),
        styles=(skeleton_player.STYLE, html_page.STYLE, _HERE / "report.css"),
    )
