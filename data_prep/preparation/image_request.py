"""The arguments about images that all datasets with RGB videos share, and what they ask for."""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Iterable

from data_prep.images import mosaics, yolo
from data_prep.preparation import commands
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.runtime.options import positive


@dataclasses.dataclass(frozen=True)
class Request:
    """What a command does about images.

    Attributes:
      videos: folder of the videos to make mosaics from; None: none are made.
      images: work folder of the mosaics; None: beside the records.
      shard: (i, n), makes only the i-th of n shares of the mosaics, and no records; None: all mosaics, and records.
      detector: settings of the detector that finds the persons; None: the skeletons locate them.
    """

    videos: pathlib.Path | None = None
    images: pathlib.Path | None = None
    shard: tuple[int, int] | None = None
    detector: yolo.Settings | None = None

    def check(self, out, text, overwrite: bool) -> pathlib.Path | None:
        """Checks `out` and `text` before any work is done. Returns the path of the records to write; None with a shard.

        Raises: PreparationError if the folder of text features is missing, or the records may not be written to `out`.
        """
        if text is not None and not pathlib.Path(text).is_dir():
            raise PreparationError(
                f"{text}: no such folder; --text must name the --out folder of data_prep.text_features"
            )
        return records.check_destination(out, overwrite) if self.shard is None else None

    def folder(self, out: pathlib.Path | None) -> mosaics.ImageFolder | None:
        """The work folder for records in `out` (not used with a shard); None without images."""
        if self.images is not None:
            return mosaics.ImageFolder(self.images.resolve())
        return mosaics.ImageFolder(out.with_name(out.name + ".images")) if self.videos else None

    def scratch(self, out: pathlib.Path | None) -> pathlib.Path:
        """A folder into which this process may unpack an archive, beside its output."""
        if self.shard is None:
            return out.with_name(out.name + ".unpacked")
        images = self.images.resolve()
        return images.with_name(f"{images.name}.unpacked{self.shard[0]}")

    def make(
        self, find_footage: Callable[[pathlib.Path], Iterable[mosaics.Footage]], out: pathlib.Path | None, workers: int
    ) -> None:
        """Makes the mosaics that the work folder lacks, if there are videos. Raises: PreparationError."""
        folder = self.folder(out)
        if self.videos is not None:
            found = sorted(find_footage(self.videos), key=lambda footage: footage.name)
            mosaics.make(found, folder, shard=self.shard or (0, 1), detector=self.detector, workers=workers)
        elif folder is not None and not folder.path.is_dir():
            raise PreparationError(f"{folder.path}: no such folder; set --images to the folder of the mosaics")


NO_IMAGES = Request()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that `parse` reads, and `--text`."""
    group = parser.add_argument_group("images and text")
    group.add_argument("--videos", type=pathlib.Path, help="the folder of the RGB videos to make mosaics from")
    group.add_argument(
        "--images", type=pathlib.Path, help="the work folder of the mosaics, one JPEG per clip (default OUT.images)"
    )
    group.add_argument("--text", help="a folder of text features to add (the --out of data_prep.text_features)")
    group.add_argument(
        "--shard", type=commands.shard, help="i/n: make only the i-th (from 0) of n shares of the mosaics"
    )
    group.add_argument(
        "--boxes", choices=("skeleton", "yolo"), default="skeleton", help="what finds the persons (default skeleton)"
    )
    group.add_argument(
        "--yolo_weights",
        type=pathlib.Path,
        help="for --boxes yolo: a .pt file of ultralytics. Code in it is not run; still, get it "
        "from a source that you trust",
    )
    group.add_argument(
        "--yolo_confidence", type=_fraction, help=f"least confidence of a person (default {yolo.DEFAULT_CONFIDENCE})"
    )
    group.add_argument("--yolo_person", help=f"name of the person class in the weights (default {yolo.PERSON})")
    group.add_argument("--yolo_batch", type=positive, help=f"frames per batch (default {yolo.DEFAULT_BATCH_SIZE})")


def parse(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> Request:
    """The request of the parsed arguments; ends the command if they contradict each other."""
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
        parser.error("--boxes yolo runs a detector on videos: it needs --videos and --yolo_weights")
    if parsed.shard and not (parsed.videos and parsed.images):
        parser.error("--shard makes mosaics: it needs --videos and --images")
    if not parsed.shard and not parsed.out:
        parser.error("--out is needed (or --shard, to make only mosaics)")
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
