"""Text sets: the stored answers of a model, one file per clip in a work folder, and adding them to the records.

The work folder has `MODEL/QUESTION/FEATURE/about.json`, with `clips/NAME.npz` beside it. Records have the same path
beneath `text/`, one TFDS dataset per text set. This module asks no model; `text_features` does.
"""

import functools
import hashlib
import io
import json
import pathlib
import re
import shutil
from collections.abc import Iterable

import numpy as np

from data_prep.formats import sources
from mmcl_jax.data import records
from mmcl_jax.data.records import SetAside
from mmcl_jax.runtime.arrays import read_arrays
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.runtime.files import clear_disk_errors, read_json, read_text, write_whole
from mmcl_jax.runtime.locks import exclusive
from mmcl_jax.runtime.scratch import remove_leftovers, scratch_folder
from mmcl_jax.runtime.words import counted

_ABOUT = "about.json"
_JOINING = ".text_incomplete"  # beneath the records, but not beneath `text/`, where it would look like a text set
_JOINING_LOCK = ".text_lock"
_PLAIN, _NOT_PLAIN = re.compile(r"[\w-][\w.-]*"), re.compile(r"[^A-Za-z0-9.-]+")
_LONGEST = 200  # bytes of a file's name
_WIDEST = 1_000_000  # numbers of a feature
_OLD, _NAME = "old", "text_set"  # beneath that folder: the set that is replaced, and its name


class Outputs:
    """The finished part of one text set: `about.json` and one file per clip in a folder."""

    def __init__(self, root: pathlib.Path, text_set: str):
        """The text set `text_set`, 'model/question/feature', beneath `root`; creates nothing."""
        self.text_set = text_set
        self.folder = root / text_set
        self.about = _read_about(self.folder / _ABOUT)

    def agree_on(self, about: dict) -> None:
        """Checks that the features in the folder were made as `about` says; None in `about` means not known yet.

        Raises: PreparationError if the folder holds features that were made differently.
        """
        if self.about is not None:
            for key, value in about.items():
                if value is not None and self.about.get(key) != value:
                    raise PreparationError(
                        f"{self.folder}: made with {key} {self.about.get(key)!r}, not {value!r}; choose another "
                        "--name (or another name of the question), or remove that folder"
                    )

    def claim(self, about: dict) -> None:
        """Stores how the features are made. Raises: PreparationError, as `agree_on`."""
        self.agree_on(about)
        if self.about is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / _ABOUT, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
            self.about = about

    def write(self, clip: str, feature: np.ndarray, answer: str, num_tokens: int) -> None:
        """Stores a clip's feature; the file is written completely or not at all."""
        stream = io.BytesIO()
        np.savez(stream, feature=feature, answer=np.array(answer), num_tokens=np.array(num_tokens))
        write_whole(self._path(clip), stream.getvalue())

    def read(self, clip: str) -> tuple[np.ndarray, str, int] | None:
        """Feature float32 [D], answer and its number of tokens; None if there is no file.

        Raises: SourceFileError if the file is damaged or has another width.
        """
        path = self._path(clip)
        if self.about is None or not path.is_file():
            return None
        try:
            stored = read_arrays(path)
            feature, answer, num_tokens = stored["feature"], str(stored["answer"]), int(stored["num_tokens"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise sources.SourceFileError(f"{path}: damaged ({error!r})") from error
        width = self.about["width"]
        if feature.shape != (width,) or feature.dtype.kind != "f" or not np.isfinite(feature).all():
            raise sources.SourceFileError(
                f"{path}: {feature.dtype} of shape {feature.shape}, expected {width} finite numbers"
            )
        return feature.astype(np.float32), answer, num_tokens

    def find(self, clip: str) -> tuple[np.ndarray, str, int] | None:
        """As `read`, but also None for a damaged file, so that the clip is processed again."""
        try:
            return self.read(clip)
        except sources.SourceFileError:
            return None

    def _path(self, clip: str) -> pathlib.Path:
        return self.folder / "clips" / f"{_file_name(clip)}.npz"


def _file_name(clip: str) -> str:
    """The name of a clip, or one like it where no file can have that name: those of a user's own videos have a `/`."""
    encoded = clip.encode("utf-8", "surrogatepass")
    if _PLAIN.fullmatch(clip) and len(encoded) <= _LONGEST:
        return clip
    digest = hashlib.sha256(encoded).hexdigest()[:12]
    return f"{_NOT_PLAIN.sub('_', clip)[-80:].lstrip('.')}-{digest}"


def _read_about(path: pathlib.Path) -> dict | None:
    """Contents of an `about.json`; None if there is none. Raises: PreparationError if it is damaged."""
    if not path.is_file():
        return None
    try:
        about = read_json(path)
        width = about["width"]
        if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= _WIDEST:
            raise ValueError(f"width {str(width)[:40]}, expected 1 to {_WIDEST}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PreparationError(f"{path}: damaged ({error!r}); remove the folder {path.parent}") from error
    return about


def join(root, out, text_sets: Iterable[str] | None = None) -> None:
    """Adds features to records as text datasets, each complete or not at all.

    A clip without a feature, or with a damaged one, is left out and reported. An existing set is replaced if it was
    made with the same model and question.

    Args:
      root: the records folder.
      out: the folder into which `data_prep.text_features` wrote the features.
      text_sets: 'model/question/feature' of the sets to add; None: all in `out`.

    Raises: PreparationError, RecordsError.
    """
    opened = records.Records(root)
    out = pathlib.Path(out)
    if text_sets is None:
        text_sets = sorted(path.parent.relative_to(out).as_posix() for path in out.glob(f"*/*/*/{_ABOUT}"))
    all_outputs = [Outputs(out, text_set) for text_set in text_sets]
    if not all_outputs:
        raise PreparationError(
            f"{out}: no text features in this folder; give the --out folder of data_prep.text_features"
        )
    for outputs in all_outputs:
        _join_one(opened, outputs)


def _join_one(opened: records.Records, outputs: Outputs) -> None:
    """Writes one text dataset beside the others, then moves it into place."""
    target = opened.root / records.TEXT / outputs.text_set
    if target.exists() and _read_about(target / _ABOUT) != outputs.about:
        raise PreparationError(
            f"{target}: already exists and was made differently; choose another --name (or another name of "
            "the question), or remove that folder"
        )
    prefix = opened.root / _JOINING
    lock = exclusive(
        opened.root / _JOINING_LOCK,
        what=f"adding text features to {opened.root}",
        remedy="give a copy of the records",
    )
    with clear_disk_errors(prefix), lock:
        remove_leftovers(prefix, functools.partial(_put_back, opened.root))
        with scratch_folder(prefix) as joining:
            left_out = _write_text_set(joining / "new", opened, outputs)
            target.parent.mkdir(parents=True, exist_ok=True)
            (joining / _NAME).write_text(outputs.text_set)
            if target.exists():
                target.rename(joining / _OLD)
            (joining / "new").rename(target)
    print(f"{target}: {len(opened) - len(left_out)} of {counted(len(opened), 'clip')}")
    for item in left_out[:10]:
        print(f"  left out: {item.name}: {item.reason}")
    if len(left_out) > 10:
        print(f"  and {len(left_out) - 10} more")


def _put_back(root: pathlib.Path, joining: pathlib.Path) -> None:
    """Renames the text set back that a killed process left between two renames."""
    if not (joining / _OLD).is_dir() or not (joining / _NAME).is_file():
        return
    target = root / records.TEXT / read_text(joining / _NAME)
    if not target.exists():
        (joining / _OLD).rename(target)


def _write_text_set(folder: pathlib.Path, opened: records.Records, outputs: Outputs) -> list[SetAside]:
    """Writes the features of the records' clips, in the order of the records; returns the clips that have none.

    Raises: PreparationError if no clip has any.
    """
    from tensorflow_datasets import features

    if outputs.about is None:
        raise PreparationError(f"{outputs.folder}: no clip has been processed; check that the mosaics can be read")
    schema = {
        "feature": features.Tensor(shape=(outputs.about["width"],), dtype=np.float32),
        "answer": features.Text(),
    }
    dataset = records.DatasetWriter(folder, schema, opened.info)
    left_out = []
    for name in opened.index["name"].tolist():
        try:
            stored = outputs.read(name)
        except sources.SourceFileError as error:
            left_out.append(SetAside(name, str(error)))
            continue
        if stored is None:
            left_out.append(SetAside(name, "no feature"))
        else:
            dataset.add(name, feature=stored[0], answer=stored[1])
    if not dataset.names:
        raise PreparationError(
            f"{outputs.folder}: no feature of any of the {counted(len(opened), 'clip')} of {opened.root} "
            f"({left_out[0].name}: {left_out[0].reason}); check that the names agree"
        )
    dataset.close()
    dataset.save_names()
    shutil.copyfile(outputs.folder / _ABOUT, folder / _ABOUT)
    return left_out
