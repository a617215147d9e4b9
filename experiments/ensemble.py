"""Fuses the scores of several streams as a weighted sum per clip, and prints the accuracy of each and of all.

    python -m experiments.ensemble SCORES SCORES [...] [--weights=nw_ucla] [--normalise] [--out=FILE.npz]
    python -m experiments.ensemble SCORES SCORES [...] --fit VALIDATION VALIDATION [...]

SCORES is the `scores_test.npz` of an evaluation, a workdir (its `scores_test.npz`), or a pickle of the released PyTorch
code (`epoch1_test_score.pkl`). Pickles have no labels; the labels come, by clip name, from an .npz among the files.
Pickles are read as plain data; no code in them is run.

Weights: `equal`; as many numbers as files, such as `0.6,0.6,0.4,0.4`; or published ones:

    ntu120_xsub   joint, bone, joint motion, bone motion, joint and bone from HD-Graph: the six of MMCL, in this order
    nw_ucla       joint, bone, joint motion, bone motion: those of CTR-GCN

`--fit` fits the weights on the simplex instead, on scores of other clips: one file per stream, in the same order (for a
workdir, its `scores_validation.npz`). Clips that are also test clips are refused; `--fit_on_test` accepts them, and the
result says so. (The origin of the published weights is unknown; they look as if they had been fitted.)
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments import scores
from experiments.markdown import markdown_table
from experiments.scores import Scores, ScoresError
from mmcl_jax.metrics import classification_metrics, cross_entropies
from mmcl_jax.runtime.errors import plain_errors

_STREAMS = ("joint", "bone", "joint_motion", "bone_motion")
_FIT_METHODS = ("coordinate", "gradient")
_STEPS = (0.25, 0.1, 0.05, 0.02, 0.01)  # of the coordinate search: the weight moved from one stream to another


@dataclasses.dataclass(frozen=True)
class Preset:
    """Published weights: the streams in order, the weights, their source, and the dataset and protocol they are for."""

    streams: tuple[str, ...]
    weights: tuple[float, ...]
    source: str
    dataset: str
    protocol: str


PRESETS = {
    "ntu120_xsub": Preset(
        (*_STREAMS, "hd_joint", "hd_bone"),
        (2.3617, 4.3540, 3.6038, 1.0158, 3.0575, 5.0),
        "MMCL's released code for NTU RGB+D 120 X-Sub",
        "ntu",
        "ntu120_xsub",
    ),
    "nw_ucla": Preset(_STREAMS, (0.6, 0.6, 0.4, 0.4), "CTR-GCN's for NW-UCLA", "nw_ucla", "xview"),
}


@dataclasses.dataclass(frozen=True)
class Weights:
    """One weight per stream, and their source in words."""

    values: np.ndarray
    source: str


def fuse(streams: Sequence[np.ndarray], weights: Sequence[float], normalise: bool = False) -> np.ndarray:
    """The weighted sum of the streams' scores, `[N, K]` each.

    With `normalise`, as in HD-GCN, the scores of each clip are first scaled to length 1, so that a stream with larger
    logits does not count more.
    """
    return sum(weight * stream for weight, stream in zip(weights, map(_scaler(normalise), streams), strict=True))


def read_weights(text: str, files: Sequence[Scores]) -> Weights:
    """The weights that `text` gives: 'equal', a preset or numbers. Raises: ScoresError if they do not fit the files."""
    if text == "equal":
        return Weights(np.ones(len(files)), "equal")
    if text in PRESETS:
        preset = PRESETS[text]
        if len(files) != len(preset.streams):
            raise ScoresError(
                f"--weights={text}: {len(preset.streams)} streams ({', '.join(preset.streams)}), but {len(files)} files"
            )
        for file, stream in zip(files, preset.streams, strict=True):
            if file.stream not in (None, stream):
                raise ScoresError(
                    f"{file.path}: scores of the stream {file.stream}, but --weights={text} has {stream} here; give "
                    f"the files in the order {', '.join(preset.streams)}"
                )
        return Weights(np.array(preset.weights), f"{text}: {preset.source}")
    try:
        values = np.array([float(value) for value in text.split(",")])
    except ValueError as error:
        raise ScoresError(
            f"--weights={text}: expected equal, {', '.join(PRESETS)}, or comma-separated numbers ({error})"
        ) from error
    if len(values) != len(files):
        raise ScoresError(f"--weights={text}: {len(values)} weights, but {len(files)} files")
    if not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise ScoresError(f"--weights={text}: expected finite, nonnegative numbers, at least one of them positive")
    return Weights(values, "given")


def fit_weights(files: Sequence[Scores], method: str, normalise: bool = False) -> np.ndarray:
    """Fits weights on the simplex to the labels of `files`, the result of `read_together`. float64 `[streams]`.

    'coordinate' starts from equal weights and moves weight from one stream to another, in ever smaller steps, as long
    as this classifies more clips correctly (or as many, with a lower cross entropy). 'gradient' minimizes the cross
    entropy of the weighted sum, with free scale, by L-BFGS; this is a convex problem. Both are deterministic.
    """
    streams = np.stack(list(map(_scaler(normalise), (file.scores for file in files))))
    search = {"coordinate": _coordinate_search, "gradient": _least_cross_entropy}[method]
    return search(streams, files[0].labels)


def fit(files: Sequence[Scores], paths: Sequence[str], method: str, normalise: bool, on_test: bool) -> Weights:
    """Fits weights for `files` on the score files `paths`.

    Raises: ScoresError if these cannot be read, do not match `files` one to one, or contain clips of `files`. With
    `on_test` such clips are accepted, and the source of the weights says so.
    """
    if len(paths) != len(files):
        raise ScoresError(
            f"--fit: {len(paths)} files, but {len(files)} streams; give one file per stream, in the same order"
        )
    others = scores.read_together(paths, part="validation")
    for file, other in zip(files, others, strict=True):
        if other.stream and file.stream and other.stream != file.stream:
            raise ScoresError(
                f"{other.path}: scores of the stream {other.stream}, but {file.path} has those of {file.stream}"
            )
    if others[0].class_names != files[0].class_names or others[0].scores.shape[1] != files[0].scores.shape[1]:
        raise ScoresError(f"{others[0].path}: has other classes than {files[0].path}")
    shared = sorted(set(others[0].names.tolist()) & set(files[0].names.tolist()))
    if shared and not on_test:
        raise ScoresError(
            f"{others[0].path}: {len(shared)} of its {len(others[0].names)} clips are test clips of {files[0].path}, "
            f"among them {shared[0]}. Weights fitted on test scores invalidate the test; fit on a validation split "
            "(--config.data.validation_subjects), or pass --fit_on_test to do it nevertheless"
        )
    values = fit_weights(others, method, normalise)
    where = f"fitted by {method} search on {len(others[0].names)} other clips"
    if shared:
        where = f"FITTED ON {len(shared)} TEST CLIPS by {method} search: too good, not a result"
    return Weights(values, where)


def summary(files: Sequence[Scores], weights: Weights, normalise: bool) -> tuple[str, Scores]:
    """A Markdown table of each stream and of the ensemble, and the fused scores.

    Raises: ScoresError if the fused scores exceed float32, in which they are stored.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        fused = fuse([file.scores for file in files], weights.values, normalise)
        held = np.isfinite(fused.astype(np.float32)).all()
    if not held:
        raise ScoresError(
            f"weights {weights.values.tolist()}: too large for these scores; only their ratios matter, "
            "so choose smaller ones"
        )
    shares = weights.values / weights.values.sum()
    rows = [
        (file.stream or file.path.stem, file.path, f"{weight:.4g}", f"{share:.3f}", *accuracies(file.scores, file))
        for file, weight, share in zip(files, weights.values, shares, strict=True)
    ]
    label = "ensemble" + (" (fitted on test clips)" if weights.source.startswith("FITTED ON") else "")
    rows.append((label, "", f"{weights.values.sum():.4g}", "1.000", *accuracies(fused, files[0])))
    columns = ("stream", "scores", "weight", "share", "top-1 %", "top-5 %", "mean class %")
    scaling = "scores of each clip normalized (L2)" if normalise else "logits not normalized"
    text = f"{markdown_table(columns, rows)}\n\n{len(files[0].names)} clips; weights {weights.source}; {scaling}."
    return text, dataclasses.replace(files[0], path=pathlib.Path(), scores=fused, step=None, stream=None)


def accuracies(values: np.ndarray, file: Scores) -> list[str]:
    """Top-1, top-5 and mean class accuracy, in percent, of scores `[N, K]` of the clips of `file`."""
    metrics = classification_metrics(values, file.labels)
    return [f"{100 * value:.2f}" for value in (metrics.top1, metrics.top5, metrics.mean_class)]


def _scaler(normalise: bool):
    def scaled(stream: np.ndarray) -> np.ndarray:
        if not normalise:
            return stream
        length = np.linalg.norm(stream, axis=1, keepdims=True)
        return stream / np.where(length > 0, length, 1)

    return scaled


def _cross_entropy(fused: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean over the clips, and N times its gradient by the scores, `[N, K]`: softmax minus one-hot labels."""
    error = np.exp(fused - fused.max(axis=1, keepdims=True))
    error /= error.sum(axis=1, keepdims=True)
    error[np.arange(len(labels)), labels] -= 1
    return float(cross_entropies(fused, labels).mean()), error


def _coordinate_search(streams: np.ndarray, labels: np.ndarray) -> np.ndarray:
    count = len(streams)

    def quality(weights: np.ndarray) -> tuple[int, float]:
        fused = np.tensordot(weights, streams, axes=1)
        return int((fused.argmax(axis=1) == labels).sum()), -float(cross_entropies(fused, labels).mean())

    best = np.full(count, 1 / count)
    reached = quality(best)
    for step in _STEPS:
        improved = True
        while improved:
            improved = False
            for giver in range(count):
                for taker in set(range(count)) - {giver}:
                    moved = min(step, best[giver])
                    tried = best.copy()
                    tried[giver] -= moved
                    tried[taker] += moved
                    found = quality(tried)
                    # Without the margin, a cross entropy that falls only by rounding would keep the search going.
                    if found[0] > reached[0] or (found[0] == reached[0] and found[1] > reached[1] + 1e-9):
                        best, reached, improved = tried, found, True
    return best


def _least_cross_entropy(streams: np.ndarray, labels: np.ndarray) -> np.ndarray:
    from scipy.optimize import minimize

    clips = len(labels)

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        loss, error = _cross_entropy(np.tensordot(weights, streams, axes=1), labels)
        return loss, np.tensordot(streams, error, axes=2) / clips

    # If every clip is correct, the scale would grow without end; the bound stops it, and only shares matter.
    found = minimize(objective, np.full(len(streams), 1 / len(streams)), jac=True, bounds=[(0, 1e3)] * len(streams))
    return found.x / found.x.sum() if found.x.any() else np.full(len(streams), 1 / len(streams))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="SCORES", help="one score file or workdir per stream, two or more")
    parser.add_argument("--weights", help=f"equal (default), {', '.join(PRESETS)}, or numbers: 0.6,0.6,0.4,0.4")
    parser.add_argument("--normalise", action="store_true", help="scale the scores of each clip to length 1 first")
    parser.add_argument("--fit", nargs="+", metavar="VALIDATION", help="fit the weights on these score files")
    parser.add_argument("--fit_method", choices=_FIT_METHODS, default=_FIT_METHODS[0], help="default: coordinate")
    parser.add_argument("--fit_on_test", action="store_true", help="fit on test clips nevertheless; the result says so")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE.npz", help="write the fused scores as a score file")
    options = parser.parse_args(arguments)
    if len(options.files) < 2:
        parser.error("an ensemble needs at least two streams; give two or more score files")
    if options.fit and options.weights:
        parser.error("--fit and --weights exclude each other")
    if options.fit_on_test and not options.fit:
        parser.error("--fit_on_test needs --fit, which names the files to fit on")
    if options.out and options.fit_on_test:
        parser.error(
            "--out and --fit_on_test exclude each other: a score file cannot store that its weights "
            "were fitted on test clips"
        )
    with plain_errors("interrupted"):
        if options.out:
            scores.check_out(options.out)
        files = scores.read_together(options.files)
        if options.fit:
            weights = fit(files, options.fit, options.fit_method, options.normalise, options.fit_on_test)
        else:
            weights = read_weights(options.weights or "equal", files)
        if options.out and options.out.resolve() in {file.path.resolve() for file in files}:
            raise ScoresError(f"--out={options.out}: is one of the files to fuse; choose another name")
        text, fused = summary(files, weights, options.normalise)
        print(text)
        if options.out:
            scores.write_scores(options.out, fused)
            print(f"\nfused scores: {options.out}")


if __name__ == "__main__":
    main()
