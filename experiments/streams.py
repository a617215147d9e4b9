"""Trains or resumes several streams of one config, each in its own process, and fuses their scores.

    python -m experiments.streams --config=configs/nw_ucla.py:joint --workdir=workdir/nw_ucla \\
        [--streams=joint,bone,joint_motion,bone_motion] [--config.KEY=VALUE ...]

The run of a stream is DIR/STREAM. It is a run of the main command with the same config and
`--config.data.stream=STREAM`, and the main command can start or resume it too. A config argument that is the name of a
stream is replaced by the run's own stream, so `configs/nw_ucla.py:joint,short` means the short schedule for every
stream. `hd_joint` and `hd_bone` are joints and bones with HD-Graph (`--config.model.graph=hierarchical`), the fifth and
sixth stream of the paper.

When all runs are finished, DIR/streams.md has one row per run, and the ensembles: with equal weights, with published
weights if there are any for the dataset, protocol and streams, and with weights fitted on the validation split if the
config has one. DIR/scores_ensemble.npz has the scores fused with the published weights, or else with equal ones. The
command can be started again; finished runs are not changed. (On a CPU, training all streams in one compiled program is
slower and holds the activations of all of them at once. `python -m experiments.benchmark streams` measures it, also on
a GPU, where we have not measured it.)
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence

from experiments import ensemble, scores
from experiments.launch import LaunchError, Run, Stopped, read_config, split_overrides
from experiments.markdown import markdown_table
from experiments.summarise import summarise
from mmcl_jax.data.records import Records
from mmcl_jax.data.transforms import STREAMS
from mmcl_jax.runtime.errors import plain_errors
from mmcl_jax.runtime.files import write_whole

HD_STREAMS = ("hd_joint", "hd_bone")


def stream_run(config: str, stream: str, workdir: pathlib.Path, overrides: Sequence[tuple[str, str]] = ()) -> Run:
    """The run of one stream (see above). `overrides` apply to all streams, except for the keys that select this one.

    Raises: LaunchError.
    """
    file, colon, arguments = config.partition(":")
    if (named := read_config(config).data.stream) not in STREAMS:
        raise LaunchError(f"--config={config}: the stream {named!r} is not one of {', '.join(STREAMS)}")
    sees = stream.removeprefix("hd_")
    replaced = [sees if argument in STREAMS else argument for argument in arguments.split(",")]
    own = [("data.stream", sees), *([("model.graph", "hierarchical")] if stream != sees else [])]
    return Run(file + colon + ",".join(replaced), workdir, (*overrides, *own))


def published_weights(run: Run, streams: Sequence[str]) -> str | None:
    """The preset for the records, protocol and streams of a run; None: no weights are published for them."""
    data = run.read_config().data
    dataset = Records(data.records).info.dataset
    for name, preset in ensemble.PRESETS.items():
        if (preset.dataset, preset.protocol) == (dataset, data.protocol) and set(preset.streams) == set(streams):
            return name
    return None


def summary(runs: dict[str, Run]) -> tuple[str, scores.Scores]:
    """Markdown of finished runs and of their ensembles, and the fused scores. Raises: ScoresError."""
    rows = [{"stream": stream, **summarise(run.workdir)} for stream, run in runs.items()]
    text = markdown_table(rows[0], (row.values() for row in rows))
    if len(runs) == 1:
        return text, scores.read_together([next(iter(runs.values())).workdir])[0]
    preset = published_weights(next(iter(runs.values())), list(runs))
    if preset:
        runs = {stream: runs[stream] for stream in ensemble.PRESETS[preset].streams}
    workdirs = [str(run.workdir) for run in runs.values()]
    files = scores.read_together(workdirs)
    kinds = [ensemble.read_weights(name, files) for name in ("equal", *([preset] if preset else []))]
    fused = ensemble.summary(files, kinds[-1], normalise=False)[1]
    if all((run.workdir / "scores_validation.npz").exists() for run in runs.values()):
        kinds.append(ensemble.fit(files, workdirs, "coordinate", normalise=False, on_test=False))
    ensembles = []
    for weights in kinds:
        for normalise in (False, True):
            found = ensemble.fuse([file.scores for file in files], weights.values, normalise)
            shown = ", ".join(f"{value:.3g}" for value in weights.values)
            scaled = "L2" if normalise else "no"
            ensembles.append((weights.source, shown, scaled, *ensemble.accuracies(found, files[0])))
    columns = ("ensemble of " + ", ".join(runs), "weights", "normalized", "top-1 %", "top-5 %", "mean class %")
    return f"{text}\n\n{markdown_table(columns, ensembles)}", dataclasses.replace(fused, step=None)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="config file with its arguments")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, metavar="DIR", help="the folder of all runs")
    parser.add_argument(
        "--streams", default=",".join(STREAMS), help=f"comma-separated, of {', '.join((*STREAMS, *HD_STREAMS))}"
    )
    options, rest = parser.parse_known_args(arguments)
    streams = options.streams.split(",")
    for stream in streams:
        if stream not in (*STREAMS, *HD_STREAMS) or streams.count(stream) > 1:
            parser.error(f"--streams={options.streams}: {stream!r} is repeated or not a stream; see --help")
    with plain_errors("interrupted"):
        try:
            overrides = split_overrides(rest)
            runs = {
                stream: stream_run(options.config, stream, options.workdir / stream, overrides) for stream in streams
            }
            finished = {stream: run.is_finished() for stream, run in runs.items()}  # before anything starts
            for stream, run in runs.items():
                print(f"\n{stream}: {'finished' if finished[stream] else run}", flush=True)
                if not finished[stream]:
                    run.execute()
            text, fused = summary(runs)
            title = f"# Streams of `{options.config}`" + "".join(f", {key}={value}" for key, value in overrides)
            page = options.workdir / "streams.md"
            write_whole(page, f"{title}\n\nLast epochs, from the skeleton only.\n\n{text}\n")
            print(f"\n{text}\n\nsummary: {page}")
            if len(runs) > 1:
                scores.write_scores(options.workdir / "scores_ensemble.npz", fused)
                print(f"fused scores: {options.workdir / 'scores_ensemble.npz'}")
        except Stopped as stopped:
            print(stopped)


if __name__ == "__main__":
    main()
