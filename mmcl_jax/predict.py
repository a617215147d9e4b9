"""Says what people do: python -m mmcl_jax.predict [--model=PATH ...] INPUT ... | --camera=0

    python -m mmcl_jax.predict VIDEO.mp4 --out=labelled.mp4
    python -m mmcl_jax.predict --model=workdir/nw_ucla_joint clip.npy records/ poses.json
    python -m mmcl_jax.predict --camera=0

An input is a video, a file or folder of poses, a clip (.npy, with the joints of the model), records, or a folder of
these. Each person in a video is followed, and windows of time are classified. Without --model, the model that comes
with the package is used; several models vote.
"""

import argparse
import contextlib
import csv
import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import numpy as np
from absl import logging

from mmcl_jax.poses.cleaning import choose_persons, fill_gaps
from mmcl_jax.poses.files import read_clips as read_clips_of_poses
from mmcl_jax.poses.types import UNITS, Poses, PosesError
from mmcl_jax.recognition.events import Event, best
from mmcl_jax.recognition.frames import USUAL_FRAME_RATE
from mmcl_jax.recognition.inputs import CLIP, POSES, RECORDS, VIDEO, Input, find_inputs, read_clips
from mmcl_jax.recognition.models import load_models
from mmcl_jax.recognition.page import COMMAND as PAGE_COMMAND
from mmcl_jax.recognition.page import write_page
from mmcl_jax.recognition.recognizer import Models, WindowOptions
from mmcl_jax.recognition.watch import collect_poses, recognize_poses, usual_estimator, watch_video
from mmcl_jax.runtime.backend import keep_compiled_programs, tune_compiler
from mmcl_jax.runtime.errors import MMCLError, plain_errors
from mmcl_jax.runtime.files import user_cache
from mmcl_jax.runtime.progress import progress_bar, say
from mmcl_jax.runtime.words import counted
from mmcl_jax.viewers import html_page

ENGINES = ("xla", "onnxruntime")
_CLIPS_AT_ONCE = 256


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command. It ends with status 1 if an input could not be classified; the others are done all the same."""
    options = _parser().parse_args(arguments)
    logging.set_verbosity(logging.WARNING)
    tune_compiler()
    keep_compiled_programs(_compiled_programs())
    with plain_errors("stopped"):
        failed = run(options)
    if failed:
        raise SystemExit(1)


def _compiled_programs() -> pathlib.Path:
    """Where compiled programs are kept, so that the next start is quick: as JAX is told, or in the user's cache."""
    told = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return pathlib.Path(told) if told else user_cache("compiled")


def run(options: argparse.Namespace) -> int:
    """Classifies every input and writes what was asked for; returns how many inputs failed. Raises: MMCLError."""
    windows = WindowOptions(options.window, options.stride, options.threshold, options.top, options.smooth)
    announces = not options.quiet  # on the standard error, so where results are on the standard output too
    _check(options)
    models = load_models(options.model or None, options.weights)
    if options.engine == "onnxruntime":
        from mmcl_jax.deploy.onnx_runtime import OnnxRuntimeModel

        models = models.replaced(OnnxRuntimeModel)
    for model in models.models if announces else ():
        model.announce = say
    if options.camera is not None:
        from mmcl_jax.recognition.live import watch_camera

        with contextlib.ExitStack() as stack:
            watch_camera(options, models, windows, [stack.enter_context(sink) for sink in _sinks(options)])
        if options.out:
            _say_written(options.out)
        return 0
    items, faults = find_inputs(options.inputs, models.models[0])
    if len(options.inputs) == 1 and faults:
        raise PosesError(faults[0])
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if items:
        _check_outputs(options, items)
    failed = len(faults)
    with contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(sink) for sink in _sinks(options)]
        for item in items:
            try:
                _classify(item, options, models, windows, sinks)
            except (MMCLError, OSError) as error:
                if len(items) + len(faults) == 1:
                    raise
                failed += 1
                print(f"error: {error}", file=sys.stderr)
    if failed:
        count = len(items) + len(faults)
        print(f"{failed} of {count} inputs could not be classified; the messages are above", file=sys.stderr)
    return failed


def _check(options: argparse.Namespace) -> None:
    """Raises PosesError for options that do not go together, before anything starts."""
    if (options.camera is None) == (not options.inputs):
        raise PosesError("give inputs or --camera=0, one of the two; for example python -m mmcl_jax.predict video.mp4")
    if options.camera is not None and options.html:
        raise PosesError("--html is a page about a video or poses, not about a camera; use --out")
    if options.fps is not None and not 0 < options.fps <= 1000:
        raise PosesError(f"--fps={options.fps:g}: expected frames a second, more than 0")
    for name in ("out", "html", "json", "csv"):
        path = getattr(options, name)
        if path is not None and str(path) != "-" and not path.parent.is_dir():
            raise PosesError(f"--{name}={path}: the folder {path.parent} does not exist")
    if options.out and options.out.suffix.lower() not in (".mp4", ".m4v", ".mov"):
        raise PosesError(f"--out={options.out}: expected a name that ends in .mp4")
    if options.html and options.html.exists():
        html_page.check_replaceable(options.html, PAGE_COMMAND)
    options.quiet = options.quiet or str(options.json) == "-" or str(options.csv) == "-"


def _check_outputs(options: argparse.Namespace, items: Sequence[Input]) -> None:
    """Raises PosesError where an output would overwrite an input, or one file would hold what several inputs give."""
    for name in ("out", "html", "json", "csv"):
        path = getattr(options, name)
        if path is None or str(path) == "-":
            continue
        if any(path.exists() and path.samefile(item.path) for item in items):
            raise PosesError(f"--{name}={path}: is an input, which it would overwrite; choose another name")
        if name in ("out", "html") and len(items) != 1:
            raise PosesError(f"--{name}={path}: holds one input, but there are {len(items)}; give one")
        if name == "out" and items[0].kind != VIDEO:
            raise PosesError(f"--out={path}: draws on a video, {items[0].path} is a {items[0].kind}")
        if name == "html" and items[0].kind not in (VIDEO, POSES):
            raise PosesError(f"--html={path}: shows a video or poses, {items[0].path} is a {items[0].kind}")


def _classify(
    item: Input, options: argparse.Namespace, models: Models, windows: WindowOptions, sinks: "Sequence[_Sink]"
) -> None:
    if item.kind in (CLIP, RECORDS):
        for event in _clip_events(item, models, windows):
            _emit(event, sinks, options)
        return
    if item.kind == POSES:
        for poses in _read_poses(item.path, options):
            _finish(
                poses, list(_each(recognize_poses(poses, models, windows), sinks, options)), options, models, windows
            )
        return
    events, poses = _watch(item.path, options, models, windows, sinks)
    _finish(poses, events, options, models, windows)


def _read_poses(path: pathlib.Path, options: argparse.Namespace) -> Iterator[Poses]:
    """The poses of each clip in a pose file. Raises: PosesError if one cannot be read, after the others."""
    faults = []
    count = 0
    for name, poses in read_clips_of_poses(
        path, options.layout, coordinates=options.coordinates, frame_rate=options.fps, size=options.size
    ):
        count += 1
        if isinstance(poses, PosesError):
            faults.append(f"{name}: {poses}")
        else:
            if poses.frame_rate is None:
                poses = poses.with_notes(f"no frame rate is stated, {USUAL_FRAME_RATE:g} is taken; --fps sets it")
            if count == 2 and options.html:
                raise PosesError(f"{path}: --html={options.html} holds one clip, but there are several in this file")
            only = name in (path.stem, path.name)
            cleaned = fill_gaps(choose_persons(poses, None))
            yield dataclasses.replace(cleaned, source=str(path) if only else f"{path}/{name}")
    if faults:
        raise PosesError(f"{path}: {len(faults)} of {counted(count, 'clip')} cannot be read: {'; '.join(faults[:5])}")


def _finish(
    poses: Poses, events: list[Event], options: argparse.Namespace, models: Models, windows: WindowOptions
) -> None:
    """Says what was noticed, and writes the labeled video and the page that were asked for."""
    for note in poses.notes:
        print(f"NOTE: {poses.source}: {note}", file=sys.stderr)
    if not events:
        print(f"{poses.source}: nobody is seen long enough to be classified", file=sys.stderr)
    threshold = models.threshold if windows.threshold is None else windows.threshold
    if options.out:
        from mmcl_jax.recognition.labelled_video import Labels, write_labelled

        labels = Labels(events, models.class_names, threshold)
        write_labelled(options.out, pathlib.Path(poses.source), _fps(options, models), poses, labels)
        _say_written(options.out)
    if options.html:
        write_page(options.html, poses, events, models.class_names, threshold)
        _say_written(options.html)


def _watch(
    path: pathlib.Path, options: argparse.Namespace, models: Models, windows: WindowOptions, sinks: "Sequence[_Sink]"
) -> tuple[list[Event], Poses]:
    """Events and poses of a video; prints the first label's time and the speed of each stage."""
    from mmcl_jax.poses.video import Video

    began, first = time.perf_counter(), None
    frames: list[Any] = []
    estimator = usual_estimator(options.pose_model)
    with Video(path, _fps(options, models)) as video:
        total = None if video.duration is None else round(video.duration * float(video.frame_rate))
        hidden = not sys.stderr.isatty()
        with progress_bar(total=total, unit="frame", desc=path.name, leave=False, disable=hidden) as bar:

            def see(frame, _events) -> None:
                frames.append(_without_picture(frame))
                bar.update()

            events = []
            for event in _each(watch_video(video, models, windows, estimator, see), sinks, options, bar):
                first = first or time.perf_counter() - began
                events.append(event)
        poses = collect_poses(frames, video, estimator.layout).with_notes(*video.notes)
    seconds = time.perf_counter() - began
    label = "no label" if first is None else f"first label after {first:.1f} s"
    print(
        f"{path}: {counted(len(frames), 'frame')} in {seconds:.1f} s ({len(frames) / seconds:.1f} frames/s), {label}; "
        f"{estimator.stages.summary()}",
        file=sys.stderr,
    )
    return events, poses


def _without_picture(frame: Any) -> Any:
    return dataclasses.replace(frame, picture=np.zeros((0, 0, 3), np.uint8))


def _fps(options: argparse.Namespace, models: Models) -> float | None:
    return options.fps or models.frame_rate or None


def _clip_events(item: Input, models: Models, windows: WindowOptions) -> Iterator[Event]:
    """One event for each clip, over its whole length."""
    threshold = models.threshold if windows.threshold is None else windows.threshold
    rate = models.frame_rate or 30.0
    batch: list[tuple[str, Any]] = []

    def classified() -> Iterator[Event]:
        names, clips = zip(*batch, strict=True)
        for (name, clip), values in zip(batch, models.probabilities([clips] * len(models.models), names), strict=True):
            yield Event(
                name, 0, 0.0, len(clip) / rate, True, best(values, models.class_names, windows.count, threshold), values
            )

    for named in read_clips(item, models.models[0]):
        batch.append(named)
        if len(batch) == _CLIPS_AT_ONCE:
            yield from classified()
            batch.clear()
    if batch:
        yield from classified()


def _each(
    events: Iterator[Event], sinks: "Sequence[_Sink]", options: argparse.Namespace, bar: Any = None
) -> Iterator[Event]:
    for event in events:
        _emit(event, sinks, options, bar)
        yield event


def _emit(event: Event, sinks: "Sequence[_Sink]", options: argparse.Namespace, bar: Any = None) -> None:
    for sink in sinks:
        sink.write(event)
    if options.quiet:
        return
    line = describe(event, options.top)
    if bar is not None:
        bar.write(line, file=sys.stdout)
        sys.stdout.flush()
    else:
        print(line, flush=True)


def describe(event: Event, count: int) -> str:
    """A line of the table on screen."""
    best_ones = ", ".join(
        f"{'unknown action' if action is None else action} {100 * probability:.1f} %"
        for action, probability in event.top[:count]
    )
    times = "whole" if event.whole else f"{event.start:.1f}-{event.end:.1f} s"
    return f"{event.input}  person {event.person}  {times:<12}  {best_ones}"


def _say_written(path: pathlib.Path) -> None:
    print(f"{path}: written", file=sys.stderr)


class _Sink:
    """A file that events are written to as they come; '-' is the standard output. A context manager."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "_Sink":
        if str(self._path) == "-":
            self._file: TextIO = sys.stdout
        else:
            self._file = self._stack.enter_context(self._path.open("w", encoding="utf-8", newline=""))
        self.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        self._stack.close()
        if kind is None and self._file is not sys.stdout:
            _say_written(self._path)

    def begin(self) -> None:
        """Writes what comes first."""

    def write(self, event: Event) -> None:
        """Writes one event."""
        raise NotImplementedError


class _Json(_Sink):
    def write(self, event: Event) -> None:
        self._file.write(json.dumps(event.to_json(), ensure_ascii=False) + "\n")
        self._file.flush()


class _Csv(_Sink):
    def begin(self) -> None:
        self._rows = csv.writer(self._file)
        self._rows.writerow(["input", "person", "start", "end", "whole", "rank", "action", "probability"])

    def write(self, event: Event) -> None:
        stored = event.to_json()
        head = [stored[name] for name in ("input", "person", "start", "end", "whole")]
        for rank, (action, probability) in enumerate(stored["top"], start=1):
            self._rows.writerow([*head, rank, "" if action is None else action, probability])
        self._file.flush()


def _sinks(options: argparse.Namespace) -> list[_Sink]:
    return [kind(path) for kind, path in ((_Json, options.json), (_Csv, options.csv)) if path is not None]


def _weights(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers with commas, as 0.6,0.4") from error


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected width and height in pixels, as 1920x1080")
    return int(width), int(height)


def _parser() -> argparse.ArgumentParser:
    module = sys.argv[0].endswith(".py")  # else the console script
    parser = argparse.ArgumentParser(
        prog="python -m mmcl_jax.predict" if module else None,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "inputs", nargs="*", type=pathlib.Path, metavar="INPUT", help="video, poses, clip, records, folder"
    )
    parser.add_argument("--camera", metavar="N", help="a camera's number, device or URL, or a video that plays as one")
    parser.add_argument(
        "--model", action="append", metavar="PATH", help="what mmcl_jax.load_model takes; repeat to vote"
    )
    parser.add_argument("--weights", type=_weights, metavar="W,W", help="of the models' votes; default: equal")
    parser.add_argument(
        "--engine", choices=ENGINES, default=ENGINES[0], help="what computes the models; onnxruntime needs '[onnx]'"
    )
    parser.add_argument("--window", type=float, metavar="S", help="seconds that a model sees at once")
    parser.add_argument(
        "--stride", type=float, metavar="S", help="seconds between windows; default: a third of a window"
    )
    parser.add_argument("--smooth", action="store_true", help="smooth the joints with the One Euro filter")
    parser.add_argument(
        "--threshold", type=float, metavar="P", help="less probable is unknown; default: the model's own"
    )
    parser.add_argument("--top", type=int, default=3, metavar="N", help="actions shown; default: 3")
    parser.add_argument("--fps", type=float, metavar="N", help="frames a second to look at; default: the model's own")
    parser.add_argument(
        "--pose_model", default="full", metavar="NAME", help="lite, full, heavy or a file; default: full"
    )
    parser.add_argument("--layout", metavar="NAME", help="joints of the pose files; default: recognized")
    parser.add_argument("--coordinates", choices=UNITS, help="of the pose files; default: recognized")
    parser.add_argument("--size", type=_size, metavar="WxH", help="of the pose files' picture, pixels")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write an object a line; - for the screen")
    parser.add_argument("--csv", type=pathlib.Path, metavar="FILE", help="write a table")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE.mp4", help="write a labeled video")
    parser.add_argument("--html", type=pathlib.Path, metavar="FILE.html", help="write a page: skeletons and a timeline")
    parser.add_argument("--quiet", action="store_true", help="print no table, and not that a model is compiled")
    return parser


if __name__ == "__main__":
    main()
