"""Prints a Markdown table of finished or running runs.

    python -m experiments.summarise WORKDIR [WORKDIR ...]

The accuracy is that of the last epoch. The best test epoch, which papers in this field report, is shown beside it. If
all runs are finished and differ only in their seeds, the mean and the standard deviation are printed too.
"""

import argparse
import pathlib
import statistics

from experiments.markdown import markdown_table
from mmcl_jax.run_log import WorkdirError
from mmcl_jax.runtime.errors import plain_errors
from mmcl_jax.runtime.files import read_json
from mmcl_jax.runtime.tables import read_table

_COLUMNS = ("workdir", "seed", "commit", "devices", "epoch", "minutes", "last top-1", "best top-1 (not used)", "top-5")


def summarise(workdir: pathlib.Path) -> dict[str, str]:
    """One row of the table. Raises: WorkdirError, naming the file, if the folder has no evaluated epoch of a run."""
    path = workdir / "config.json"
    try:
        config = read_json(path)
        about = {"seed": str(config["seed"]), "epochs": config["num_epochs"]}
        path = workdir / "version.json"
        starts = read_json(path)["starts"]
        origin = {key: _distinct(starts, key) for key in ("commit", "devices")}
        path = workdir / "metrics.csv"
        rows = [cells for _, cells in read_table(path, ("epoch", "seconds"), None)]
        evaluated = [row for row in rows if row.get("test_top1")]
        if not evaluated:
            raise WorkdirError(f"{path}: no evaluated epoch yet; let the run continue")
        last = evaluated[-1]
        return {
            "workdir": str(workdir),
            "seed": about["seed"],
            **origin,
            "epoch": f"{last['epoch']} of {about['epochs']}",
            "minutes": f"{sum(float(row['seconds']) for row in rows) / 60:.0f}",
            "last top-1": f"{100 * float(last['test_top1']):.2f}",
            "best top-1 (not used)": f"{100 * max(float(row['test_top1']) for row in evaluated):.2f}",
            "top-5": f"{100 * float(last['test_top5']):.2f}" if last.get("test_top5") else "-",  # not of five classes
        }
    except WorkdirError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise WorkdirError(
            f"{path}: missing or damaged, or not of a run ({error!r:.200}); name the --workdir of a run"
        ) from error


def _distinct(starts: list[dict[str, str]], key: str) -> str:
    """The different values of `key` in the starts of a run; a resumed run may have several."""
    return ", ".join(dict.fromkeys(start[key] for start in starts))


def _differ_only_in_seed(workdirs: list[pathlib.Path]) -> bool:
    configs = [read_json(workdir / "config.json") for workdir in workdirs]
    seeds = {config.pop("seed") for config in configs}
    return len(seeds) == len(configs) and all(config == configs[0] for config in configs)


def _is_finished(row: dict[str, str]) -> bool:
    epoch, _, epochs = row["epoch"].partition(" of ")
    return epoch == epochs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", nargs="+", type=pathlib.Path, metavar="WORKDIR", help="folders of runs")
    workdirs = parser.parse_args().workdirs
    with plain_errors("interrupted"):
        rows = [summarise(workdir) for workdir in workdirs]
    print(markdown_table(_COLUMNS, (row.values() for row in rows)))
    if len(rows) > 1 and _differ_only_in_seed(workdirs) and all(map(_is_finished, rows)):
        accuracies = [float(row["last top-1"]) for row in rows]
        print(
            f"\nlast epoch, {len(rows)} runs: mean {statistics.mean(accuracies):.2f} %, "
            f"sample standard deviation {statistics.stdev(accuracies):.2f}"
        )


if __name__ == "__main__":
    main()
