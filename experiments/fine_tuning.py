"""Fine-tuning against training from random weights, with a part of the training clips and as many steps.

    python -m experiments.fine_tuning --source=configs/utd_mhad.py:joint,short \\
        --target=configs/nw_ucla.py:joint,short --workdir=workdir/fine_tuning [--fractions=0.05,0.1,0.2,1] \\
        [--seeds=0,1,2] [--epochs=6] [--source.KEY=VALUE ...] [--tuned.KEY=VALUE ...] [--config.KEY=VALUE ...]

One run of the source, then for each fraction and seed one run from the source's weights and one from random weights,
which differ only in `init_from`. Both see the same clips (`data.train_fraction`, drawn with the run's seed), in the
same batches, and take the same number of steps: with a smaller fraction each clip comes more often in an epoch. The
source's seed is 0. `--config.KEY=VALUE` changes a key of all runs, `--source.KEY=VALUE` only of the source, and
`--tuned.KEY=VALUE` of the fine-tuned runs, such as `--tuned.freeze=backbone`. The latter have folders of their own, so
that several ways to fine-tune can be compared with the same runs from random weights.

DIR/fine_tuned*.md has top-1 of the last epoch, mean and deviation over the seeds, and the difference of the pairs; and
the means after every evaluated epoch, which say how fast the two learn. The command can be started again; finished runs
are not changed.
"""

import argparse
import pathlib
import statistics
from collections.abc import Sequence

from experiments.launch import LaunchError, Run, Stopped, split_overrides, whole_numbers
from experiments.markdown import markdown_table
from experiments.scores import read_scores
from mmcl_jax.runtime.errors import plain_errors
from mmcl_jax.runtime.files import write_whole

_PARTS = ("--config.", "--source.", "--tuned.")
Overrides = tuple[tuple[str, str], ...]


def target_runs(
    config: str,
    folder: pathlib.Path,
    source: pathlib.Path,
    fraction: float,
    seed: int,
    overrides: Overrides,
    tuned: Overrides = (),
) -> dict[str, Run]:
    """The two runs of a fraction and seed, by how they start; `tuned` are keys of only the fine-tuned one."""
    shared = (
        *overrides,
        ("seed", str(seed)),
        ("data.train_fraction", str(fraction)),
        ("data.train_fraction_seed", str(seed)),
        ("data.repeats", str(round(1 / fraction))),
    )
    place = folder / f"fraction_{fraction:g}" / f"seed_{seed}"
    return {
        "fine-tuned": Run(config, place / tuned_name(tuned), (*shared, *tuned, ("init_from", str(source)))),
        "random": Run(config, place / "random", shared),
    }


def tuned_name(tuned: Overrides) -> str:
    """What fine-tuned runs with these keys are called."""
    return "_".join(("fine_tuned", *(f"{key}_{value}" for key, value in tuned)))


def top1(run: Run) -> float:
    """Top-1 of a finished run on the test clips, in percent. Raises: ScoresError."""
    file = read_scores(run.workdir / "scores_test.npz")
    return 100 * float((file.scores.argmax(axis=1) == file.labels).mean())


def table(accuracies: dict[float, dict[str, list[float]]]) -> str:
    """Markdown: by fraction, top-1 of both starts (mean and sample deviation over the seeds) and their difference."""
    rows = []
    for fraction, by_start in accuracies.items():
        tuned, random = by_start["fine-tuned"], by_start["random"]
        differences = [ours - theirs for ours, theirs in zip(tuned, random, strict=True)]
        rows.append((f"{100 * fraction:g} %", *map(_spread, (random, tuned, differences)), _listed(differences)))
    columns = ("training clips", "from random weights", "fine-tuned", "difference", "by seed")
    return markdown_table(columns, rows)


def by_epoch(runs: dict[float, list[dict[str, Run]]]) -> str:
    """Markdown: the mean top-1 of each fraction and start after each evaluated epoch. Raises: LaunchError."""
    rows, epochs = [], list[str]()
    for fraction, pairs in runs.items():
        for start in pairs[0]:
            curves = [pair[start].read_accuracies() for pair in pairs]
            epochs = [str(epoch) for epoch in curves[0]]
            means = (100 * statistics.mean(curve[int(epoch)] for curve in curves) for epoch in epochs)
            rows.append((f"{100 * fraction:g} %", start, *(f"{mean:.1f}" for mean in means)))
    return markdown_table(("training clips", "start", *(f"epoch {epoch}" for epoch in epochs)), rows)


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:+.1f}" for value in values)


def _fractions(text: str) -> list[float]:
    """The values of `--fractions`. Raises: LaunchError."""
    try:
        fractions = [float(fraction) for fraction in text.split(",")]
    except ValueError:
        fractions = []
    if not fractions or not all(0 < fraction <= 1 for fraction in fractions):
        raise LaunchError(f"--fractions={text}: expected numbers above 0 and up to 1, such as 0.1,1")
    return fractions


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--source", required=True, metavar="FILE", help="config file of the run to start from")
    parser.add_argument("--target", required=True, metavar="FILE", help="config file of the runs to compare")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, metavar="DIR", help="the folder of all runs")
    parser.add_argument("--fractions", default="0.05,0.1,0.2,1", help="of the training clips, comma-separated")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--epochs", type=int, default=6, help="of the target's runs")
    options, rest = parser.parse_known_args(arguments)
    with plain_errors("interrupted"):
        overrides, own, tuned = (
            split_overrides([key.replace(part, "--config.", 1) for key in rest if key.startswith(part)])
            for part in _PARTS
        )
        split_overrides([key for key in rest if not key.startswith(_PARTS)])  # raises for what no part knows
        fractions = _fractions(options.fractions)
        seeds = whole_numbers(options.seeds, "--seeds")
        source = Run(options.source, options.workdir / "source", (*overrides, *own, ("seed", "0")))
        tuning = (*overrides, ("num_epochs", str(options.epochs)))
        runs = {
            fraction: [
                target_runs(options.target, options.workdir, source.workdir, fraction, seed, tuning, tuned)
                for seed in seeds
            ]
            for fraction in fractions
        }
        everything = [source, *(run for pairs in runs.values() for pair in pairs for run in pair.values())]
        try:
            for run in everything:
                if not run.is_finished():
                    print(f"\n{run}", flush=True)
                    run.execute()
        except Stopped as stopped:
            print(stopped)
            return
        accuracies = {
            fraction: {start: [top1(pair[start]) for pair in pairs] for start in pairs[0]}
            for fraction, pairs in runs.items()
        }
        text = f"Source: top-1 {top1(source):.1f} % of its own test clips.\n\n{table(accuracies)}\n\n{by_epoch(runs)}"
        title = "# Fine-tuning, top-1 % at the last epoch" + "".join(f", {key}={value}" for key, value in tuned)
        page = options.workdir / f"{tuned_name(tuned)}.md"
        write_whole(page, f"{title}\n\n{text}\n")
        print(f"\n{text}\n\nsummary: {page}")


if __name__ == "__main__":
    main()
