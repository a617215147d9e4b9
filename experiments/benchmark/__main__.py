"""The command: python -m experiments.benchmark {infer,train,streams,data,scale} [--json FILE] [--help]."""

import argparse
import importlib
import os
import pathlib
import shlex
import sys

from experiments.benchmark.report import Report
from mmcl_jax.runtime.errors import plain_errors

# In this order in --help. Each is a module here with `add_arguments(parser)` and `run(options, report)`, importable
# with nothing but jax, flax, optax, orbax, numpy and torch.
BENCHMARKS: dict[str, str] = {
    "infer": "the skeleton model alone, against PyTorch and ONNX Runtime",
    "train": "training steps of CTR-GCN and MMCL, against PyTorch",
    "streams": "training several streams: one after another, or in one program",
    "data": "reading batches: clips per second and memory, beside a feeder that holds everything",
    "scale": "one device, several, two processes: clips per second of the same global batch",
}


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmark", description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    modules = {name: importlib.import_module(f"experiments.benchmark.{name}") for name in BENCHMARKS}
    for name, summary in BENCHMARKS.items():
        command = commands.add_parser(
            name, help=summary, description=modules[name].__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all figures into this file too")
        modules[name].add_arguments(command)
    options = parser.parse_args(arguments)
    if options.json is not None and not options.json.parent.is_dir():
        parser.error(f"--json {options.json}: {options.json.parent} is no folder")

    # Several contenders share a GPU: none may take all of its memory in advance.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    report = Report("python -m experiments.benchmark " + shlex.join(arguments))
    with plain_errors("interrupted"):
        modules[options.benchmark].run(options, report)
        if options.json is not None:
            report.write(options.json)


if __name__ == "__main__":
    main()
