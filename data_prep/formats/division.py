"""Divides the clips of a source into those that train and those that test."""

import pathlib

import numpy as np

from data_prep.formats import annotations, sources
from data_prep.formats.annotations import Source, name_or_place
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.runtime.files import read_json


def divide(source: Source, split: str) -> None:
    """Replaces the splits of `source` by what `--split` says.

    Args:
      source: changed.
      split: a share from 0 to 1, of the clips of each class, which test; they are drawn at random, always the same. Or
        a JSON file of lists of clip names, as {"train": [...], "test": [...]}.

    Raises: PreparationError.
    """
    try:
        share = float(split)
    except ValueError:
        source.splits = read_splits(pathlib.Path(split))
        return
    if not 0 < share < 1:
        raise PreparationError(f"--split {split}: expected a share between 0 and 1, as 0.25, or a JSON file")
    by_label: dict[int, list[str]] = {}
    for stored in source.annotations:
        try:
            annotation = annotations.check(stored)
        except sources.SourceFileError:
            continue  # set aside later
        by_label.setdefault(annotation.label, []).append(annotation.name)
    test = set()
    for label, names in sorted(by_label.items()):
        names = sorted(set(names))
        number = min(len(names) - 1, max(1, round(share * len(names))))  # each class is in both parts, if it can be
        test |= {names[place] for place in np.random.default_rng(label).permutation(len(names))[:number]}
    everything = {name for names in by_label.values() for name in names}
    source.splits = {"train": everything - test, "test": test}


def read_splits(path: pathlib.Path) -> dict[str, set[str]]:
    """Reads lists of clip names by split. Raises: PreparationError."""
    try:
        stored = read_json(path)
    except (OSError, ValueError) as error:
        raise PreparationError(f"{path}: not a readable JSON file of lists of clip names ({error})") from error
    lists = stored.values() if isinstance(stored, dict) else ()
    if not lists or not all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in lists):
        raise PreparationError(f'{path}: expected lists of clip names by split, as {{"train": ["a"], "test": ["b"]}}')
    return {split: set(names) for split, names in stored.items()}


def check_splits(source: Source) -> None:
    """Compares the names in the splits with those of the clips.

    Raises: PreparationError if none of the names of a split is a clip's.
    """
    annotated = {name_or_place(stored, place) for place, stored in enumerate(source.annotations)}
    for split, names in sorted(source.splits.items()):
        if not names or names & annotated:
            continue
        name = min(names)
        hint = ""
        for shorter in (lambda name: pathlib.PurePosixPath(name).stem, lambda name: pathlib.PurePosixPath(name).name):
            by_short = {shorter(other): other for other in annotated}
            other = by_short.get(shorter(name))
            if other is not None:
                cut = name.replace(other, "") if other in name else other.replace(name, "")
                hint = f"; the names differ by {cut!r}" if cut not in (name, other) else ""
                break
        raise PreparationError(
            f"split {split}: none of its {len(names):,} names is a clip's: {name!r} in the split, "
            f"{min(annotated)!r} among the clips{hint}. Make them the same, or divide the clips with --split 0.25"
        )
