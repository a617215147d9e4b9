"""What a command is asked to do about images: the arguments that all datasets with RGB videos share."""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Iterable

from data_prep.formats import sources
from data_prep.images import mosaics, yolo
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.runtime.options import positive


@dataclasses.dataclass(frozen=True)
class Request:
    """What a command is asked to do about images.

    Attributes:
      videos: folder of the videos to make mosaics of; None: none are made.
      images: work folder of the mosaics; None: beside the records.
      shard: (i, n), the share of the mosaics to make, and no records; None: all, and records.
      detector: what finds the persons; None: the skeletons.
    """

    videos: pathlib.Path | None = None
    images: pathlib.Path | None = None
    shard: tuple[int, int] | None = None
    detector: yolo.Settings | None = None

    def check(self, out, text, overwrite: bool) -> pathlib.Path | None:
        """The path of the records to write, None with a shard, if `text`, a folder of text features, can be joined too.

        Raises: PreparationError where one of the two is not as it must be: before anything is done in vain.
        """
        if text is not None and not pathlib.Path(text).is_dir():
            raise PreparationError(f"{text}: no such folder; --text names the --out of data_prep.text_features")
        return records.check_destination(out, overwrite) if self.shard is None else None

    def folder(self, out: pathlib.Path | None) -> mosaics.ImageFolder | None:
        """The work folder, for records in `out` (not used with a shard); None where there are to be no images."""
        if self.images is not None:
            return mosaics.ImageFolder(self.images.resolve())
        return mosaics.ImageFolder(out.with_name(out.name + ".images")) if self.videos else None

    def scratch(self, out: pathlib.Path | None) -> pathlib.Path:
        """A folder into which this process may unpack an archive, beside what it writes."""
        if self.shard is None:
            return out.with_name(out.name + ".unpacked")
        images = self.images.resolve()
        return images.with_name(f"{images.name}.unpacked{self.shard[0]}")

    def make(
        self, find_footage: Callable[[pathlib.Path], Iterable[mosaics.Footage]], out: pathlib.Path | None, workers: int
    ) -> None:
        """Makes what the work folder lacks, if there are videos to find in their folder. Raises: PreparationError."""
        folder = self.folder(out)
        if self.videos is not None:
            found = sorted(find_footage(self.videos), key=lambda footage: footage.name)
            mosaics.make(found, folder, shard=self.shard or (0, 1), detector=self.detector, workers=workers)
        elif folder is not None and not folder.path.is_dir():
            raise PreparationError(f"{folder.path}: no such folder; give --images the folder of the mosaics")


NO_IMAGES = Request()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `parse` reads, and `--text`."""
    group = parser.add_argument_group("images and text")
    group.add_argument("--videos", type=pathlib.Path, help="the folder of the RGB videos, of which mosaics are made")
    group.add_argument(
        "--images", type=pathlib.Path, help="the work folder of the mosaics, a JPEG a clip (default OUT.images)"
    )
    group.add_argument("--text", help="a folder of text features (--out of data_prep.text_features) to add")
    group.add_argument("--shard", type=sources.shard, help="i/n: only the i-th (from 0) of n shares of the mosaics")
    group.add_argument(
        "--boxes", choices=("skeleton", "yolo"), default="skeleton", help="what finds the persons (default skeleton)"
    )
    group.add_argument(
        "--yolo_weights",
        type=pathlib.Path,
        help="for --boxes yolo: a .pt file of ultralytics. It is loaded without running code in it; even so, take it "
        "from somewhere you trust",
    )
    group.add_argument(
        "--yolo_confidence", type=_fraction, help=f"of a person, at least (default {yolo.DEFAULT_CONFIDENCE})"
    )
    group.add_argument("--yolo_person", help=f"name of the class of persons in the weights (default {yolo.PERSON})")
    group.add_argument("--yolo_batch", type=positive, help=f"frames at a time (default {yolo.DEFAULT_BATCH_SIZE})")


def parse(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> Request:
    """What the arguments ask for; ends the command where they do not go together."""
    options = {
        "weights": parsed.yolo_weights,
        "confidence": parsed.yolo_confidence,
        "person_class": parsed.yolo_person,
        "batch_size": parsed.yolo_batch,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if parsed.boxes == "skeleton" and given:
        parser.error("--yolo_weights and the other options of YOLO need --boxes yolo")
    if parsed.boxes == "yolo" and not (parsed.videos and parsed.yolo_weights):
        parser.error("--boxes yolo looks at videos with given weights: it needs --videos and --yolo_weights")
    if parsed.shard and not (parsed.videos and parsed.images):
        parser.error("--shard makes mosaics: it needs --videos and --images")
    if not parsed.shard and not parsed.out:
        parser.error("--out is needed (or --shard, for mosaics alone)")
    detector = yolo.Settings(**given) if parsed.boxes == "yolo" else None
    return Request(parsed.videos, parsed.images, parsed.shard, detector)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to less than 1")
    return value
