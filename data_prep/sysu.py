"""Prepares SYSU 3D Human-Object Interaction (SYSU-Action: 12 actions, 40 subjects, 480 clips) as distributed.

    python -m data_prep.sysu --source SYSU3DAction --out DIR [--overwrite]

Only skeletons (Kinect v1) are read: files `PERSON/videoK/sklWorld.mat`, beneath a folder `3DvideoNorm`, with `SW`
(20, 3, T). K is the action, 1 to 12; each person performs each action once. Persons have no numbers, so subjects are
numbered 1 to 40 in the order of the folder names (capitals first). Pictures (`rgb`, `depth`) and pixel coordinates
(`sklImage.mat`) are not read.

Two settings are published (Hu et al., CVPR 2015), each averaged over 30 random divisions. In the first, half of each
action's clips train; in the second, half of the subjects. Here they are the protocols `same_subject_1` to
`same_subject_30` and `xsub_1` to `xsub_30`, drawn with a fixed seed. They are not the authors' divisions.

We had no copy of this dataset. File names, variable names, shapes and the meaning of the folders come from public code
that reads it. We could not verify that SW is in meters, nor that the actions have the order of the paper. The data show
the order of the joints: hip center first, as in that code, or head first (the spine joint is close to the hips).
"""

import itertools
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np

from data_prep.formats import sources
from data_prep.preparation import commands
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import plain_errors

ACTIONS = (
    "drinking",
    "pouring",
    "calling phone",
    "playing phone",
    "wearing backpacks",
    "packing backpacks",
    "sitting chair",
    "moving chair",
    "taking out wallet",
    "taking from wallet",
    "mopping",
    "sweeping",
)
NUM_JOINTS = 20
NUM_SUBJECTS = 40
NUM_DIVISIONS = 30
NUM_CLIPS = {"train": 240, "test": 240}  # of every protocol, complete dataset
_FILE = "sklWorld.mat"
_NAME = re.compile(r"(.+)_video(\d{1,3})", re.IGNORECASE)
_HEAD_FIRST = 1.5  # ratio of the bones 1-2 and 3-4: 0.06 to 0.5 in NW-UCLA (hip first), 2.1 to 5.6 in UTD-MHAD (head)


def name_of(path: pathlib.PurePath) -> str:
    """The clip name, such as BoTong_video1, of a file PERSON/videoK/sklWorld.mat."""
    return "_".join(path.parts[-3:-1])


def read_skeleton(path: pathlib.Path) -> np.ndarray:
    """`SW` as float32 (T, 20, 3). Raises: SourceFileError."""
    return sources.read_mat_skeleton(path, "SW", NUM_JOINTS)


def number_subjects(names: Sequence[str]) -> dict[str, int]:
    """Numbers the persons in clip names from 1, in alphabetical order."""
    persons = sorted({named[1] for named in map(_NAME.fullmatch, names) if named})
    return {person: number for number, person in enumerate(persons, start=1)}


def read_clips(files: dict[str, pathlib.Path]) -> Iterator[records.Clip | records.SetAside]:
    """Yields the clips of the skeleton files by name, with a SetAside in place of each that cannot be used."""
    subjects = number_subjects(list(files))
    for name, path in files.items():
        named = _NAME.fullmatch(name)
        action = int(named[2]) if named else 0
        if not 1 <= action <= len(ACTIONS):
            form = f"PERSON/videoK/{_FILE}, K from 1 to {len(ACTIONS)}"
            yield records.SetAside(f"{name}/{_FILE}", f"the path is not of the form {form}")
            continue
        try:
            skeleton = read_skeleton(path)
        except sources.SourceFileError as error:
            yield records.SetAside(f"{name}/{_FILE}", str(error))
            continue
        subject = subjects[named[1]]
        fold = (subject - 1) * len(ACTIONS) + action
        yield records.Clip(name, action - 1, subject, 1, 1, 1, skeleton[:, np.newaxis], fold=fold)


def find_layout(skeletons: Sequence[np.ndarray]) -> str:
    """Finds the order of the joints from the lengths of bones: 'nw_ucla' (hip center first) or 'utd_mhad' (head first).

    `skeletons` are [T, 1, 20, 3] each.
    """
    ratios = []
    for skeleton in skeletons:
        with np.errstate(all="ignore"):  # of NaN and infinity, which are refused later, and of bones of length 0
            bones = np.linalg.norm(skeleton[:, 0, [0, 2]] - skeleton[:, 0, [1, 3]], axis=-1)
            first, second = np.median(bones, axis=0)
            ratios.append(first / second)
    sound = [ratio for ratio in ratios if np.isfinite(ratio)]
    return "utd_mhad" if sound and np.median(sound) > _HEAD_FIRST else "nw_ucla"


def draw_protocols() -> dict[str, records.Protocol]:
    """Draws the protocols of both settings.

    Cross-subject protocols divide subjects 1 to 40; same-subject protocols divide folds, one per subject and action.
    """
    rng = np.random.default_rng(0)
    subjects = np.arange(1, NUM_SUBJECTS + 1)
    found = {}
    for number in range(1, NUM_DIVISIONS + 1):
        train = rng.permutation(subjects)[: NUM_SUBJECTS // 2]
        found[f"xsub_{number}"] = records.Protocol("subject", tuple(sorted(train.tolist())))
    for number in range(1, NUM_DIVISIONS + 1):
        halves = [rng.permutation(subjects)[: NUM_SUBJECTS // 2] for _ in ACTIONS]
        folds = [(half - 1) * len(ACTIONS) + action for action, half in enumerate(halves, start=1)]
        found[f"same_subject_{number}"] = records.Protocol("fold", tuple(sorted(np.concatenate(folds).tolist())))
    return found


def dataset_info(layout: str) -> records.DatasetInfo:
    return records.DatasetInfo(
        dataset="sysu",
        layout=layout,
        units="metres",
        class_names=ACTIONS,
        image_source=None,
        preprocessing="skeletons as distributed, untouched; no images",
        protocols=draw_protocols(),
    )


def prepare(source, out, overwrite: bool = False) -> None:
    """Writes the records folder `out` from the archive or folder `source`. Raises: PreparationError."""
    out = records.check_destination(out, overwrite)
    scratch = out.with_name(out.name + ".unpacked")
    with sources.open_source(source, _FILE, scratch, name_of) as (files, set_aside):
        items = list(read_clips(files))
    layout = find_layout([item.skeleton for item in items if isinstance(item, records.Clip)])
    info = dataset_info(layout)
    records.write_records(out, info, items, total=len(items), set_aside=set_aside, overwrite=overwrite)
    print(f"joints: {', '.join(itertools.islice(info.skeleton_layout.joints, 4))}, ...")
    subjects = len(number_subjects(list(files)))
    if subjects != NUM_SUBJECTS:
        print(
            f"NOTE: {subjects} persons, expected {NUM_SUBJECTS}; their numbers and the protocols differ from those "
            "of the complete dataset"
        )
    for protocol in ("same_subject_1", "xsub_1"):
        commands.print_counts(out, protocol, NUM_CLIPS)


def main(arguments: list[str] | None = None) -> None:
    parsed = commands.argument_parser(__doc__).parse_args(arguments)
    with plain_errors():
        prepare(parsed.source, parsed.out, parsed.overwrite)


if __name__ == "__main__":
    main()
