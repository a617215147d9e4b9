"""The command: python -m tests.fuzz --seed=1 --inputs=5000 [--readers=pyskl_2d,scores] [--processes=2] [--keep=DIR]."""

import argparse
import pathlib
import sys
import tempfile

from mmcl_jax.runtime.progress import progress_bar
from tests.fuzz import campaign, readers
from tests.fuzz.mutations import Step


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inputs", type=int, default=5000)
    parser.add_argument("--readers", default=",".join(readers.READERS), help="separated by commas (default: all)")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for failing inputs, made small")
    parser.add_argument("--one", help="only this input, as the report writes it: 'READER MUTATION:SEED, ...'")
    options = parser.parse_args()
    names = [name for name in options.readers.split(",") if name]
    unknown = [name for name in names if name not in readers.READERS]
    if unknown:
        parser.error(f"{unknown[0]!r} is not one of {', '.join(readers.READERS)}")
    with tempfile.TemporaryDirectory(prefix="mmcl_fuzz_") as folder:
        if options.one:
            _one(options.one)
            return
        sys.exit(_campaign(options, names, pathlib.Path(folder)))


def _campaign(options: argparse.Namespace, names: list[str], folder: pathlib.Path) -> int:
    report, failed = campaign.Report(), []
    judged = campaign.run(options.seed, options.inputs, names, folder / "sound", options.processes)
    bar = progress_bar(judged, total=options.inputs, unit="input")
    for drawn, verdict in bar:
        report.add(drawn, verdict)
        if verdict.is_bad:
            failed.append((drawn, verdict))
            bar.write(f"{verdict.kind}: {drawn}\n  " + verdict.detail.strip().replace("\n", "\n  "))
    print("\n".join(report.lines()))
    for number, (drawn, verdict) in enumerate(failed) if options.keep else ():
        made = folder / f"failed_{number}"
        made.mkdir()
        tree, small = campaign.shrink(drawn, verdict, readers.sound_tree(drawn.reader, made))
        last = small.detail.strip().splitlines()[-1:]
        path = campaign.keep(options.keep, drawn.reader, f"{small.kind}: {' '.join(last)[:200]}", tree)
        print(f"{path}: {drawn}")
    print(f"seed {options.seed}: {len(failed)} of {options.inputs:,} inputs failed")
    return 1 if failed else 0


def _one(text: str) -> None:
    name, _, steps = text.partition(" ")
    parsed = [Step(step.split(":")[0].strip(), int(step.split(":")[1])) for step in steps.split(",")]
    ((_, verdict),) = [(None, found) for found in campaign.judge_all([(name, parsed, None)], 1)]
    print(f"{verdict.kind}: {verdict.detail}")


if __name__ == "__main__":
    main()
