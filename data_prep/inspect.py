"""Shows records on one web page: the dataset's figures, and some of its clips in motion.

    python -m data_prep.inspect DIR [--name CLIP ...] [--clips N] [--out FILE.html]

The page is a single file and needs neither network nor server. It shows the description of the records, protocols,
lengths, clips per class, subject, setup and camera, what was set aside and why, and which clips lack an image or a
text. For each clip shown it has the skeleton, which plays and turns, several moments of it side by side, the mosaic
with the boxes that it was cut from (if the mosaic stores them; joints in pixels are drawn over the picture), every
question with its answer and feature, and the metadata.

Without --name the page shows a sample with equally many clips of each class; the sample is always the same. For a clip
that cannot be read, the page shows the reason.
"""

import argparse
import base64
import collections
import dataclasses
import difflib
import io
import pathlib
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from data_prep.images import person_crops
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import PreparationError, plain_errors
from mmcl_jax.runtime.files import read_json
from mmcl_jax.runtime.options import positive
from mmcl_jax.runtime.progress import progress_bar
from mmcl_jax.runtime.words import counted
from mmcl_jax.viewers import html_page, skeleton_player

CLIPS = 60  # shown at most without --clips, one of each class
MANY_CLIPS = 500  # a page of about 10 MB
_PICTURE_BYTES = 3_600_000  # of all mosaics together; many mosaics are made smaller
_SKELETON_VALUES = 3_400_000  # of all clips together; if there are many, long clips lose frames
_PICTURE_SIDES = (480, 360, 288, 240, 192, 144)
_PICTURE_QUALITY = 72
_LISTED = 1000  # rows of a list at most
_COUNTED_ANSWERS = 20_000  # answers read at most for the counts
_BINS = 24  # of the histogram of lengths
_WIDE = 8  # a feature of more numbers is summarized
_SCRIPT = pathlib.Path(__file__).with_name("inspect.js")
_COMMAND = "data_prep.inspect"


def sample(labels: np.ndarray, number: int) -> np.ndarray:
    """Chooses a sample of clips: rows, int64 [n], sorted by class.

    Every class has the same number of clips, unless it has too few. If `number` is less than the number of classes,
    evenly spread classes have one clip each. The clips of a class are evenly spread over its rows. Nothing is random.

    Args:
      labels: int [clips], the class of each clip.
      number: the size of the sample; fewer clips are chosen if there are fewer.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if number < len(classes):
        chosen = _spread(len(classes), number)
        classes, counts = classes[chosen], counts[chosen]
    quota = np.zeros(len(classes), np.int64)
    left = min(number, counts.sum())
    while left:
        open_classes = np.flatnonzero(quota < counts)[:left]
        quota[open_classes] += 1
        left -= len(open_classes)
    rows = [np.flatnonzero(labels == label) for label in classes]
    return np.concatenate([own[_spread(len(own), share)] for own, share in zip(rows, quota, strict=True)])


def _spread(total: int, number: int) -> np.ndarray:
    """`number` of the integers below `total`, evenly spread."""
    return ((np.arange(number) + 0.5) * total / max(number, 1)).astype(np.int64)


def named_rows(opened: records.Records, names: Sequence[str]) -> np.ndarray:
    """Rows of the clips `names`, each once. Raises: PreparationError for unknown names, with similar known ones."""
    rows = {name: row for row, name in enumerate(opened.index["name"].tolist())}
    unknown = [name for name in names if name not in rows]
    if unknown:
        similar = difflib.get_close_matches(unknown[0], rows, n=3, cutoff=0.5) or list(rows)[:3]
        raise PreparationError(
            f"{opened.root}: no clip {', '.join(map(repr, unknown))} among its {len(rows)}; similar names: "
            f"{', '.join(similar)}. set_aside.json lists the clips that were left out"
        )
    return np.array([rows[name] for name in dict.fromkeys(names)], np.int64)


def page_data(opened: records.Records, rows: np.ndarray) -> dict:
    """Everything that the page's script shows, as JSON."""
    kinds = ([records.IMAGES] if opened.has_images else []) + list(opened.text_sets)
    problems = {kind: problem for kind in kinds if (problem := _problem(opened, kind))}
    usable = [kind for kind in kinds if kind not in problems]
    return {
        "records": opened.root.resolve().name,
        "facts": _facts(opened),
        "protocols": _protocols(opened),
        "lengths": _histogram(opened.index["num_frames"]),
        "counts": _counts(opened),
        "set_aside": _set_aside(opened.root / "set_aside.json"),
        "lacking": [_lacking(opened, kind) for kind in usable],
        "problems": [{"kind": kind, "problem": problem} for kind, problem in problems.items()],
        "text_sets": [_text_set(opened, kind) for kind in usable if kind != records.IMAGES],
        **_clips(opened, rows, usable),
    }


def _problem(opened: records.Records, kind: str) -> str | None:
    """Why images or a text set cannot be opened; None if they can."""
    try:
        opened.clips_without([0], kind)
    except records.RecordsError as error:
        return str(error)
    return None


def _facts(opened: records.Records) -> list[tuple[str, str]]:
    """Names and values that describe the records."""
    info, index = opened.info, opened.index
    frames = index["num_frames"]
    own = "" if isinstance(info.layout, str) else " (its own)"
    layout = (info.layout if isinstance(info.layout, str) else info.dataset) + own
    return [
        ("clips", f"{len(opened):,}"),
        ("classes", f"{len(np.unique(index['label'])):,} of {len(info.class_names):,}"),
        ("subjects", f"{len(np.unique(index['subject'])):,}"),
        ("frames per clip", f"{frames.min()} to {frames.max()}, median {int(np.median(frames))}"),
        ("frames in total", f"{int(frames.sum()):,}"),
        ("bodies per clip", ", ".join(f"{bodies}: {count:,}" for bodies, count in _tally(index["num_bodies"]))),
        ("dataset", info.dataset),
        ("layout", f"{layout}, {opened.num_joints} joints"),
        ("channels", ", ".join(info.channels)),
        ("units", info.units),
        ("images made from", info.image_source or "no images"),
        ("preprocessing", info.preprocessing),
        ("records version", records.RECORDS_VERSION),
        ("fingerprint", opened.fingerprint()),
    ]


def _protocols(opened: records.Records) -> list[dict]:
    """Training and test counts of every protocol of the dataset."""
    rows = []
    for name, protocol in opened.protocols.items():
        train, test = protocol.masks(opened.index)
        others = "all others" if protocol.test is None else f"those of {_say(list(protocol.test))}"
        rows.append(
            {
                "name": name,
                "train": int(train.sum()),
                "test": int(test.sum()),
                "classes": len(opened.class_names(name)),
                "rule": f"clips of {protocol.field} {_say(list(protocol.train))} train, {others} test",
            }
        )
    return rows


def _histogram(values: np.ndarray) -> dict:
    """Counts of whole numbers in bins of equal width: the least and the greatest number, the width, the counts."""
    low, high = int(values.min()), int(values.max())
    width = -(-(high - low + 1) // _BINS)
    counts = np.bincount((values - low) // width)
    return {"first": low, "last": high, "width": width, "counts": counts.tolist()}


def _tally(values: np.ndarray) -> list[tuple[int, int]]:
    """(value, count) pairs, sorted by value."""
    return [(int(value), int(count)) for value, count in zip(*np.unique(values, return_counts=True), strict=True)]


def _counts(opened: records.Records) -> dict[str, list]:
    """[name, count] pairs of all classes, also those without clips, and of the values of other fields."""
    labels = np.bincount(opened.index["label"], minlength=len(opened.info.class_names))
    counts = {"class": [[name, int(count)] for name, count in zip(opened.info.class_names, labels, strict=True)]}
    for field in ("subject", "setup", "camera", "replication", "fold"):
        if opened.index[field].any():  # few datasets have folds
            counts[field] = [[str(value), count] for value, count in _tally(opened.index[field])]
    return counts


def _set_aside(path: pathlib.Path) -> dict:
    """What was set aside, and how often for which reason; numbers and quoted text in reasons are masked."""
    try:
        items = [(str(item["name"]), str(item["reason"])) for item in read_json(path)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {"problem": f"{path.name} cannot be read ({error!r})", "total": 0, "reasons": [], "items": []}
    reasons = collections.Counter(re.sub(r"'[^']*'|\d[\d.,]*", "…", reason) for _, reason in items)
    return {"problem": None, "total": len(items), "reasons": reasons.most_common(20), "items": items[:_LISTED]}


def _lacking(opened: records.Records, kind: str) -> dict:
    """The clips without an image, or without a feature of a text set."""
    names = opened.clips_without(np.arange(len(opened)), kind)
    return {"kind": kind, "count": len(names), "names": names[:_LISTED]}


def _about(opened: records.Records, text_set: str) -> dict:
    """What a text set stores about its origin; empty if it stores nothing."""
    try:
        about = read_json(opened.root / records.TEXT / text_set / "about.json")
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _text_set(opened: records.Records, text_set: str) -> dict:
    """A text set: its origin and its most frequent answers, counted over at most `_COUNTED_ANSWERS` clips."""
    lacking = set(opened.clips_without(np.arange(len(opened)), text_set))
    rows = np.array([row for row, name in enumerate(opened.index["name"].tolist()) if name not in lacking])
    rows = rows[_spread(len(rows), min(len(rows), _COUNTED_ANSWERS))]
    answers: collections.Counter = collections.Counter()
    damaged = 0
    for row in progress_bar(rows, unit="clip", desc=text_set):
        try:
            answer = opened.answer(row, text_set)
        except records.RecordsError:
            damaged += 1
            continue
        if answer is None:  # the set stores no answers
            break
        answers[answer] += 1
    return {
        "name": text_set,
        "width": opened.text_width(text_set),
        "about": [(key, _say(value)) for key, value in _about(opened, text_set).items()],
        "counted": answers.total(),
        "different": len(answers),
        "answers": answers.most_common(12),
        "damaged": damaged,
    }


def _say(value) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "-" if value is None else str(value)


def _clips(opened: records.Records, rows: np.ndarray, kinds: list[str]) -> dict:
    """The clips shown, and the layout that the player needs for all of them."""
    sets = [(kind, _about(opened, kind)) for kind in kinds if kind != records.IMAGES]
    skeletons, clips = [], []
    for row in progress_bar(rows, unit="clip", desc="clips"):
        fields = {field: int(opened.index[field][row]) for field in records.INDEX_FIELDS}
        clip = {"name": str(opened.index["name"][row]), "class": opened.info.class_names[fields["label"]], **fields}
        skeleton = None
        try:
            skeleton = opened.skeleton(row)
            clip["skeleton"] = skeleton_player.encode(skeleton, opened.info, _SKELETON_VALUES // len(rows))
            skeletons.append(skeleton)
        except records.RecordsError as error:
            clip["problem"] = str(error)
        if records.IMAGES in kinds:
            clip["image"] = _image(opened, row, _PICTURE_BYTES // len(rows))
            if skeleton is not None and clip["image"] and "origin" in clip["image"]:
                clip["image"]["poses"] = poses_at(opened.info, skeleton, clip["image"]["origin"]["frames"])
        clip["texts"] = [_text(opened, row, text_set, about) for text_set, about in sets]
        clips.append(clip)
    layout = skeleton_player.layout(opened.info, skeleton_player.upward(opened.info, skeletons))
    return {"layout": layout, "clips": clips}


def _image(opened: records.Records, row: int, most_bytes: int) -> dict | None:
    """The mosaic of a clip as a data URL, or why it cannot be shown; None if the clip has no mosaic."""
    if opened.clips_without([row], records.IMAGES):
        return None
    try:
        stored = opened.image_file(row)
        with Image.open(io.BytesIO(stored), formats=["JPEG"]) as picture:
            origin = person_crops.read_origin(picture)
        jpeg, size = _small_enough(stored, most_bytes)
    except records.RecordsError as error:
        return {"problem": str(error)}
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return {"problem": f"the JPEG is broken ({error})"}
    note = f"{size[0]} x {size[1]}, {len(stored):,} bytes" + ("" if jpeg is stored else "; shown smaller here")
    shown = {"jpeg": "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii"), "note": note}
    return shown if origin is None else {**shown, "origin": dataclasses.asdict(origin)}


def poses_at(info: records.DatasetInfo, skeleton: np.ndarray, frames: Sequence[int]) -> list | None:
    """Where the joints of a clip [M, T, V, C] are in the pictures of some of its frames.

    Returns: for each frame, for each body, for each joint x and y in pixels, or None where it was not found. None if
    the joints are not in pixels, or the clip has no such frame.
    """
    num_frames = skeleton.shape[1]
    if info.units != "pixels" or not all(0 <= frame < num_frames for frame in frames):
        return None
    found = np.broadcast_to(skeleton.any(axis=(2, 3))[..., np.newaxis], skeleton.shape[:3])
    if info.num_coordinates < skeleton.shape[-1]:
        found = found & (skeleton[..., info.num_coordinates] > 0)
    places = np.where(found[..., np.newaxis], np.round(skeleton[..., :2].astype(np.float64), 1), np.nan)
    return [
        [[None if np.isnan(x) else [x, y] for x, y in joints] for joints in places[:, frame].tolist()]
        for frame in frames
    ]


def _small_enough(jpeg: bytes, most_bytes: int) -> tuple[bytes, tuple[int, int]]:
    """The JPEG, made smaller if it exceeds `most_bytes`, and its original size. Raises: what Pillow raises."""
    with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as picture:
        picture.load()
        if len(jpeg) <= most_bytes:
            return jpeg, picture.size
        for side in _PICTURE_SIDES:
            smaller = picture.convert("RGB")
            smaller.thumbnail((side, side), Image.Resampling.LANCZOS)
            stream = io.BytesIO()
            smaller.save(stream, "JPEG", quality=_PICTURE_QUALITY, optimize=True)
            if stream.tell() <= most_bytes:
                break
        return stream.getvalue(), picture.size


def _text(opened: records.Records, row: int, text_set: str, about: dict) -> dict:
    """A clip's answer and feature in a text set, or why there is none."""
    shown = {"set": text_set, "question": about.get("question")}
    try:
        if opened.clips_without([row], text_set):
            return {**shown, "missing": True}
        return {
            **shown,
            "answer": opened.answer(row, text_set),
            "feature": describe(opened.text(row, text_set), about.get("answers")),
        }
    except records.RecordsError as error:
        return {**shown, "problem": str(error)}


def describe(feature: np.ndarray, answers: list[str] | None = None) -> str:
    """Describes a feature [D] in words.

    Short features are listed in full, long ones summarized. If `answers` names the D numbers, they are
    log-probabilities and are also shown as probabilities.
    """
    if answers and len(answers) == len(feature):
        with np.errstate(over="ignore"):
            shares = np.exp(feature.astype(np.float64))
        return ", ".join(
            f"{answer}: {value:.4g} (p = {share:.3g})"
            for answer, value, share in zip(answers, feature, shares, strict=True)
        )
    if len(feature) <= _WIDE:
        return ", ".join(f"{value:.6g}" for value in feature.tolist())
    values = feature.astype(np.float64)
    return (
        f"{len(values)} numbers from {values.min():.4g} to {values.max():.4g}, mean {values.mean():.4g}, "
        f"standard deviation {values.std():.4g}; they begin {', '.join(f'{value:.3g}' for value in values[:4])}"
    )


def write_page(root, out=None, *, names: Sequence[str] = (), clips: int | None = None) -> pathlib.Path:
    """Writes the page about the records folder `root` and returns its path.

    Args:
      root: the records folder.
      out: the page; by default beside the folder, with its name and `.html`.
      names: clips to show; empty: a sample.
      clips: the size of the sample; by default one clip of each class, at most 60.

    Raises: PreparationError, RecordsError.
    """
    opened = records.Records(root)
    out = (
        pathlib.Path(out) if out is not None else opened.root.resolve().with_name(opened.root.resolve().name + ".html")
    )
    html_page.check_replaceable(out, _COMMAND)
    labels = opened.index["label"]
    number = clips or min(CLIPS, len(np.unique(labels)))
    rows = named_rows(opened, names) if names else sample(labels, number)
    page = html_page.fill(
        _COMMAND,
        f"{opened.root.resolve().name}: records",
        page_data(opened, rows),
        scripts=(html_page.SCRIPT, skeleton_player.SCRIPT, _SCRIPT),
        styles=(skeleton_player.STYLE, html_page.STYLE),
    )
    html_page.write(out, page)
    print(f"{out}: {len(rows)} of {counted(len(opened), 'clip')}, {len(page) / 1e6:.1f} MB; open it in a browser")
    return out


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", metavar="DIR", help="the records folder")
    parser.add_argument("--name", action="append", default=[], metavar="CLIP", help="a clip to show; may be repeated")
    parser.add_argument(
        "--clips",
        type=positive,
        help=f"number of clips to show (default: one of each class, at most {CLIPS}; {MANY_CLIPS} make about 10 MB)",
    )
    parser.add_argument("--out", help="the page to write (default: DIR.html)")
    options = parser.parse_args(arguments)
    if options.name and options.clips:
        parser.error("--name and --clips exclude each other: name the clips, or give the size of a sample")
    with plain_errors():
        write_page(options.records, options.out, names=options.name, clips=options.clips)


if __name__ == "__main__":
    main()
