"""What exporting a model changes: python -m experiments.exported MODEL --records=DIR [--formats onnx-float32 ...].

Each format classifies the test clips of the records, in batches, and is compared with `TrainedModel.predict`: top-1,
the largest difference of a probability, the size of the file. Then all formats classify single clips by turns, A B A B;
the times are medians, and a ratio is taken within a turn, where all met the same machine. Prints a Markdown table.
"""

import argparse
import functools
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from experiments.markdown import markdown_table
from mmcl_jax.data.records import Records, RecordsError
from mmcl_jax.deploy import onnx_model, stablehlo
from mmcl_jax.deploy.exported import load_exported
from mmcl_jax.runtime.errors import plain_errors
from mmcl_jax.runtime.options import positive
from mmcl_jax.trained_model import TrainedModel, load_model

FORMATS = ("stablehlo", *(f"onnx-{dtype}" for dtype in onnx_model.DTYPES))
Classify = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Takes raw clips `[N, T, M, V, C]` and their numbers of frames; returns probabilities `[N, K]`."""


def main() -> None:
    options = _parser().parse_args()
    with plain_errors():
        model = load_model(options.model)
        with tempfile.TemporaryDirectory() as folder:
            print(compare(model, Records(options.records), options, pathlib.Path(folder)))


def compare(model: TrainedModel, records: Records, options: argparse.Namespace, folder: pathlib.Path) -> str:
    """The table of all formats; their files are written into `folder`. Raises: RecordsError for clips of others."""
    protocol, info = model.description.protocol, records.info
    if (info.layout, info.channels) != (model.description.info.layout, model.channels):
        raise RecordsError(
            f"{records.root}: joints of {info.layout} with {', '.join(info.channels)}; the model takes "
            f"{model.description.info.layout} with {', '.join(model.channels)}"
        )
    rows = [int(row) for row in records.select(protocol, "test")][: options.clips]
    clips = [records.skeleton(row).transpose(1, 0, 2, 3) for row in rows]
    labels = _labels(model, records, rows)
    padded, frames = _pad(clips, model.description.bodies)
    expected = np.stack([prediction.probabilities for prediction in model.predict(clips)])
    programs: dict[str, Callable[[int], object]] = {"predict": lambda clip: model.predict(clips[clip])}
    cells = {"predict": ["", _percent(expected, labels), ""]}
    for name in options.formats:
        print(f"{name}: exporting it and classifying {len(clips)} clips", file=sys.stderr, flush=True)
        classify, size = _export(model, name, folder / name)
        found = np.concatenate(
            [classify(padded[begin : begin + 32], frames[begin : begin + 32]) for begin in range(0, len(padded), 32)]
        )
        cells[name] = [f"{size / 1e6:.2f} MB", _percent(found, labels), f"{np.abs(found - expected).max():.1e}"]
        programs[name] = functools.partial(_one, classify, padded, frames)
    print(f"single clips, {options.turns} turns", file=sys.stderr, flush=True)
    seconds = _by_turns(programs, options.turns, len(clips))
    for name, times in seconds.items():
        ratio = np.percentile(times / seconds["predict"], (50, 25, 75))
        cells[name] += [f"{1e3 * np.median(times):.1f} ms", "{:.2f} ({:.2f}-{:.2f})".format(*ratio)]
    header = ("format", "file", f"top-1 of {len(clips)} clips", "largest difference", "one clip", "ratio to predict")
    return markdown_table(header, [(name, *row) for name, row in cells.items()])


def _export(model: TrainedModel, name: str, out: pathlib.Path) -> tuple[Classify, int]:
    """Writes a format; returns what classifies with it, and the size of the file in bytes."""
    if name == "stablehlo":
        stablehlo.export_stablehlo(model, out)
        return load_exported(out).probabilities, (out / "model.stablehlo").stat().st_size
    onnx_model.export_onnx(model, out, dtype=name.removeprefix("onnx-"))
    import onnxruntime

    file = out / "model.onnx"
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda skeleton, frames: session.run(None, {"skeleton": skeleton, "frames": frames})[0], file.stat().st_size


def _labels(model: TrainedModel, records: Records, rows: list[int]) -> np.ndarray:
    """The model's labels of some clips, whose classes are matched by name; -1 for a class that it does not know."""
    names, known = records.class_names(model.description.protocol), model.class_names
    numbers = np.array([known.index(name) if name in known else -1 for name in names])
    return numbers[records.index["label"][rows]]


def _pad(clips: list[np.ndarray], bodies: int) -> tuple[np.ndarray, np.ndarray]:
    """Clips as one array `[N, T, M, V, C]`, and their numbers of frames."""
    frames = np.array([len(clip) for clip in clips], np.int32)
    padded = np.zeros((len(clips), frames.max(), bodies, *clips[0].shape[2:]), np.float32)
    for row, clip in zip(padded, clips, strict=True):
        row[: len(clip), : clip.shape[1]] = clip[:, :bodies]
    return padded, frames


def _one(classify: Classify, padded: np.ndarray, frames: np.ndarray, clip: int) -> object:
    return classify(padded[clip : clip + 1], frames[clip : clip + 1])


def _by_turns(programs: dict[str, Callable[[int], object]], turns: int, clips: int) -> dict[str, np.ndarray]:
    """Seconds of each program on one clip after the other, `[turns]`."""
    for program in programs.values():
        program(0)  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(turns):
        for name, program in programs.items():
            begin = time.perf_counter()
            program(turn % clips)
            seconds[name].append(time.perf_counter() - begin)
    return {name: np.array(times) for name, times in seconds.items()}


def _percent(probabilities: np.ndarray, labels: np.ndarray) -> str:
    return f"{100 * np.mean(probabilities.argmax(axis=1) == labels):.2f} %"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="workdir of a run or an import, or a bundle")
    parser.add_argument("--records", required=True, help="records whose test clips, by the model's protocol, are used")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), help="default: all")
    parser.add_argument("--clips", type=positive, default=1 << 30, help="at most so many; default: all")
    parser.add_argument("--turns", type=positive, default=50, help="default %(default)s")
    return parser


if __name__ == "__main__":
    main()
