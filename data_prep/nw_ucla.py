"""NW-UCLA (Northwestern-UCLA Multiview Action 3D) as its skeletons are distributed: one JSON file per clip -> records.

    python -m data_prep.nw_ucla --source nw_ucla.tar.xz --out DIR [--overwrite]

The file name carries what the clip is, as `a05_s04_e02_v01`: action, subject, replication, camera. Inside, `skeletons`
is (T, 20, 3) in metres and `label` repeats the action as 1 to 10. Cameras 1 and 2 train, camera 3 tests: 1,020 and 464
clips.
"""

import json
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from data_prep import builders, sources
from mmcl_jax import records

ACTIONS = {  # number in the file name -> class name, in label order
    1: "pick up with one hand",
    2: "pick up with two hands",
    3: "drop trash",
    4: "walk around",
    5: "sit down",
    6: "stand up",
    8: "donning",
    9: "doffing",
    11: "throw",
    12: "carry",
}
NUM_JOINTS = 20
NUM_CLIPS = {"train": 1020, "test": 464}  # protocol xview, complete dataset
INFO = records.DatasetInfo(
    dataset="nw_ucla",
    layout="nw_ucla",
    units="metres",
    class_names=tuple(ACTIONS.values()),
    image_source=None,
    preprocessing="skeletons as distributed, untouched",
)
_NAME = re.compile(r"a(\d{1,3})_s(\d{1,3})_e(\d{1,3})_v(\d{1,3})")


def read_clip(path: pathlib.Path) -> builders.Clip:
    """One JSON file as a clip of one body, skeleton (T, 1, 20, 3).

    Raises: SourceFileError, saying why, where the file is not as distributed. A label that contradicts the name is such
    a case: there is no telling which of the two is right.
    """
    named = _NAME.fullmatch(path.stem)
    if not named:
        raise sources.SourceFileError("the name is not of the form a05_s04_e02_v01")
    action, subject, replication, camera = map(int, named.groups())
    if action not in ACTIONS:
        raise sources.SourceFileError(f"action {action} in the name, expected one of {list(ACTIONS)}")
    label = list(ACTIONS).index(action)
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        skeleton = np.array(contents["skeletons"], dtype=np.float32)
        stored_label = contents["label"]
    except OSError as error:
        raise sources.SourceFileError(f"cannot be read ({error})") from error
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise sources.SourceFileError(
            f"not a JSON clip with 'skeletons' and 'label', or truncated ({error!r})"
        ) from error
    if skeleton.shape[:1] == (0,):
        raise sources.SourceFileError("a clip of zero frames")
    if skeleton.shape[1:] != (NUM_JOINTS, 3):
        raise sources.SourceFileError(f"skeletons of shape {skeleton.shape}, expected (T, {NUM_JOINTS}, 3)")
    if stored_label != label + 1:
        raise sources.SourceFileError(
            f"label {stored_label!r} in the file, but the name says {label + 1} (a{action:02d})"
        )
    return builders.Clip(path.stem, label, subject, camera, 1, replication, skeleton[:, np.newaxis])


def read_clips(files: dict[str, pathlib.Path]) -> Iterator[builders.Clip | builders.SetAside]:
    """Clips of the JSON files, a SetAside in the place of each that cannot be used."""
    for path in files.values():
        try:
            yield read_clip(path)
        except sources.SourceFileError as error:
            yield builders.SetAside(path.name, str(error))


def prepare(source, out, overwrite: bool = False) -> None:
    """Writes the records folder `out` from the archive or folder `source`. Raises: PreparationError."""
    out = builders.check_destination(out, overwrite)
    with sources.open_source(source, ".json", out.with_name(out.name + ".unpacked")) as (files, set_aside):
        clips = read_clips(files)
        builders.write_records(out, INFO, clips, total=len(files), set_aside=set_aside, overwrite=overwrite)
    builders.print_counts(out, "xview", NUM_CLIPS)


def main(arguments: list[str] | None = None) -> None:
    parsed = sources.argument_parser(__doc__).parse_args(arguments)
    with builders.plain_errors():
        prepare(parsed.source, parsed.out, parsed.overwrite)


if __name__ == "__main__":
    main()
