"""Imports poses: annotation pickles of pyskl and mmaction2, Kinetics-skeleton, and folders of other pose files.

    python -m data_prep.pyskl --source ntu60_3danno.pkl --out DIR [--overwrite]
    python -m data_prep.pyskl --source ntu60_hrnet.pkl --out DIR
    python -m data_prep.pyskl --source gym_hrnet.pkl --class_names FILE --out DIR
    python -m data_prep.pyskl --source ntu60_xsub_train.pkl ntu60_xsub_val.pkl --out DIR
    python -m data_prep.pyskl --source kinetics_train kinetics_val --out DIR
    python -m data_prep.pyskl --source my_clips --split 0.25 --out DIR

A file is a dict of `annotations` and `split`. In earlier versions it is a list: the annotations of one split, which the
file's name names. An annotation has `frame_dir`, `label`, `keypoint` (M, T, V, C), `total_frames`, and in 2D also
`keypoint_score` (M, T, V) and `img_shape` (height, width). Files are read as plain data; no code in them is run. They
must fit into memory.

Every split becomes a protocol (xsub_train and xsub_val: `xsub`; train1 and test1: `split1`; train and val: `split`). If
names and labels are those of NTU RGB+D, its own protocols work too, and so do configs such as `configs/ntu60.py:xsub`.
Other datasets have numbered classes, unless `--class_names` gives a file with one name per line; their subject, camera,
setup and replication are 0.

A folder holds Kinetics-skeleton's files, one for each clip with its label, or a folder for each class with pose files
of any kind that `mmcl_jax.poses.files` reads, such as OpenPose's folders of frames. Several folders are the splits.

25 joints of three coordinates are NTU's, in meters. Frames without a body are left out, and joint 2 of the first frame
becomes the origin, as in `data_prep.ntu`. Two coordinates are joints in the picture, of a layout that their number
tells: 17 COCO (133: the first 17 of them), 18 and 25 OpenPose, 26 Halpe, 33 BlazePose, 13 those that all share.
x = (x - w/2) / (w/2), y = (y - h/2) / (h/2), y downwards, with the score as confidence; `--size` gives the size of
pictures without `img_shape`. A joint with a score of at most 0.01 was not found; it is moved to the middle of the
picture, as in pyskl. If a clip has more than two bodies, the two that are seen longest are used (by the sum of their
scores, if there are any).

What cannot be right is refused: a third coordinate that is no confidence, coordinates from 0 to 1 where `img_shape`
says pixels, a split none of whose names is a clip's. Options say what is meant: `--layout h36m17` for the 17 joints of
Human3.6M in meters (and other layouts of three coordinates), `--coordinates shares` for shares of the picture,
`--split 0.25` to divide the clips at random, or `--split FILE` for a JSON file of lists of names.
"""

import argparse
import pathlib

from data_prep.formats import annotations, division, ntu_clips, pose_folders
from data_prep.preparation import commands
from data_prep.preparation.pose_forms import ALIASES, COORDINATES
from data_prep.preparation.pose_importer import Importer
from mmcl_jax.data import records
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.runtime.errors import PreparationError, plain_errors


def prepare(
    paths,
    out,
    *,
    class_names=None,
    layout: str | None = None,
    coordinates: str | None = None,
    size: tuple[int, int] | None = None,
    split: str | None = None,
    overwrite: bool = False,
) -> None:
    """Writes the records folder `out` from annotation files or folders of pose files.

    Args:
      paths: one file with all splits, or several files of one split each; or folders, see `pose_folders.read`.
      out: the records folder.
      class_names: file of class names, one per line, by label; not read for NTU RGB+D.
      layout: a name in LAYOUTS, or an alias; None: the one that the numbers of joints and channels tell.
      coordinates: one of COORDINATES; None: pixels in annotations, and what the files tell in folders.
      size: width and height of pictures of unknown size.
      split: replaces the splits of the files, see `divide`.
      overwrite: replace existing records after the new ones are complete.

    Raises: PreparationError.
    """
    out = records.check_destination(out, overwrite)
    paths = [pathlib.Path(path) for path in paths]
    names = commands.read_class_names(pathlib.Path(class_names)) if class_names is not None else None
    layout = ALIASES.get(layout or "", layout)
    are_folders = [path.is_dir() for path in paths]
    if any(are_folders) and not all(are_folders):
        raise PreparationError(f"{paths[0]}: files and folders together; give one or the other as --source")
    if any(are_folders):
        contents = pose_folders.read(paths, layout, coordinates, size)
        source, names = contents.source, names or contents.class_names
        layout, coordinates = contents.layout, contents.coordinates
    else:
        source = annotations.read(paths)
    if split is not None:
        division.divide(source, split)
    try:
        importer = Importer(source, names, layout, coordinates or "pixels", size)
    except PreparationError as error:
        raise PreparationError(f"{', '.join(map(str, paths))}: {error}") from error
    info = importer.dataset_info(paths[0].stem)
    records.write_records(
        out,
        info,
        importer.clips(),
        total=len(source.annotations),
        set_aside=source.set_aside,
        overwrite=overwrite,
    )
    for line in importer.report():
        print(line)
    for protocol in importer.protocols:
        commands.print_counts(out, protocol)
    for protocol, expected in ntu_clips.NUM_CLIPS.items() if importer.is_ntu else ():
        if protocol.startswith(f"ntu{importer.num_classes}"):
            commands.print_counts(out, protocol, expected)


def _size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT. Raises: ArgumentTypeError."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a width and a height in pixels, as 1920x1080")
    return int(width), int(height)


def main(arguments: list[str] | None = None) -> None:
    parser = commands.argument_parser(
        __doc__, source="the .pkl file, several .pkl files of one split each, or folders of pose files", nargs="+"
    )
    parser.add_argument("--class_names", help="a file of class names, one per line, in the order of the labels")
    parser.add_argument("--layout", choices=(*LAYOUTS, *ALIASES), help="the joints (default: what their number tells)")
    parser.add_argument(
        "--coordinates", choices=COORDINATES, help="pixels (the default), shares of the picture, or metres"
    )
    parser.add_argument("--size", type=_size, help="of pictures of unknown size, as 1920x1080")
    parser.add_argument(
        "--split",
        help="in place of the source's own splits: the share of the clips that test, as 0.25, or a JSON file of lists "
        "of clip names",
    )
    parsed = parser.parse_args(arguments)
    with plain_errors():
        prepare(
            parsed.source,
            parsed.out,
            class_names=parsed.class_names,
            layout=parsed.layout,
            coordinates=parsed.coordinates,
            size=parsed.size,
            split=parsed.split,
            overwrite=parsed.overwrite,
        )


if __name__ == "__main__":
    main()
