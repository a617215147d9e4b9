"""Measures what preparing NTU RGB+D costs per clip, on one clip, and extrapolates it to the whole dataset.

    python -m experiments.prep_speed --skeleton S001C001P001R001A001.skeleton --video S001C001P001R001A001_rgb.avi \\
        [--yolo_weights yolo11n.pt] [--vqa_model DIR]

Prints a table. Single-threaded steps are measured in CPU time and run one process per core. YOLO and the question
answering model use the whole machine and are measured in wall-clock time, so nothing else should run. YOLO needs
`make setup-yolo`.
"""

import argparse
import contextlib
import io
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from data_prep import ntu
from data_prep.formats import ntu_clips, sources
from data_prep.images import detection, mosaics, yolo
from data_prep.text import vqa
from experiments import line_by_line
from experiments.markdown import markdown_table
from mmcl_jax.data import ntu_skeletons
from mmcl_jax.runtime.errors import PreparationError, plain_errors
from mmcl_jax.runtime.options import positive

NUM_CLIPS = sum(ntu_clips.NUM_CLIPS["ntu120_xsub"].values())
_GROUP = 8  # clips per call of a model


def rows(
    skeleton: pathlib.Path,
    video: pathlib.Path,
    weights: pathlib.Path | None = None,
    vqa_model: str | None = None,
    repeats: int = 20,
) -> Iterator[tuple[str, float, float, int]]:
    """Measures each step: its name, least and median seconds per clip, and the number of cores it uses.

    Raises: PreparationError, SourceFileError if a file cannot be used.
    """
    track = ntu.find_track(skeleton, num_persons=1)
    footage = mosaics.Footage(skeleton.stem, video, lambda: track)
    with tempfile.TemporaryDirectory() as scratch:
        folder = mosaics.ImageFolder(pathlib.Path(scratch))
        steps: dict[str, Callable[[], object]] = {
            "reading a `.skeleton` file line by line, as the published scripts do": lambda: line_by_line.read_bodies(
                skeleton
            ),
            "reading it with `mmcl_jax.data.ntu_skeletons`": lambda: ntu_skeletons.read(skeleton),
            "mosaic, persons by the skeleton": lambda: folder.write(footage.name, mosaics.by_skeleton(footage)),
            "checking a stored mosaic": lambda: folder.read(footage.name),
        }
        # In turn, so that other work on the machine affects all steps equally.
        seconds = np.array([[_seconds(step, time.process_time) for step in steps.values()] for _ in range(repeats)])
        for what, least, median in zip(steps, seconds.min(axis=0), np.median(seconds, axis=0), strict=True):
            yield what, least, median, 1
        picture = Image.open(io.BytesIO(folder.read(footage.name))).convert("RGB")
    groups = max(2, repeats // _GROUP)
    if weights is not None:
        detector = _FirstLook(yolo.Detector(yolo.Settings(weights)))
        seconds = _whole_machine(lambda: _by_yolo(video, detector), groups)
        yield f"mosaic, persons by YOLO ({weights.name})", *seconds
    if vqa_model is not None:
        model = vqa.load_model(vqa_model)

        def ask() -> None:
            model.answer(model.see(model.load([picture] * _GROUP)), vqa.QUESTIONS["holding"])

        yield f"one question about a mosaic ({pathlib.Path(vqa_model).name})", *_whole_machine(ask, groups)


def _whole_machine(step: Callable[[], object], repeats: int) -> tuple[float, float, int]:
    """Least and median seconds per clip of a warm step that processes a group on all cores; and the number of cores."""
    step()
    seconds = [_seconds(step, time.perf_counter) / _GROUP for _ in range(repeats)]
    return min(seconds), float(np.median(seconds)), sources.usable_cores()


class _FirstLook:
    """A detector that reports a person in every picture: with random weights the search would not end."""

    def __init__(self, detector: yolo.Detector):
        self._detector = detector

    def detect(self, pictures: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        found = self._detector.detect(pictures)
        whole = [np.array([[0, 0, picture.shape[1], picture.shape[0]]], np.float32) for picture in pictures]
        return [seen if len(seen[0]) else (box, np.ones(1)) for seen, box in zip(found, whole, strict=True)]


def _by_yolo(video: pathlib.Path, detector: _FirstLook) -> None:
    """Makes the mosaics of a group of clips."""
    group = [(video, 1)] * _GROUP
    (searches,) = detection.find_persons([group], detector, yolo.DEFAULT_BATCH_SIZE, sources.usable_cores())
    for search in searches:
        mosaics.assemble(search.moments())


def _seconds(step: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    step()
    return clock() - start


def markdown(measured: list[tuple[str, float, float, int]]) -> str:
    """The table, extrapolated to all of NTU RGB+D 120 on this machine."""
    cores = sources.usable_cores()
    columns = (
        "step",
        "ms per clip, least / median",
        "cores used",
        f"clips per second, {cores} cores",
        f"time for {NUM_CLIPS:,} clips",
    )
    rows = []
    for what, least, median, used in measured:
        rate = cores / used / median
        hours = NUM_CLIPS / rate / 3600
        whole = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
        rows.append((what, f"{1000 * least:.1f} / {1000 * median:.1f}", used, f"{rate:.2f}", whole))
    return markdown_table(columns, rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skeleton", type=pathlib.Path, required=True, help="a .skeleton file of NTU RGB+D")
    parser.add_argument("--video", type=pathlib.Path, required=True, help="the RGB video of the same clip")
    parser.add_argument("--yolo_weights", type=pathlib.Path, help="a .pt file of ultralytics")
    parser.add_argument("--vqa_model", help="a model folder, as data_prep.text_features takes it")
    parser.add_argument("--repeats", type=positive, default=20, help="repetitions of each step (default 20)")
    parsed = parser.parse_args(arguments)
    with plain_errors(), _named_errors():
        measured = rows(parsed.skeleton, parsed.video, parsed.yolo_weights, parsed.vqa_model, parsed.repeats)
        print(markdown(list(measured)))


@contextlib.contextmanager
def _named_errors() -> Iterator[None]:
    """Ends the command with a message if one of its two files cannot be used."""
    try:
        yield
    except (sources.SourceFileError, OSError) as error:
        raise PreparationError(f"{error}; --skeleton and --video must be files of the same clip") from error


if __name__ == "__main__":
    main()
