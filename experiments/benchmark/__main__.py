"""The command: python -m experiments.benchmark {infer,train,...} [--json FILE] [--ready-within SECONDS] [--help]."""

import argparse
import importlib
import os
import pathlib
import shlex
import sys

from experiments.benchmark.harness import READY_WITHIN
from experiments.benchmark.report import Report
from mmcl_jax.runtime.backend import tune_gpu_compiler
from mmcl_jax.runtime.errors import plain_errors

# In this order in --help. Each is a module here with `add_arguments(parser)` and `run(options, report)`, importable
# with nothing but jax, flax, optax, orbax, numpy and torch.
BENCHMARKS: dict[str, str] = {
    "infer": "only the skeleton model, against PyTorch and ONNX Runtime",
    "train": "training steps of CTR-GCN and MMCL, against PyTorch",
    "streams": "training several streams: one after another, or in one program",
    "data": "reading batches: clips per second and memory, beside a feeder that holds everything",
    "preparation": "pictures per second: questions about them (BLIP), persons in them (YOLO)",
    "scale": "one device, several, two processes: clips per second of the same global batch",
}


_OUTPUT = """\
output:
  Tables in Markdown. The first says what this machine can do at most: rates of a large matrix product and of a copy.
  With --json the file is written again after each table, so that finished tables are kept if the benchmark is
  stopped. A contender that cannot run, fails or runs out of memory has 'not run' and the reason in place of its times;
  where the outputs of two differ, nothing is timed. The exit status is 1 if a contender failed or outputs differ.

  The last lines are for scripts, one for each contender but the first of its table:

    ratio CASE CONTENDER MEDIAN LOW HIGH

  CASE is the table's title and CONTENDER the contender's name, both in lower case and with hyphens for spaces and
  signs. MEDIAN, LOW and HIGH are the median and the quartiles, over the rounds, of the contender's time divided by the
  first contender's time in the same round: above 1 the first is faster.
"""


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmark", description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    modules = {name: importlib.import_module(f"experiments.benchmark.{name}") for name in BENCHMARKS}
    for name, summary in BENCHMARKS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=modules[name].__doc__,
            epilog=_OUTPUT,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all figures into this file too")
        command.add_argument(
            "--ready-within",
            type=float,
            default=READY_WITHIN,
            metavar="SECONDS",
            help="leave out contenders that take longer to start and compile (default %(default).0f)",
        )
        modules[name].add_arguments(command)
    options = parser.parse_args(arguments)
    if options.json is not None and not options.json.parent.is_dir():
        parser.error(f"--json {options.json}: {options.json.parent} is no folder")

    # Several contenders share a GPU: none may take all of its memory in advance.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    tune_gpu_compiler()  # for every process that is started from here
    report = Report("python -m experiments.benchmark " + shlex.join(arguments), options.json)
    try:
        with plain_errors("stopped"):
            modules[options.benchmark].run(options, report)
    finally:
        report.close()
    if report.failures:
        sys.exit("\n".join(["failed:", *report.failures]))


if __name__ == "__main__":
    main()
