"""Text sets: what a model has said so far, a file per clip in a work folder, and joining it to the records.

The work folder has `MODEL/QUESTION/FEATURE/about.json` and `clips/NAME.npz` beside it; records have the same path
beneath `text/`, a TFDS dataset each. Nothing here asks a model: that is `text_features`.
"""

import io
import json
import pathlib
import shutil
from collections.abc import Iterable

import numpy as np

from data_prep.formats import sources
from mmcl_jax.data import records
from mmcl_jax.data.records import SetAside
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.runtime.files import clear_disk_errors, write_whole

_ABOUT = "about.json"
_JOINING = ".text_incomplete"  # beneath the records; not beneath `text/`, where it would be taken for a text set


class Outputs:
    """What is done of one text set: `about.json` and a file per clip in one folder."""

    def __init__(self, root: pathlib.Path, text_set: str):
        """The text set `text_set`, 'model/question/feature', beneath `root`; nothing is created."""
        self.text_set = text_set
        self.folder = root / text_set
        self.about = _read_about(self.folder / _ABOUT)

    def agree_on(self, about: dict) -> None:
        """Claims the folder for features that are made as `about` says; None there is what is not known yet.

        Raises: PreparationError where the folder holds features that were made otherwise.
        """
        if self.about is not None:
            for key, value in about.items():
                if value is not None and self.about.get(key) != value:
                    raise PreparationError(
                        f"{self.folder}: made with {key} {self.about.get(key)!r}, now it is {value!r}; choose another "
                        "--name (or name of the question), or remove that folder"
                    )

    def claim(self, about: dict) -> None:
        """Notes what the features are made with. Raises: PreparationError, as `agree_on`."""
        self.agree_on(about)
        if self.about is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / _ABOUT, (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())
            self.about = about

    def write(self, clip: str, feature: np.ndarray, answer: str, num_tokens: int) -> None:
        """Stores a clip's feature, so that its file is there whole or not at all."""
        stream = io.BytesIO()
        np.savez(stream, feature=feature, answer=np.array(answer), num_tokens=np.array(num_tokens))
        write_whole(self._path(clip), stream.getvalue())

    def read(self, clip: str) -> tuple[np.ndarray, str, int] | None:
        """Feature float32 [D], answer and its number of tokens; None where there is no file.

        Raises: SourceFileError where the file is damaged or of another width.
        """
        path = self._path(clip)
        if self.about is None or not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                feature, answer, num_tokens = stored["feature"], str(stored["answer"]), int(stored["num_tokens"])
        except Exception as error:  # numpy and zipfile raise anything from KeyError to NotImplementedError
            raise sources.SourceFileError(f"{path}: damaged ({error!r})") from error
        width = self.about["width"]
        if feature.shape != (width,) or feature.dtype.kind != "f" or not np.isfinite(feature).all():
            raise sources.SourceFileError(
                f"{path}: {feature.dtype} of shape {feature.shape}, expected {width} finite numbers"
            )
        return feature.astype(np.float32), answer, num_tokens

    def find(self, clip: str) -> tuple[np.ndarray, str, int] | None:
        """As `read`, but None too where the file is damaged: such a clip is to be done again."""
        try:
            return self.read(clip)
        except sources.SourceFileError:
            return None

    def _path(self, clip: str) -> pathlib.Path:
        return self.folder / "clips" / f"{clip}.npz"


def _read_about(path: pathlib.Path) -> dict | None:
    """Contents of an `about.json`; None where there is none. Raises: PreparationError where it is damaged."""
    if not path.is_file():
        return None
    try:
        about = json.loads(path.read_text())
        if not isinstance(about["width"], int) or about["width"] < 1:
            raise ValueError(f"width {about['width']!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PreparationError(f"{path}: damaged ({error!r}); remove the folder {path.parent}") from error
    return about


def join(root, out, text_sets: Iterable[str] | None = None) -> None:
    """Adds features to records as text datasets, each complete or not there.

    Args:
      root: the records folder.
      out: where `--out` wrote the features.
      text_sets: 'model/question/feature' of those to add; None: all in `out`.

    A clip without a feature, or with a damaged one, is left out and said so. A set that is there is replaced if it was
    made with the same model and question. Raises: PreparationError, RecordsError.
    """
    opened = records.Records(root)
    out = pathlib.Path(out)
    if text_sets is None:
        text_sets = sorted(path.parent.relative_to(out).as_posix() for path in out.glob(f"*/*/*/{_ABOUT}"))
    all_outputs = [Outputs(out, text_set) for text_set in text_sets]
    if not all_outputs:
        raise PreparationError(f"{out}: no text features here; it is what --out of data_prep.text_features names")
    for outputs in all_outputs:
        _join_one(opened, outputs)


def _join_one(opened: records.Records, outputs: Outputs) -> None:
    """Writes one text dataset beside the others, then moves it into place."""
    target = opened.root / records.TEXT / outputs.text_set
    if target.exists() and _read_about(target / _ABOUT) != outputs.about:
        raise PreparationError(
            f"{target}: exists already and was made otherwise; choose another --name (or name of the question), or "
            "remove that folder"
        )
    joining = opened.root / _JOINING
    shutil.rmtree(joining, ignore_errors=True)
    try:
        with clear_disk_errors(joining):
            left_out = _write_text_set(joining / "new", opened, outputs)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                target.rename(joining / "old")
            (joining / "new").rename(target)
    finally:
        shutil.rmtree(joining, ignore_errors=True)
    print(f"{target}: {len(opened) - len(left_out)} of {len(opened)} clips")
    for item in left_out[:10]:
        print(f"  left out: {item.name}: {item.reason}")
    if len(left_out) > 10:
        print(f"  and {len(left_out) - 10} more")


def _write_text_set(folder: pathlib.Path, opened: records.Records, outputs: Outputs) -> list[SetAside]:
    """Writes the features of the records' clips, in the records' order; returns the clips that have none.

    Raises: PreparationError where not one of them has any.
    """
    from tensorflow_datasets import features

    if outputs.about is None:
        raise PreparationError(f"{outputs.folder}: nothing is done; is there a mosaic that can be read?")
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
            f"{outputs.folder}: no feature of any of the {len(opened)} clips of {opened.root} "
            f"({left_out[0].name}: {left_out[0].reason}); do the names agree?"
        )
    dataset.close()
    dataset.save_names()
    shutil.copyfile(outputs.folder / _ABOUT, folder / _ABOUT)
    return left_out
