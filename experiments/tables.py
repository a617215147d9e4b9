"""Reproduces the paper's ablations: tables 3 to 6, 8 and 9 as sweeps of one config, and tables 1 and 7.

    python -m experiments.tables 6 --workdir=workdir/tables                  finished results, as Markdown
    python -m experiments.tables 3 4 5 6 8 9 --workdir=workdir/tables --list   the commands of all runs
    python -m experiments.tables 6 --workdir=workdir/tables --run [--seeds=0,1,2] [--rows=1,5] [--config.KEY=VALUE ...]
    python -m experiments.tables 7
    python -m experiments.tables 1 BASELINE OTHER [--most=10]

The config is `--config`, by default configs/ntu120.py:xsub,joint; each row of a table sets the keys that define it. The
accuracy of a row is that of the last epoch, from the skeleton only: mean and sample standard deviation over the seeds.
Its gain is the difference, seed by seed, to the first row of the table with the same backbone and stream. `--run`
starts or resumes the runs in order, and continues with the next if one fails. Without options the command prints
finished rows and marks the others. Runs that several tables share are trained once. Published figures are for NTU RGB+D
120 X-Sub: best epoch on the test set, one run.

The text sets of tables 5 and 9 are those that data_prep.text_features writes by default, `blip/holding`, `blip/head`
and `blip/foot`, and for MiniGPT-4 an open model of the same design, `instructblip-flan-t5-xl/holding`. To use another:
`--text=MiniGPT-4=my_model/holding`. The paper does not say which streams table 8 fuses. By their accuracies, its rows
are the four streams, the four streams, and the six of its table 2, with their published weights.

Table 1 takes two score files or workdirs of the same clips, and lists the classes that gained and lost most.
"""

import argparse
import dataclasses
import pathlib
import statistics
import sys
from collections.abc import Sequence

import numpy as np

from experiments import ensemble, model_table, scores
from experiments.launch import LaunchError, Run, Stopped, split_overrides, whole_numbers
from experiments.markdown import markdown_table
from experiments.scores import ScoresError
from experiments.streams import HD_STREAMS, published_weights, stream_run
from mmcl_jax.data.transforms import STREAMS
from mmcl_jax.metrics import classification_metrics
from mmcl_jax.run_log import WorkdirError
from mmcl_jax.runtime.errors import plain_errors
from mmcl_jax.runtime.options import positive

DEFAULT_CONFIG = "configs/ntu120.py:xsub,joint"
TEXT_SETS = {
    "BLIP": "blip/holding",
    "MiniGPT-4": "instructblip-flan-t5-xl/holding",
    "head": "blip/head",
    "foot": "blip/foot",
    "holding": "blip/holding",
}
_RUN_ERRORS = (LaunchError, WorkdirError, ScoresError)  # errors of one run; other runs may be fine


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table: its settings, its streams, and the published figure.

    Attributes:
      cells: the cells that distinguish it from other rows, in the paper's columns.
      published: top-1 accuracy in percent.
      backbone: a key of BACKBONES.
      fam: lambda_1; 0: no FAM.
      frm: lambda_2; 0: no FRM.
      streams: fused, if there are several.
      encoder: image encoder of the FAM; empty: not set.
      text: a key of TEXT_SETS; empty: not set.
    """

    cells: tuple[str, ...]
    published: float
    backbone: str = "ctrgcn"
    fam: float = 0.0
    frm: float = 0.0
    streams: tuple[str, ...] = ("joint",)
    encoder: str = ""
    text: str = ""

    def overrides(self, text_sets: dict[str, str]) -> tuple[tuple[str, str], ...]:
        """The config keys that define the row, except for the stream. Keys that its modules do not read are not set."""
        keys = [
            ("model.backbone", self.backbone),
            ("loss.contrastive_weight", f"{self.fam:g}"),
            ("loss.refinement_weight", f"{self.frm:g}"),
        ]
        if self.encoder:
            keys.append(("model.image_encoder", self.encoder))
        if self.text:
            keys.append(("data.text", text_sets[self.text]))
        return tuple(keys)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the paper: caption, names of the columns that distinguish rows, and rows."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


_MMCL = {"fam": 0.1, "frm": 0.2}
_NAMES = {"ctrsgcn": "CTRS-GCN", "ctrgcn": "CTR-GCN"}


def _table_3() -> tuple[Row, ...]:
    figures = {
        ("ctrsgcn", "joint"): (83.88, 84.84),
        ("ctrgcn", "joint"): (85.01, 85.79),
        ("ctrgcn", "bone"): (86.34, 87.32),
        ("ctrgcn", "joint_motion"): (81.23, 83.19),
        ("ctrgcn", "bone_motion"): (81.66, 82.92),
    }
    rows = []
    for (backbone, stream), (without, with_mmcl) in figures.items():
        common = {"backbone": backbone, "streams": (stream,)}
        rows.append(Row((f"{_NAMES[backbone]} w/o MMCL", stream), without, **common))
        rows.append(Row((f"{_NAMES[backbone]} w/ MMCL", stream), with_mmcl, **common, **_MMCL))
    return tuple(rows)


def _table_4() -> tuple[Row, ...]:
    figures = {"ctrsgcn": (83.88, 84.44, 84.48), "ctrgcn": (85.01, 85.57, 85.62)}
    rows = []
    for backbone, (without, resnet, inception) in figures.items():
        name = _NAMES[backbone]
        rows += [
            Row((f"{name} w/o FAM", "-"), without, backbone),
            Row((f"{name} w/ FAM", "ResNet34"), resnet, backbone, fam=0.1, encoder="resnet34"),
            Row((f"{name} w/ FAM", "Inception-V3"), inception, backbone, fam=0.1, encoder="inception_v3"),
        ]
    return tuple(rows)


TABLES = {
    3: Table("Comparison in the case of whether to use the MMCL", ("method", "stream"), _table_3()),
    4: Table("Comparison of different CNNs in FAM", ("method", "CNN"), _table_4()),
    5: Table(
        "Comparison of different LLMs in FRM",
        ("method", "LLM"),
        (
            Row(("CTRS-GCN w/o FRM", "-"), 83.88, "ctrsgcn"),
            Row(("CTRS-GCN w/ FRM", "BLIP"), 84.10, "ctrsgcn", frm=0.2, text="BLIP"),
            Row(("CTR-GCN w/o FRM", "-"), 85.01),
            Row(("CTR-GCN w/ FRM", "MiniGPT-4"), 85.42, frm=0.2, text="MiniGPT-4"),
            Row(("CTR-GCN w/ FRM", "BLIP"), 85.60, frm=0.2, text="BLIP"),
        ),
    ),
    6: Table(
        "Comparison of accuracy under different hyperparameter settings",
        ("method", "lambda_1", "lambda_2"),
        (
            Row(("baseline", "-", "-"), 85.01),
            *(
                Row(("MMCL", f"{fam}", f"{frm}"), published, fam=fam, frm=frm)
                for fam, frm, published in ((0.2, 0.1, 85.76), (0.3, 0.1, 85.54), (0.1, 0.1, 85.59), (0.1, 0.2, 85.79))
            ),
        ),
    ),
    8: Table(
        "Comparison of using different adjacency matrices",
        ("method", "adjacency matrix", "streams"),
        (
            Row(("CTR-GCN", "natural connection", "four"), 88.9, streams=STREAMS),
            Row(("MMCL", "natural connection", "four"), 89.9, streams=STREAMS, **_MMCL),
            Row(("MMCL", "HD-Graph", "four and two from HD-Graph"), 90.3, streams=(*STREAMS, *HD_STREAMS), **_MMCL),
        ),
    ),
    9: Table(
        "Comparison of different text instructions in the Feature Refinement Module",
        ("method", "text instruction"),
        (
            Row(("CTR-GCN w/o FRM", "-"), 85.01),
            Row(("CTR-GCN w/ FRM", "Whether the hands are touching head?"), 85.52, frm=0.2, text="head"),
            Row(("CTR-GCN w/ FRM", "Whether the hands are touching foot?"), 85.44, frm=0.2, text="foot"),
            Row(("CTR-GCN w/ FRM", "Whether the person are holding object?"), 85.60, frm=0.2, text="holding"),
        ),
    ),
}


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What all rows share: config and overrides, folder of the runs, seeds, text sets."""

    config: str
    workdir: pathlib.Path
    seeds: tuple[int, ...]
    overrides: tuple[tuple[str, str], ...]
    text_sets: dict[str, str]

    def runs(self, row: Row, seed: int) -> list[Run]:
        """The runs of a row with one seed, one per stream. The folder's name contains all settings of the run."""
        runs = []
        for stream in row.streams:
            keys = (*self.overrides, *row.overrides(self.text_sets))
            parts = [row.backbone, stream, f"fam{row.fam:g}", f"frm{row.frm:g}", row.encoder]
            parts.append(self.text_sets[row.text].replace("/", "_") if row.text else "")
            folder = self.workdir / "-".join(part for part in parts if part) / f"seed{seed}"
            runs.append(stream_run(self.config, stream, folder, (*keys, ("seed", str(seed)))))
        return runs

    def accuracy(self, row: Row, seed: int) -> float | None:
        """Top-1 accuracy of a row with one seed, in percent; None: some of its runs are not finished."""
        runs = self.runs(row, seed)
        if not all(run.is_finished() for run in runs):
            return None
        files = scores.read_together([run.workdir for run in runs])
        weights = np.ones(len(runs))
        if len(runs) > 1 and (preset := fusion_weights(runs[0], row.streams)) is not None:
            weights = preset
        fused = ensemble.fuse([file.scores for file in files], weights)
        return 100 * classification_metrics(fused, files[0].labels).top1


def fusion_weights(run: Run, streams: Sequence[str]) -> np.ndarray | None:
    """Published weights of these streams, in order, for the records of a run; None: there are none."""
    name = published_weights(run, streams)
    if name is None:
        return None
    preset = dict(zip(ensemble.PRESETS[name].streams, ensemble.PRESETS[name].weights, strict=True))
    return np.array([preset[stream] for stream in streams])


def sweep_table(table: Table, rows: Sequence[Row], sweep: Sweep) -> tuple[str, list[str]]:
    """Markdown of the rows, with unfinished rows marked; and the errors of runs that cannot be read."""
    failed: list[str] = []
    baselines = [
        next(other for other in table.rows if (other.backbone, other.streams[0]) == (row.backbone, row.streams[0]))
        for row in rows
    ]
    needed = {id(row): row for row in (*rows, *baselines)}
    measured = {key: _accuracies(row, sweep, failed) for key, row in needed.items()}
    lines = []
    for row, baseline in zip(rows, baselines, strict=True):
        found = {seed: value for seed, value in measured[id(row)].items() if value is not None}
        gains = "-"
        if baseline is not row:
            base = measured[id(baseline)]
            gains = _spread([value - base[seed] for seed, value in found.items() if base.get(seed) is not None], "+")
        shown = _spread(list(found.values()))
        missing = len(sweep.seeds) - len(found)
        if missing:
            shown = f"{shown} ({_progress(row, sweep)})" if found else _progress(row, sweep)
        lines.append((*row.cells, shown, gains, f"{row.published:.2f}"))
    columns = (*table.columns, "top-1 %", "gain", "published")
    return markdown_table(columns, lines), failed


def _accuracies(row: Row, sweep: Sweep, failed: list[str]) -> dict[int, float | None]:
    """Percent by seed; None if runs are missing or cannot be read. Reading errors are added to `failed`."""
    found: dict[int, float | None] = {}
    for seed in sweep.seeds:
        found[seed] = None
        try:
            found[seed] = sweep.accuracy(row, seed)
        except _RUN_ERRORS as error:
            failed.append(str(error))
    return found


def _spread(values: list[float], sign: str = "") -> str:
    """Mean, sample standard deviation, and their number."""
    if not values:
        return "-"
    mean = f"{statistics.mean(values):{sign}.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f} (n = {len(values)})" if len(values) > 1 else f"{mean} (n = 1)"


def _progress(row: Row, sweep: Sweep) -> str:
    runs = [run for seed in sweep.seeds for run in sweep.runs(row, seed)]
    try:
        return _count(runs)
    except _RUN_ERRORS:
        return "unreadable, see below"


def _count(runs: Sequence[Run]) -> str:
    finished = sum(run.is_finished() for run in runs)
    begun = [run for run in runs if not run.is_finished() and run.epochs_done()]
    epochs = "".join(f", one after epoch {run.epochs_done()} of {run.read_config().num_epochs}" for run in begun)
    return f"{finished} of {len(runs)} runs finished{epochs}" if finished or begun else "not run"


def class_gains(baseline: scores.Scores, other: scores.Scores) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Accuracy per class of two runs on the same clips, for the classes that occur.

    Returns:
      (classes, counts, accuracies, gains): int `[J]`, clips per class, percent `[2, J]` before and after, points `[J]`.
    """
    before, after = (classification_metrics(file.scores, file.labels).confusion for file in (baseline, other))
    counts = before.sum(axis=1)
    there = np.flatnonzero(counts)
    accuracies = np.stack([100 * np.diag(confusion)[there] / counts[there] for confusion in (before, after)])
    return there, counts[there], accuracies, accuracies[1] - accuracies[0]


def gains_table(baseline: scores.Scores, other: scores.Scores, most: int) -> str:
    """Table 1: accuracy per class of two runs on the same clips, for the classes that gained and lost most."""
    before, after = (classification_metrics(file.scores, file.labels) for file in (baseline, other))
    there, counts, shares, gains = class_gains(baseline, other)
    order = np.argsort(-gains, kind="stable")
    gained = [place for place in order if gains[place] > 0][:most]
    lost = [place for place in order[::-1] if gains[place] < 0][:most]
    rows = [
        (
            there[i] + 1,
            baseline.class_names[there[i]],
            counts[i],
            *(f"{s[i]:.2f}" for s in shares),
            f"{gains[i]:+.2f}",
        )
        for i in (*gained, *lost)
    ]
    columns = ("action", "class", "clips", f"{baseline.path} %", f"{other.path} %", "gain")
    return (
        f"{markdown_table(columns, rows)}\n\nAll classes: {(gains > 0).sum()} gained, {(gains < 0).sum()} lost, "
        f"{(gains == 0).sum()} unchanged; top-1 {100 * before.top1:.2f} -> {100 * after.top1:.2f} %, mean class "
        f"{100 * before.mean_class:.2f} -> {100 * after.mean_class:.2f} %. One clip of a class counts "
        f"{100 / counts.max():.2f} to {100 / counts.min():.2f} points."
    )


def run_all(runs: Sequence[Run]) -> list[str]:
    """Trains or resumes unfinished runs, one after another; returns the errors of failed ones. Raises: Stopped."""
    failed = []
    for number, run in enumerate(runs, 1):
        print(f"\nrun {number} of {len(runs)}: {run}", flush=True)
        try:
            if run.is_finished():
                print("already finished")
            else:
                run.execute()
        except _RUN_ERRORS as error:
            print(f"error: {error}", flush=True)
            failed.append(str(error))
    return failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    known = "1, 3 to 9"
    parser.add_argument("arguments", nargs="+", metavar="TABLE", help=f"tables {known}; after 1, the two score files")
    parser.add_argument(
        "--config", default=DEFAULT_CONFIG, help=f"config file with its arguments (default {DEFAULT_CONFIG})"
    )
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("workdir/tables"), metavar="DIR")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated (default 0,1,2)")
    parser.add_argument("--rows", help="rows of each table, counted from 1, such as 1,5 (default: all)")
    parser.add_argument(
        "--text", action="append", default=[], metavar="NAME=SET", help=f"text set of {', '.join(TEXT_SETS)}"
    )
    parser.add_argument("--list", action="store_true", help="print the commands of the runs")
    parser.add_argument("--run", action="store_true", help="start or resume the runs, in order")
    parser.add_argument(
        "--most", type=positive, default=10, help="table 1: number of classes that gained or lost most (default 10)"
    )
    return parser


def _sweep(options: argparse.Namespace, rest: list[str]) -> Sweep:
    given = dict(text.partition("=")[::2] for text in options.text)
    unknown = [name for name, text_set in given.items() if name not in TEXT_SETS or not text_set]
    if unknown:
        raise LaunchError(f"--text={unknown[0]}: expected NAME=SET, with a NAME of {', '.join(TEXT_SETS)}")
    seeds = whole_numbers(options.seeds, "--seeds")
    return Sweep(options.config, options.workdir, seeds, split_overrides(rest), {**TEXT_SETS, **given})


def _chosen(table: Table, rows: str | None) -> list[Row]:
    if rows is None:
        return list(table.rows)
    numbers = whole_numbers(rows, "--rows")
    if not all(1 <= number <= len(table.rows) for number in numbers):
        raise LaunchError(f"--rows={rows}: the table has rows 1 to {len(table.rows)}")
    return [table.rows[number - 1] for number in numbers]


def _sweeps(numbers: list[int], options: argparse.Namespace, rest: list[str]) -> None:
    """Lists, runs or prints the tables that are sweeps."""
    sweep = _sweep(options, rest)
    chosen = {number: _chosen(TABLES[number], options.rows) for number in numbers}
    every = [run for rows in chosen.values() for row in rows for seed in sweep.seeds for run in sweep.runs(row, seed)]
    runs = list({run.workdir: run for run in every}.values())
    if options.list:
        for run in runs:
            run.read_config()  # raises before a command that cannot run is printed
        print("\n".join(map(str, runs)))
        return
    failed = run_all(runs) if options.run else []
    for number, rows in chosen.items():
        print(f"\n**Table {number}. {TABLES[number].caption}** (`{options.config}`)\n")
        text, unreadable = sweep_table(TABLES[number], rows, sweep)
        print(text)
        failed += unreadable
    if failed:
        sys.exit("error: " + "\nerror: ".join(dict.fromkeys(failed)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    first, *others = options.arguments
    if first in ("1", "7"):
        given = [f"--{name}" for name in ("rows", "text", "list", "run") if getattr(options, name)]
        if given or rest:
            parser.error(f"table {first} is not a sweep; leave out {(given or rest)[0]}")
    with plain_errors("interrupted"):
        try:
            if first == "1":
                if len(others) != 2:
                    parser.error("table 1 takes two score files or workdirs: the baseline's, then the other's")
                print(gains_table(*scores.read_together(others), options.most))
            elif options.arguments == ["7"]:
                print(model_table.text())
            else:
                known = {str(number) for number in TABLES}
                unknown = [text for text in options.arguments if text not in known]
                if unknown:
                    parser.error(
                        f"{unknown[0]!r} is not one of the tables {', '.join(sorted(known))}; give 1 or 7 by itself"
                    )
                _sweeps([int(text) for text in options.arguments], options, rest)
        except Stopped as stopped:
            print(stopped)


if __name__ == "__main__":
    main()
