"""Does MMCL help? Trains the skeleton model without FAM and FRM and with them, on the same clips with the same seeds.

    python -m experiments.fam_gain --config=configs/videos.py:split,joint --workdir=workdir/fam_gain \\
        [--protocols=fold_1,fold_2] [--arms=skeleton,frozen,shuffled] [--seeds=0,1,2] \\
        [--encoder=efficientnet_lite0] [--config.KEY=VALUE ...]

The arms:

  skeleton   the skeleton model, no FAM and no FRM
  frozen     FAM; the image encoder has ImageNet weights (`imagenet`, or a file: --weights) and does not train
  shuffled   as frozen, but each training clip has the image of another one: a control, which must not help
  trained    FAM; the image encoder starts from ImageNet weights and trains, as in the paper
  random     as trained, from random weights
  fam        FAM as the config says
  frm        FRM as the config says, no FAM
  both       FAM and FRM as the config says

`--encoder` is that of the arms frozen, shuffled, trained and random. Every arm trains once per protocol and seed, in
the folder DIR/PROTOCOL/seed_SEED/ARM. `--config.KEY=VALUE` changes a key of all runs.

DIR/fam_gain.md has a line per arm: the mean of top-1 on the test clips at the last epoch; its sample deviation over the
seeds, of each the mean over the protocols; and the mean difference from `skeleton` in the same protocol and seed, with
its 95 % interval (Student's t over these pairs). With several folds and few seeds the pairs of one fold resemble each
other, so the interval is rather too narrow than too wide. The command can be started again; finished runs are not
changed. After every run the table is written from the runs that are finished.
"""

import argparse
import pathlib
import statistics
from collections.abc import Mapping, Sequence

from experiments.launch import LaunchError, Run, Stopped, split_overrides, whole_numbers
from experiments.markdown import markdown_table
from experiments.scores import read_scores
from mmcl_jax.image_features import weights_file
from mmcl_jax.runtime.errors import plain_errors
from mmcl_jax.runtime.files import write_whole

Overrides = tuple[tuple[str, str], ...]
Place = tuple[str, int]  # protocol and seed

_NO_FAM = ("loss.contrastive_weight", "0.0")
_NO_FRM = ("loss.refinement_weight", "0.0")
_FROZEN = ("model.image_encoder_frozen", "True")
BASELINE = "skeleton"
# Keys of each arm, and whether the encoder and its weights are those of the options.
ARMS: Mapping[str, tuple[Overrides, bool, bool]] = {
    BASELINE: ((_NO_FAM, _NO_FRM), False, False),
    "frozen": ((_NO_FRM, _FROZEN), True, True),
    "shuffled": ((_NO_FRM, _FROZEN, ("data.shuffled_images", "True")), True, True),
    "trained": ((_NO_FRM,), True, True),
    "random": ((_NO_FRM,), True, False),
    "fam": ((_NO_FRM,), False, False),
    "frm": ((_NO_FAM,), False, False),
    "both": ((), False, False),
}


def arm_run(
    config: str, workdir: pathlib.Path, arm: str, place: Place, overrides: Overrides, encoder: str, weights: str
) -> Run:
    """The run of an arm. Raises: LaunchError if the config switches off what the arm is about."""
    keys, own_encoder, pretrained = ARMS[arm]
    protocol, seed = place
    encoding = (("model.image_encoder", encoder), ("model.image_encoder_weights", weights if pretrained else ""))
    run = Run(
        config,
        workdir / protocol / f"seed_{seed}" / arm,
        (*overrides, ("data.protocol", protocol), ("seed", str(seed)), *keys, *(encoding if own_encoder else ())),
    )
    loss = run.read_config().loss
    for (key, _), weight in ((_NO_FAM, loss.contrastive_weight), (_NO_FRM, loss.refinement_weight)):
        if not weight and key not in dict(keys):
            raise LaunchError(f"the arm {arm} needs {key} above 0; --config={config} has {weight:g}")
    return run


def top1(run: Run) -> float:
    """Top-1 of a finished run on the test clips, in percent. Raises: ScoresError."""
    file = read_scores(run.workdir / "scores_test.npz")
    return 100 * float((file.scores.argmax(axis=1) == file.labels).mean())


def table(accuracies: Mapping[str, Mapping[Place, float]]) -> str:
    """Markdown: a line per arm, from top-1 in percent by arm, protocol and seed."""
    baseline = accuracies.get(BASELINE, {})
    rows = []
    for arm, by_place in accuracies.items():
        if not by_place:
            continue
        pairs = [value - baseline[place] for place, value in by_place.items() if place in baseline]
        rows.append(
            (
                arm,
                str(len(by_place)),
                f"{statistics.mean(by_place.values()):.1f}",
                _deviation(by_place),
                "-" if arm == BASELINE or not pairs else f"{statistics.mean(pairs):+.1f}{_half_width(pairs)}",
                "-" if arm == BASELINE or not pairs else _signs(pairs),
            )
        )
    columns = ("arm", "runs", "top-1", "deviation over seeds", f"difference from {BASELINE}", "better, equal, worse")
    return markdown_table(columns, rows)


def _deviation(by_place: Mapping[Place, float]) -> str:
    seeds = {seed for _, seed in by_place}
    means = [statistics.mean(value for (_, seed), value in by_place.items() if seed == one) for one in seeds]
    return f"{statistics.stdev(means):.1f}" if len(means) > 1 else "-"


def _half_width(pairs: Sequence[float]) -> str:
    """Of the 95 % interval of the mean of the differences `pairs`; empty for a single pair."""
    from scipy.stats import t

    if len(pairs) < 2:
        return ""
    return f" ± {t.ppf(0.975, len(pairs) - 1) * statistics.stdev(pairs) / len(pairs) ** 0.5:.1f}"


def _signs(pairs: Sequence[float]) -> str:
    better, worse = sum(pair > 0 for pair in pairs), sum(pair < 0 for pair in pairs)
    return f"{better}, {len(pairs) - better - worse}, {worse}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="config file of all runs, with FAM")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, metavar="DIR", help="the folder of all runs")
    parser.add_argument("--protocols", help="comma-separated (default: the config's)")
    parser.add_argument("--arms", default="skeleton,frozen,shuffled,trained,random", help="comma-separated")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated (default 0,1,2)")
    parser.add_argument("--encoder", default="efficientnet_lite0", help="image encoder (default efficientnet_lite0)")
    parser.add_argument("--weights", default="imagenet", help="its weights (default imagenet)")
    return parser


def _write(page: pathlib.Path, config: str, runs: Mapping[str, Mapping[Place, Run]], finished: set[Run]) -> str:
    accuracies = {
        arm: {place: top1(run) for place, run in by_place.items() if run in finished} for arm, by_place in runs.items()
    }
    total = sum(map(len, runs.values()))
    text = f"{len(finished)} of {total} runs are finished.\n\n{table(accuracies)}"
    write_whole(page, f"# Does MMCL help? {config}, top-1 % at the last epoch\n\n{text}\n")
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    arms = options.arms.split(",")
    if unknown := [arm for arm in arms if arm not in ARMS]:
        parser.error(f"--arms: {unknown[0]!r} is not one of {', '.join(ARMS)}")
    with plain_errors("interrupted"):
        overrides = split_overrides(rest)
        seeds = whole_numbers(options.seeds, "--seeds")
        named = Run(options.config, options.workdir, overrides).read_config().data.protocol
        places = [(protocol, seed) for seed in seeds for protocol in (options.protocols or named).split(",")]
        runs = {
            arm: {
                place: arm_run(options.config, options.workdir, arm, place, overrides, options.encoder, options.weights)
                for place in places
            }
            for arm in arms
        }
        waiting = [arm for arm in arms if any(not run.is_finished() for run in runs[arm].values())]
        if any(ARMS[arm][2] for arm in waiting):
            weights_file(options.encoder, options.weights)  # a missing package ends the command before the first run
        options.workdir.mkdir(parents=True, exist_ok=True)
        page, text, finished = options.workdir / "fam_gain.md", "", set[Run]()
        try:
            for place in places:
                for by_place in runs.values():
                    run = by_place[place]
                    if not run.is_finished():
                        print(f"\n{run}", flush=True)
                        run.execute()
                    finished.add(run)
                    text = _write(page, options.config, runs, finished)
        except Stopped as stopped:
            print(stopped)
            return
        print(f"\n{text}\n\nsummary: {page}")


if __name__ == "__main__":
    main()
