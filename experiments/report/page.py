"""All that the page shows, as JSON, and the page."""

import pathlib

from data_prep import html_page, skeleton_player
from experiments.report import content
from experiments.report.matrices import matrices
from experiments.report.runs import CURVES, Run
from mmcl_jax import checkpoints, records

_HERE = pathlib.Path(__file__).parent
COMMAND = "experiments.report"


def page_data(runs: list[Run], clips: int, moved: pathlib.Path | None = None) -> dict:
    """What the page's script shows.

    Args:
      runs: to show, compared with the first that has scores.
      clips: the hardest clips shown.
      moved: records read instead of those that the first config with scores names.
    """
    scored = [run for run in runs if run.scores is not None]
    first = scored[0] if scored else runs[0]
    opened, problem = _open(moved if moved is not None else first.config.get("data", {}).get("records"))
    hardest = content.hardest([run.scores for run in scored], clips) if scored else []
    layout = content.add_skeletons(hardest, opened) if opened and hardest else None
    return {
        "runs": [_run(run, opened) for run in runs],
        "scored": [runs.index(run) for run in scored],
        "classes": list(scored[0].scores.class_names) if scored else [],
        "joints": list(opened.info.skeleton_layout.joints) if opened else [],
        "gains": [content.gains(scored[0].scores, run.scores) for run in scored[1:]],
        "records_problem": problem,
        "layout": layout,
        "hardest": hardest if layout else [],
    }


def _open(root) -> tuple[records.Records | None, str | None]:
    if not root:
        return None, "The run's config names no records; name them with --records."
    try:
        return records.Records(root), None
    except (records.RecordsError, OSError) as error:
        return None, f"{error}. If the records were moved, name them with --records."


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
        "config": run.config,
        "starts": run.starts,
        "curves": [[row.get("epoch"), *(row.get(name) for name in CURVES)] for row in run.rows],
        "last": run.rows[-1] if run.rows else None,
        "missing": missing,
        "confusion": content.confusion(run.scores) if run.scores is not None else None,
        "matrices": learned,
    }


def make_page(data: dict) -> str:
    """The page, HTML."""
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
