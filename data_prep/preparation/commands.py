"""Shared by every command that prepares a dataset: arguments, class names, and the clip counts printed at the end."""

import argparse
import pathlib

from mmcl_jax.data.records import Records, name_fault
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.runtime.files import read_text


def argument_parser(
    description: str,
    *,
    option: str = "--source",
    source: str | None = "the archive as distributed, or the folder it unpacks to",
    out_required: bool = True,
    **source_options,
) -> argparse.ArgumentParser:
    """A parser with the option that names the source data, `--out` and `--overwrite`.

    Args:
      description: for `--help`; the module's docstring.
      option: the name of the option for the source data.
      source: help text of that option; None: the command reads no source data.
      out_required: whether the command always needs `--out`.
      source_options: further keywords of `add_argument` for the source option.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if source is not None:
        parser.add_argument(option, required=True, help=source, **source_options)
    parser.add_argument("--out", required=out_required, help="the records folder to create")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the records in --out after the new ones are complete"
    )
    return parser


def shard(text: str) -> tuple[int, int]:
    """The type of a `--shard i/n` argument: (i, n), with i counted from 0. Raises: ArgumentTypeError."""
    number, _, shards = text.partition("/")
    if not (number.isdecimal() and shards.isdecimal() and int(number) < int(shards)):
        raise argparse.ArgumentTypeError(f"{text!r} is not i/n with i from 0 to n - 1, as 0/8 to 7/8")
    return int(number), int(shards)


def read_class_names(path: pathlib.Path) -> tuple[str, ...]:
    """Reads class names, one per line. Raises: PreparationError if there are none."""
    try:
        names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    except (OSError, ValueError) as error:
        raise PreparationError(f"{path}: not a readable list of class names ({error})") from error
    if not names:
        raise PreparationError(f"{path}: empty; expected one class name per line, in the order of the labels")
    odd = next((name for name in names if name_fault(name)), None)
    if odd is not None:
        raise PreparationError(f"{path}: {odd[:40]!r}: {name_fault(odd)}; expected text, one class name per line")
    return names


def print_counts(out, protocol: str, expected: dict[str, int] | None = None) -> None:
    """Prints how many clips of the records `out` train and test under `protocol`, and notes a difference to `expected`.

    Args:
      out: the records folder.
      protocol: a protocol of these records.
      expected: clips of the complete dataset, by 'train' and 'test'; None: unknown.

    Raises: RecordsError.
    """
    opened = Records(out)
    train, test = opened.protocol(protocol).masks(opened.index)
    counts = {"train": int(train.sum()), "test": int(test.sum())}
    line = f"{protocol}: {counts['train']:,} training and {counts['test']:,} test clips"
    if expected is not None and counts != expected:
        line += f"; NOTE: the complete dataset has {expected['train']:,} and {expected['test']:,}"
    elif 0 in counts.values():
        empty = " and no ".join(part for part, count in counts.items() if not count)
        line += f"; NOTE: no {empty} clip, so nothing can be trained and tested with this protocol"
    print(line)
