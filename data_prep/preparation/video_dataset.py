"""The steps of preparing a dataset that has RGB videos: mosaics of the persons, records, text features.

A command says what its files are with a function that returns `Contents`; `prepare` does the rest in the same order for
every dataset.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Sequence

from data_prep.formats import sources
from data_prep.images import mosaics
from data_prep.preparation import commands, image_request
from data_prep.text import text_sets
from mmcl_jax.data import records


@dataclasses.dataclass(frozen=True)
class Contents:
    """What the files of a source hold.

    Attributes:
      find_footage: takes the folder of the videos and returns the footage of the clips whose videos are in it.
      clips: the clips, and what is set aside, in the order of the records. Read lazily, after the mosaics are made.
      num_clips: the number of clips, for the progress bar.
      info: returns what is stored about the dataset; called after the mosaics are made.
      set_aside: files that are set aside without being read.
    """

    find_footage: Callable[[pathlib.Path], list[mosaics.Footage]]
    clips: Iterable[records.Clip | records.SetAside]
    num_clips: int
    info: Callable[[], records.DatasetInfo]
    set_aside: Sequence[records.SetAside] = ()


def prepare(
    source,
    suffix: str,
    read: Callable[[dict[str, pathlib.Path], mosaics.ImageFolder | None, int], Contents],
    out=None,
    request: image_request.Request = image_request.NO_IMAGES,
    *,
    text=None,
    overwrite: bool = False,
    workers: int | None = None,
) -> pathlib.Path | None:
    """Makes mosaics if there are videos, then the records folder `out`; for a shard, only the mosaics.

    Args:
      source: the archive or folder of the skeleton files.
      suffix: the end of the skeleton files' names.
      read: takes the files by name, the folder of the mosaics (None: no images) and the number of processes, and
        returns the contents.
      out: the records folder; not used with a shard.
      request: what to do about images.
      text: folder of text features to add to the records; None: none.
      overwrite: replace existing records after the new ones are complete.
      workers: number of processes; by default one per core.

    Returns: the path of the records; None for a shard.
    Raises: PreparationError, RecordsError.
    """
    workers = workers or sources.usable_cores()
    out = request.check(out, text, overwrite)
    with sources.open_source(source, suffix, request.scratch(out)) as (files, set_aside):
        contents = read(files, request.folder(out), workers)
        request.make(contents.find_footage, out, workers)
        if request.shard is not None:
            return None
        records.write_records(
            out,
            contents.info(),
            contents.clips,
            total=contents.num_clips,
            set_aside=[*set_aside, *contents.set_aside],
            overwrite=overwrite,
        )
    if text is not None:
        text_sets.join(out, text)
    return out


def argument_parser(description: str, **options) -> argparse.ArgumentParser:
    """A parser with the arguments that `parse` reads; `options` as for `commands.argument_parser`."""
    parser = commands.argument_parser(description, out_required=False, **options)
    image_request.add_arguments(parser)
    return parser


def parse(
    parser: argparse.ArgumentParser, arguments: list[str] | None
) -> tuple[argparse.Namespace, image_request.Request]:
    """The parsed arguments, and what they say about images; ends the command if they contradict each other."""
    parsed = parser.parse_args(arguments)
    return parsed, image_request.parse(parser, parsed)
