"""Reads and writes score files, the scores of each clip: our .npz, or pickles of the released PyTorch code.

Ours hold `names`, `scores` (logits), `labels`, `class_names` and `step`. The pickles (`epoch1_test_score.pkl`) hold a
dict of clip name -> scores, or a list of such pairs, and no labels. They are read as plain data; no code in them is
run.
"""

import dataclasses
import os
import pathlib
import zipfile

import numpy as np

from mmcl_jax import evaluate
from mmcl_jax.runtime import plain_pickle
from mmcl_jax.runtime.arrays import read_arrays
from mmcl_jax.runtime.errors import MMCLError
from mmcl_jax.runtime.files import read_json

PICKLES = (".pkl", ".pickle")
_KEYS = ("names", "scores", "labels", "class_names", "step")


class ScoresError(MMCLError, ValueError):
    """A score file that cannot be used, or files that do not fit together. Names file, value and remedy."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of N clips for K classes.

    Attributes:
      path: the file.
      names: str `[N]`, unique.
      scores: float64 `[N, K]`, finite.
      labels: int64 `[N]`, less than K; None: the file has none.
      class_names: K names; None: the file has none.
      step: step of training; None: unknown.
      stream: the stream of the run that has the file in its workdir, such as 'joint', or 'hd_joint' if the run used
        HD-Graph; None: the file is elsewhere.
    """

    path: pathlib.Path
    names: np.ndarray
    scores: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    step: int | None = None
    stream: str | None = None


def read_scores(path: str | os.PathLike, part: str = "test") -> Scores:
    """Reads a score file, or the one of `part` in a workdir. Raises: ScoresError."""
    path = pathlib.Path(path)
    if path.is_dir():
        path = path / f"scores_{part}.npz"
    if not path.is_file():
        raise ScoresError(f"{path}: no such file; evaluate the run first, or give a score file or a workdir")
    if not path.stat().st_size:
        raise ScoresError(f"{path}: an empty file; evaluate the run again")
    found = _read_pickle(path) if path.suffix in PICKLES else _read_npz(path)
    _check(found)
    return found


def read_together(paths: list[str | os.PathLike], part: str = "test") -> list[Scores]:
    """Reads score files of the same clips, all in the order of the first; each gets labels and class names.

    Raises: ScoresError if a file cannot be read or is named twice, if clips, classes or labels differ, or if no file
    has labels.
    """
    files = [read_scores(path, part) for path in paths]
    first = files[0]
    seen = {}
    for file in files:
        if file.path.resolve() in seen:
            raise ScoresError(f"{file.path}: named twice; give each file once, and its importance as a weight")
        seen[file.path.resolve()] = file
    ordered = [_in_order_of(first, file) for file in files]
    labeled = [file for file in ordered if file.labels is not None]
    if not labeled:
        raise ScoresError(
            f"{first.path}: pickled scores have no labels, and no file is an .npz that could supply them; "
            "add an .npz of the same clips"
        )
    _check_agreement(ordered, labeled[0])
    names = next((file.class_names for file in ordered if file.class_names is not None), None)
    return [dataclasses.replace(file, labels=labeled[0].labels, class_names=names) for file in ordered]


def check_out(path: pathlib.Path) -> None:
    """Raises: ScoresError if a score file should not be written to `path`; called before anything is computed."""
    if path.suffix != ".npz":
        raise ScoresError(f"--out={path}: expected a name that ends in .npz")
    if (path.parent / "config.json").exists():
        raise ScoresError(
            f"--out={path}: the folder is the workdir of a run, which has its own scores; choose another folder"
        )


def write_scores(path: str | os.PathLike, scores: Scores) -> None:
    """Writes a score file in our format, completely or not at all. Labels and class names must be present."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    step = -1 if scores.step is None else scores.step
    evaluate.write_scores(path, scores.names, scores.scores, scores.labels, scores.class_names, step)


def _read_npz(path: pathlib.Path) -> Scores:
    if not zipfile.is_zipfile(path):
        raise ScoresError(
            f"{path}: not an .npz, or truncated; expected the scores_test.npz of an evaluation, or a {PICKLES[0]}; "
            "evaluate the run again"
        )
    try:
        arrays = read_arrays(path)
        missing = [key for key in _KEYS if key not in arrays]
        if missing:
            raise ScoresError(
                f"{path}: has no {', no '.join(missing)}, only {', '.join(arrays)}; evaluate the run again"
            )
    except ScoresError:
        raise
    except (OSError, ValueError) as error:
        raise ScoresError(
            f"{path}: damaged, or holds more than plain arrays ({error}); evaluate the run again"
        ) from error
    if arrays["class_names"].dtype.kind != "U" or arrays["class_names"].ndim != 1:
        raise ScoresError(f"{path}: class_names are {_describe(arrays['class_names'])}, expected text, one per class")
    if arrays["step"].dtype.kind not in "iu" or arrays["step"].shape:
        raise ScoresError(f"{path}: step is {_describe(arrays['step'])}, expected one integer")
    return Scores(
        path,
        arrays["names"],
        arrays["scores"],
        arrays["labels"],
        tuple(arrays["class_names"].tolist()),
        int(arrays["step"]),
        _stream(path.parent / "config.json"),
    )


def _read_pickle(path: pathlib.Path) -> Scores:
    try:
        contents = plain_pickle.load(path)
    except plain_pickle.PlainPickleError as error:
        raise ScoresError(f"{path}: {error}") from error
    if isinstance(contents, dict):
        pairs = list(contents.items())
    elif isinstance(contents, list | tuple) and all(isinstance(x, list | tuple) and len(x) == 2 for x in contents):
        pairs = list(contents)
    else:
        raise ScoresError(
            f"{path}: holds a {type(contents).__name__}, expected a dict of clip name -> scores, or pairs"
        )
    odd = [name for name, _ in pairs if not isinstance(name, str)]
    if odd:
        raise ScoresError(f"{path}: the clip name {odd[0]!r} is not text")
    try:
        rows = [np.asarray(scores) for _, scores in pairs]
    except ValueError as error:
        raise ScoresError(f"{path}: the scores of a clip are not an array ({error})") from error
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        raise ScoresError(f"{path}: the scores of its clips have {len(shapes)} shapes, among them {sorted(shapes)[:3]}")
    return Scores(path, np.array([name for name, _ in pairs], np.str_), np.array(rows))


def _stream(config: pathlib.Path) -> str | None:
    """The stream of the run with this config; None if the config cannot be read."""
    try:
        stored = read_json(config)
        return ("hd_" if stored["model"]["graph"] == "hierarchical" else "") + stored["data"]["stream"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check(file: Scores) -> None:
    """Raises: ScoresError if the arrays of a file are not valid."""
    path, names, scores, labels = file.path, file.names, file.scores, file.labels
    if scores.ndim != 2 or scores.dtype.kind not in "fiu" or not scores.size:
        raise ScoresError(f"{path}: scores are {_describe(scores)}, expected numbers of shape (clips, classes)")
    if names.ndim != 1 or names.dtype.kind != "U":
        raise ScoresError(f"{path}: names are {_describe(names)}, expected text, one per clip")
    clips, classes = scores.shape
    if len(names) != clips:
        raise ScoresError(f"{path}: {len(names)} names, but scores of {clips} clips")
    found, counts = np.unique(names, return_counts=True)
    if (counts > 1).any():
        twice = found[counts > 1]
        raise ScoresError(f"{path}: {len(twice)} clips occur more than once, among them {twice[0]}")
    bad = names[~np.isfinite(scores).all(axis=1)]
    if len(bad):
        raise ScoresError(f"{path}: the scores of {len(bad)} clips are not finite, among them {bad[0]}")
    if labels is not None:
        if labels.dtype.kind not in "iu" or labels.shape != (clips,):
            raise ScoresError(f"{path}: labels are {_describe(labels)}, expected {clips} integers")
        outside = labels[(labels < 0) | (labels >= classes)]
        if len(outside):
            raise ScoresError(f"{path}: label {outside[0]}, but the scores have {classes} classes, 0 to {classes - 1}")
    if file.class_names is not None and len(file.class_names) != classes:
        raise ScoresError(f"{path}: {len(file.class_names)} class names, but the scores have {classes} classes")


def _in_order_of(first: Scores, file: Scores) -> Scores:
    """`file` with its clips in the order of `first`. Raises: ScoresError if clips or classes differ."""
    places = {name: place for place, name in enumerate(file.names.tolist())}
    missing = [name for name in first.names.tolist() if name not in places]
    added = sorted(places.keys() - set(first.names.tolist()))
    if missing or added:
        raise ScoresError(
            f"{file.path}: not the clips of {first.path}: {_count(missing)} not in it, {_count(added)} only in it; "
            "evaluate both on the same records and protocol"
        )
    if file.scores.shape[1] != first.scores.shape[1]:
        raise ScoresError(
            f"{file.path}: {file.scores.shape[1]} classes, but {first.path} has {first.scores.shape[1]}; evaluate both "
            "on the same protocol"
        )
    order = np.array([places[name] for name in first.names.tolist()])
    return dataclasses.replace(
        file,
        names=first.names,
        scores=file.scores[order].astype(np.float64),
        labels=None if file.labels is None else file.labels[order].astype(np.int64),
    )


def _check_agreement(files: list[Scores], labeled: Scores) -> None:
    """Raises: ScoresError if labels or class names of two files differ."""
    for file in files:
        if file.labels is not None and (file.labels != labeled.labels).any():
            differing = np.flatnonzero(file.labels != labeled.labels)
            name, here, there = file.names[differing[0]], file.labels[differing[0]], labeled.labels[differing[0]]
            raise ScoresError(
                f"{file.path}: labels of {len(differing)} clips differ from {labeled.path}, among them {name}: "
                f"{here} here, {there} there; evaluate both on the same records"
            )
        if file.class_names is not None and file.class_names != labeled.class_names:
            pairs = zip(file.class_names, labeled.class_names, strict=True)
            here, there = next((here, there) for here, there in pairs if here != there)
            raise ScoresError(
                f"{file.path}: class {here!r} is {there!r} in {labeled.path}; evaluate both on the same records"
            )


def _count(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} clips" + (f" ({shown})" if names else "")


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"
