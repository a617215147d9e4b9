"""Every reader of files: a sound tree, and how the program reads it.

The functions that read are the commands themselves (`prepare`, `read_scores`, `Records`), with nothing replaced. What
they read comes back as an `Outcome`, whose items can be compared with those of the sound tree.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import pathlib
import pickle
import tarfile
import zipfile
from collections.abc import Callable

import numpy as np

from tests.fuzz import trees
from tests.fuzz.trees import Tree


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was read.

    Attributes:
      items: a digest of each item (a clip, an array, a row), by name.
      set_aside: what was left out, and said.
      about: a digest of what belongs to no single item.
    """

    items: dict[str, str]
    set_aside: tuple[str, ...] = ()
    about: str = ""


@dataclasses.dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
      make: writes the sound input into an empty folder.
      read: reads the input in the first folder; may write into the second.
      unnoticed: why a change may be accepted: what the format has no way to tell.
      weight: how often it is drawn.
    """

    make: Callable[[pathlib.Path], None]
    read: Callable[[pathlib.Path, pathlib.Path], Outcome]
    unnoticed: str
    weight: float = 1.0


READERS: dict[str, Reader] = {}


def _reader(make: Callable[[pathlib.Path], None], unnoticed: str, weight: float = 1.0):
    def register(read):
        READERS[read.__name__] = Reader(make, read, unnoticed, weight)
        return read

    return register


def sound_tree(name: str, folder: pathlib.Path) -> Tree:
    """The sound input of a reader, made in an empty folder."""
    READERS[name].make(folder)
    return trees.read(folder)


def digest(*parts) -> str:
    """A digest of arrays, bytes and anything that has a text."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype} {part.shape} ".encode() + np.ascontiguousarray(part).tobytes())
        else:
            found.update(part if isinstance(part, bytes) else repr(part).encode("utf-8", "backslashreplace"))
    return found.hexdigest()[:16]


# Records, and the commands that write them.


def _records(out: pathlib.Path, listed: bool = True) -> Outcome:
    """The records in `out`, all of them read; `listed`: and what was set aside."""
    from mmcl_jax.data.records import IMAGES, INDEX_FIELDS, Records

    opened = Records(out)
    items = {}
    for row, name in enumerate(opened.index["name"].tolist()):
        parts: list = [opened.skeleton(row), *(int(opened.index[field][row]) for field in INDEX_FIELDS)]
        if opened.has_images and not opened.clips_without([row], IMAGES):
            parts.append(opened.image_file(row))
        for text_set in opened.text_sets:
            if not opened.clips_without([row], text_set):
                parts += [opened.text(row, text_set), opened.answer(row, text_set)]
        items[name] = digest(*parts)
    set_aside: tuple[str, ...] = ()
    if listed:
        stored = json.loads((out / "set_aside.json").read_text())
        set_aside = tuple(f"{item['name']}: {item['reason']}" for item in stored)
    return Outcome(items, set_aside, digest(opened.info))


def _ntu_names() -> list[str]:
    return ["S001C001P001R001A001", "S001C003P002R001A005", "S002C002P003R002A060", "S003C001P006R001A008"]


def _make_ntu(folder: pathlib.Path) -> None:
    from tests.helpers import ntu_files

    texts = (ntu_files.one_person(13), ntu_files.two_persons(14), ntu_files.random_clip(np.random.default_rng(3)))
    for name, text in zip(_ntu_names(), (*texts, ntu_files.one_person(12, seed=4)), strict=True):
        (folder / f"{name}.skeleton").write_text(text)


@_reader(_make_ntu, "a text of numbers without a checksum: another number in it is another position")
def ntu(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from data_prep import ntu as command

    command.prepare(source, work / "out", workers=1)
    return _records(work / "out")


def _make_ntu_zip(folder: pathlib.Path) -> None:
    raw = folder / "raw"
    raw.mkdir()
    _make_ntu(raw)
    with zipfile.ZipFile(folder / "nturgbd_skeletons.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(raw.iterdir()):
            archive.writestr(zipfile.ZipInfo(f"nturgb+d_skeletons/{path.name}"), path.read_bytes())
            path.unlink()
    raw.rmdir()


@_reader(_make_ntu_zip, "a member that was packed so, with a checksum that is right")
def ntu_zip(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from data_prep import ntu as command

    command.prepare(source / "nturgbd_skeletons.zip", work / "out", workers=1)
    return _records(work / "out")


def _make_nw_ucla(folder: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    for name, label in (
        ("a01_s01_e00_v01", 1),
        ("a02_s02_e01_v02", 2),
        ("a08_s03_e02_v03", 7),
        ("a12_s04_e03_v03", 10),
    ):
        joints = (rng.uniform(-1, 1, (1, 20, 3)) + rng.normal(0, 0.01, (4, 20, 3))).round(3)
        contents = {"file_name": name, "skeletons": joints.tolist(), "label": label}
        (folder / f"{name}.json").write_text(json.dumps(contents))


@_reader(_make_nw_ucla, "JSON without a checksum: another number in it is another position")
def nw_ucla(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from data_prep import nw_ucla as command

    command.prepare(source, work / "out")
    return _records(work / "out")


def _make_tar(mode: str, suffix: str) -> Callable[[pathlib.Path], None]:
    def make(folder: pathlib.Path) -> None:
        raw = folder / "raw"
        raw.mkdir()
        _make_nw_ucla(raw)
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for path in sorted(raw.iterdir()):
                member = tarfile.TarInfo(f"all_sqe/{path.name}")
                member.size = path.stat().st_size
                archive.addfile(member, io.BytesIO(path.read_bytes()))
                path.unlink()
        raw.rmdir()
        data = stream.getvalue()
        if mode == "gz":
            import gzip

            data = gzip.compress(data, mtime=0)
        elif mode == "xz":
            import lzma

            data = lzma.compress(data)
        (folder / f"nw_ucla{suffix}").write_bytes(data)

    return make


def _read_tar(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from data_prep import nw_ucla as command

    (archive,) = list(source.glob("nw_ucla.tar*"))[:1] or [source / "nw_ucla.tar"]
    command.prepare(archive, work / "out")
    return _records(work / "out")


@_reader(
    _make_tar("", ".tar"), "a tar's contents have no checksum, only its headers: another digit is another position"
)
def nw_ucla_tar(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    return _read_tar(source, work)


@_reader(_make_tar("gz", ".tar.gz"), "packed so, with a checksum of the compression that is right")
def nw_ucla_tar_gz(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    return _read_tar(source, work)


@_reader(_make_tar("xz", ".tar.xz"), "packed so, with a checksum of the compression that is right")
def nw_ucla_tar_xz(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    return _read_tar(source, work)


def _save_mat(path: pathlib.Path, **arrays: np.ndarray) -> None:
    import scipy.io

    from tests.fuzz.mutations.matlab_files import dateless

    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    scipy.io.savemat(stream, arrays, do_compression=True)
    path.write_bytes(dateless(stream.getvalue()))


def _make_utd(folder: pathlib.Path) -> None:
    rng = np.random.default_rng(1)
    for name in ("a1_s1_t1", "a2_s2_t1", "a27_s8_t4"):
        skeleton = rng.uniform(-0.4, 0.4, (20, 3, 1)) + rng.normal(0, 0.01, (20, 3, 6)) + [[[0.0], [0.0], [2.5]]]
        _save_mat(folder / f"{name}_skeleton.mat", d_skel=skeleton)
    depth = np.zeros((240, 320, 2), np.uint16)
    depth[60:200, 120:200] = 2500
    _save_mat(folder / "a1_s1_t1_depth.mat", d_depth=depth)


@_reader(_make_utd, "numbers of a .mat file: those that are not compressed have no checksum", weight=0.7)
def utd_mhad(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from data_prep import utd_mhad as command

    command.prepare(source, work / "out", workers=1)
    return _records(work / "out")


def _make_sysu(folder: pathlib.Path) -> None:
    rng = np.random.default_rng(2)
    for person, action in (("Ann", 1), ("Ann", 2), ("Bob", 1), ("Bob", 12)):
        skeleton = rng.uniform(-0.4, 0.4, (20, 3, 1)) + rng.normal(0, 0.01, (20, 3, 5))
        _save_mat(folder / "3DvideoNorm" / person / f"video{action}" / "sklWorld.mat", SW=skeleton)


@_reader(_make_sysu, "numbers of a .mat file: those that are not compressed have no checksum", weight=0.7)
def sysu(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from data_prep import sysu as command

    command.prepare(source, work / "out")
    return _records(work / "out")


def _make_pyskl_3d(folder: pathlib.Path) -> None:
    rng, annotations = np.random.default_rng(3), []
    for name in (*_ntu_names(), "S001C001P005R001A010", "S001C001P007R001A011"):
        keypoint = (rng.normal(0, 0.4, (1, 1, 25, 3)) + rng.normal(0, 0.01, (2, 6, 25, 3))).astype(np.float32)
        label = int(name[-3:]) - 1
        annotations.append({"frame_dir": name, "label": label, "keypoint": keypoint, "total_frames": 6})
    names = [stored["frame_dir"] for stored in annotations]
    split = {"xsub_train": names[:4], "xsub_val": names[4:]}
    (folder / "ntu60_3danno.pkl").write_bytes(pickle.dumps({"split": split, "annotations": annotations}, protocol=4))


@_reader(_make_pyskl_3d, "a pickle has no checksum: another number in it is another position, name or label")
def pyskl_3d(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from data_prep import pyskl as command

    command.prepare([source / "ntu60_3danno.pkl"], work / "out")
    return _records(work / "out")


def _make_pyskl_2d(folder: pathlib.Path) -> None:
    rng, annotations = np.random.default_rng(4), []
    for number in range(6):
        keypoint = (rng.uniform(100, 900, (1, 1, 17, 2)) + rng.normal(0, 5, (1, 8, 17, 2))).astype(np.float16)
        score = rng.uniform(0.3, 1, (1, 8, 17)).astype(np.float16)
        stored = {"frame_dir": f"v{number}", "label": number % 3, "img_shape": (1080, 1920), "total_frames": 8}
        annotations.append({**stored, "keypoint": keypoint, "keypoint_score": score})
    (folder / "gym.pkl").write_bytes(pickle.dumps(annotations, protocol=4))
    (folder / "classes.txt").write_text("wave\nkick\nsit down\n")
    division = {"train": ["v0", "v1", "v2"], "test": ["v3", "v4", "v5"]}
    (folder / "division.json").write_text(json.dumps(division))


@_reader(_make_pyskl_2d, "a pickle, a list of names and a division have no checksum; another name is another class")
def pyskl_2d(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from data_prep import pyskl as command

    options = {"class_names": source / "classes.txt", "split": str(source / "division.json")}
    command.prepare([source / "gym.pkl"], work / "out", **options)
    return _records(work / "out")


def _make_ctrgcn(folder: pathlib.Path) -> None:
    rng, arrays = np.random.default_rng(5), {}
    for part, count in (("train", 6), ("test", 3)):
        x = np.zeros((count, 8, 150), np.float32)
        for row in range(count):
            x[row, : 4 + row % 4, :75] = rng.normal(0, 0.3, 75) + rng.normal(0, 0.01, (4 + row % 4, 75))
        arrays[f"x_{part}"], arrays[f"y_{part}"] = x, np.eye(3)[np.arange(count) % 3]
    np.savez(folder / "mine.npz", **arrays)
    (folder / "classes.txt").write_text("wave\nkick\nsit down\n")


@_reader(_make_ctrgcn, "packed so, with a checksum that is right; another class name is another name")
def ctrgcn(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from data_prep import ctrgcn_arrays as command

    command.prepare(source / "mine.npz", work / "out", class_names=source / "classes.txt")
    return _records(work / "out")


def _make_ctrgcn_names(folder: pathlib.Path) -> None:
    rng, arrays = np.random.default_rng(6), {}
    lists = {"train": [1, 2, 4, 5], "test": [3, 6]}  # performers of xsub
    for part, performers in lists.items():
        names = [f"S001C001P{performer:03d}R001A{performer:03d}" for performer in performers]
        (folder / f"{part}.txt").write_text("\n".join(names) + "\n")
        count = len(performers)
        x = np.zeros((count, 8, 150), np.float32)
        x[:, :6, :75] = rng.normal(0, 0.3, (count, 1, 75)) + rng.normal(0, 0.01, (count, 6, 75))
        arrays[f"x_{part}"], arrays[f"y_{part}"] = x, np.eye(60)[np.array(performers) - 1]
    np.savez_compressed(folder / "NTU60_CS.npz", **arrays)


@_reader(_make_ctrgcn_names, "packed so, with a checksum that is right; a name that agrees with its label is a name")
def ctrgcn_names(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from data_prep import ctrgcn_arrays as command

    lists = {"train_names": source / "train.txt", "test_names": source / "test.txt"}
    command.prepare(source / "NTU60_CS.npz", work / "out", **lists)
    return _records(work / "out")


def _jpeg(value: int, size: tuple[int, int] = (24, 24)) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", size, (value, 2 * value, 30)).save(stream, "JPEG")
    return stream.getvalue()


def _make_records(folder: pathlib.Path) -> None:
    from mmcl_jax.data.layouts import Layout
    from mmcl_jax.data.records import Clip, DatasetInfo, Protocol, write_records

    layout = Layout.from_names(joints="a, b, c, d", bones="b < a, c < b, d < c", centre="a")
    info = DatasetInfo(
        dataset="mine",
        layout=layout,
        units="metres",
        class_names=("wave", "kick"),
        image_source="rgb",
        preprocessing="made up",
        protocols={"xsub": Protocol("subject", (1,))},
    )
    rng = np.random.default_rng(7)

    def clips():
        for number in range(4):
            skeleton = rng.normal(0, 0.4, (3 + number, 1, 4, 3)).astype(np.float32)
            texts = {"blip/holding/token_ids": rng.normal(size=3).astype(np.float32)}
            subject = 1 + number // 2
            yield Clip(f"clip {number}", number % 2, subject, 1, 1, 1, skeleton, _jpeg(10 * number), texts)

    write_records(folder / "records", info, clips())


@_reader(
    _make_records,
    "names of classes, of units and of subjects, and pixels, are what they say; skeletons have ArrayRecord's checksum",
    weight=3,
)
def records(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from mmcl_jax.data.records import Records

    root = source / "records"
    outcome = _records(root, listed=False)
    opened = Records(root)
    for name in opened.protocols:
        for part in ("train", "test"):
            opened.select(name, part)
    if opened.has_images:
        opened.image(0, 16)
    return outcome


@_reader(_make_records, "the page shows what the records hold, and says in its place what cannot be read")
def inspect(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from data_prep import inspect as command

    command.main([str(source / "records"), f"--out={work / 'out.html'}"])
    return Outcome({"page": digest((work / "out.html").read_bytes())})


def _make_text(folder: pathlib.Path) -> None:
    from data_prep.text import text_sets
    from mmcl_jax.data.records import Clip, DatasetInfo, write_records

    info = DatasetInfo("mine", "nw_ucla", "metres", ("wave", "kick"))
    rng = np.random.default_rng(8)
    names = [f"clip_{number}" for number in range(4)]
    clips = (Clip(name, 0, 1, 1, 1, 1, rng.normal(0, 0.4, (4, 1, 20, 3)).astype(np.float32)) for name in names)
    write_records(folder / "records", info, clips)
    outputs = text_sets.Outputs(folder / "text", "blip/holding/token_ids")
    outputs.claim({"model": "blip", "width": 3, "question": "holding?"})
    for name in names:
        outputs.write(name, rng.normal(size=3).astype(np.float32), "yes", 1)


@_reader(_make_text, "packed so, with a checksum that is right; about.json has none: another question is another text")
def text_features(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    import shutil

    from data_prep.text import text_sets

    shutil.copytree(source / "records", work / "out")
    text_sets.join(work / "out", source / "text")
    outcome = _records(work / "out", listed=False)
    said = text_sets.Outputs(source / "text", "blip/holding/token_ids")
    lacking = [name for name in outcome.items if said.find(name) is None]
    return dataclasses.replace(outcome, set_aside=tuple(lacking))


_ABOUT_TEXT = {"model": "blip", "width": 3, "question": "holding?", "precision": "float32", "sha256": "0" * 64}


def _make_text_about(folder: pathlib.Path) -> None:
    from data_prep.text import text_sets

    text_sets.Outputs(folder / "text", "blip/holding/token_ids").claim(_ABOUT_TEXT)


@_reader(_make_text_about, "what is compared with the features to be made: another word is another model", weight=0.5)
def text_about(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from data_prep.text import text_sets

    outputs = text_sets.Outputs(source / "text", "blip/holding/token_ids")
    outputs.claim(_ABOUT_TEXT)
    assert outputs.find("clip_0") is None
    return Outcome({"about": digest(sorted((outputs.about or {}).items()))})


def _make_mosaics(folder: pathlib.Path) -> None:
    from data_prep.images import person_crops

    for number in range(3):
        crops = [np.full((person_crops.CROP_HEIGHT, person_crops.CROP_WIDTH, 3), 40 * number, np.uint8)] * 5
        jpeg = person_crops.encode_jpeg(person_crops.mosaic(crops))
        (folder / f"clip_{number}.jpg").write_bytes(jpeg)
    about = {"boxes": "yolo", "weights": "x.pt", "sha256": "0" * 64, "confidence": 0.5, "person_class": "person"}
    (folder / "about.json").write_text(json.dumps(about))
    (folder / "clip_3.set_aside").write_text("no video")


@_reader(_make_mosaics, "pixels and the words of about.json have no checksum: another pixel is another picture")
def mosaics(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from data_prep.images import mosaics as module
    from mmcl_jax.data.records import Clip

    folder = module.ImageFolder(source)
    about = folder.describe("the skeleton")
    items, set_aside = {}, []
    for number in range(4):
        clip = Clip(f"clip_{number}", 0, 1, 1, 1, 1, np.zeros((1, 1, 1, 3), np.float32))
        clip, *reasons = module.with_mosaic(clip, folder)
        set_aside += [reason.reason for reason in reasons]
        if clip.image is not None:
            items[clip.name] = digest(clip.image)
    return Outcome(items, tuple(set_aside), digest(about))


def _make_pictures(folder: pathlib.Path) -> None:
    from PIL import Image

    for number in range(3):
        (folder / f"frame_{number}.jpg").write_bytes(_jpeg(20 * number, (40, 30)))
    Image.new("RGB", (40, 30), (1, 2, 3)).save(folder / "frame_3.png")


@_reader(_make_pictures, "pixels of a JPEG have no checksum; the pictures of a clip have the order of their numbers")
def pictures(source: pathlib.Path, work: pathlib.Path) -> Outcome:

    return _frames(source)


def _frames(path: pathlib.Path) -> Outcome:
    """The frames of a video; SourceFileError is what `mosaics` sets aside, with the name of the file."""
    from data_prep.formats.sources import SourceFileError
    from data_prep.images import videos

    try:
        count = videos.num_frames(path)
        frames = videos.read_frames(path, range(min(count, 5)))
    except SourceFileError as error:
        return Outcome({}, (f"{path.name}: {error}",) * 10)
    return Outcome({"count": str(count), **{str(number): digest(frame) for number, frame in frames.items()}})


def _make_video(folder: pathlib.Path) -> None:
    from tests.helpers import ntu_files

    ntu_files.write_video(folder / "clip_rgb.avi", 14, size=(48, 64))


@_reader(_make_video, "compressed pixels have no checksum: another bit is another picture", weight=0.7)
def video(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    return _frames(source / "clip_rgb.avi")


# Poses.


def _walk() -> np.ndarray:
    """float64 [T, V, 2] in pixels."""
    rng = np.random.default_rng(10)
    return (rng.uniform(100, 900, (1, 17, 2)) + rng.normal(0, 5, (6, 17, 2))).round(1)


def _poses(path: pathlib.Path) -> Outcome:
    from mmcl_jax.poses.files import read_clips
    from mmcl_jax.poses.types import PosesError

    items, refused = {}, []
    for name, poses in read_clips(path, size=(1920, 1080), frame_rate=30.0):
        if isinstance(poses, PosesError):
            refused.append(f"{name}: {poses}")
        else:
            items[name] = digest(*poses.dense())
    return Outcome(items, tuple(refused))


def _make_pose_table(folder: pathlib.Path) -> None:
    lines = [",".join(f"{axis}{joint}" for joint in range(17) for axis in "xy")]
    lines += [",".join(map(str, frame.reshape(-1).tolist())) for frame in _walk()]
    (folder / "walk.csv").write_text("\n".join(lines) + "\n")


@_reader(_make_pose_table, "a table of numbers without a checksum: another number in it is another position")
def pose_table(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    return _poses(source / "walk.csv")


def _make_pose_array(folder: pathlib.Path) -> None:
    np.savez(folder / "walk.npz", keypoints=_walk())


@_reader(_make_pose_array, "packed so, with a checksum that is right", weight=0.5)
def pose_array(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    return _poses(source / "walk.npz")


def _make_pose_pickle(folder: pathlib.Path) -> None:
    walk = _walk().astype(np.float32)
    one = {"label": 0, "keypoint": walk[np.newaxis], "keypoint_score": np.full((1, 6, 17), 0.9, np.float32)}
    clips = [{**one, "frame_dir": name, "img_shape": (1080, 1920), "total_frames": 6} for name in ("a", "b")]
    (folder / "walk.pkl").write_bytes(pickle.dumps({"split": {"train": ["a"], "test": ["b"]}, "annotations": clips}))


@_reader(_make_pose_pickle, "a pickle without a checksum: another number in it is another position or name")
def pose_pickle(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    return _poses(source / "walk.pkl")


def _make_openpose(folder: pathlib.Path) -> None:
    (folder / "walk").mkdir()
    for number, frame in enumerate(_walk()):
        triples = np.concatenate([frame, np.full((17, 1), 0.9)], axis=1)
        joints = np.concatenate([triples, triples[:1]]).reshape(-1).tolist()
        stored = {"version": 1.3, "people": [] if number == 3 else [{"pose_keypoints_2d": joints}]}
        (folder / "walk" / f"walk_{number:012d}_keypoints.json").write_text(json.dumps(stored))


@_reader(_make_openpose, "JSON without a checksum: another number in it is another position")
def pose_openpose(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    return _poses(source / "walk")


def _make_kinetics(folder: pathlib.Path) -> None:
    walk = _walk() / 1000
    clips = folder / "kinetics_train"
    clips.mkdir()
    labels = {}
    for number in range(4):
        frames = []
        for place, frame in enumerate(walk):
            pose = np.concatenate([frame, frame[:1]]).reshape(-1).round(3).tolist()
            frames.append({"frame_index": place + 1, "skeleton": [{"pose": pose, "score": [0.9] * 18}]})
        label = {"label": f"c{number % 2}", "label_index": number % 2}
        (clips / f"clip_{number}.json").write_text(json.dumps({"data": frames, **label}))
        labels[f"clip_{number}"] = {"has_skeleton": True, **label}
    (folder / "kinetics_train_label.json").write_text(json.dumps(labels))


@_reader(_make_kinetics, "JSON without a checksum: another number in it is another position, name or label")
def pose_kinetics(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from data_prep import pyskl as command

    command.prepare([source / "kinetics_train"], work / "out", split="0.5")
    return _records(work / "out")


# Lists of a user's own videos.


def _make_video_table(folder: pathlib.Path) -> None:
    for name in ("monday.mp4", "tuesday.mp4"):
        (folder / name).write_bytes(name.encode())
    lines = ["monday.mp4,wave,ann,12.5,15", "monday.mp4,sit down,ann,15,17.2", "tuesday.mp4,wave,bob,,"]
    (folder / "clips.csv").write_text("\n".join(["file,label,subject,start,end", *lines]) + "\n")


@_reader(
    _make_video_table, "a table of names and times without a checksum: another word in it is another class", weight=0.5
)
def video_table(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from data_prep.formats import video_lists

    listing = video_lists.in_table(source / "clips.csv", source)
    clips = [(clip.name, clip.label, clip.subject, clip.start, clip.end) for clip in listing.clips]
    return Outcome({"table": digest(clips)}, tuple(f"{item.name}: {item.reason}" for item in listing.set_aside))


def _make_video_split(folder: pathlib.Path) -> None:
    lists = {"train": ["ann/wave", "bob/wave.mp4"], "val": ["ann/sit"], "test": ["eve/wave"]}
    (folder / "split.json").write_text(json.dumps(lists))


@_reader(_make_video_split, "the user's own lists of clips: what is in no list is noted", weight=0.5)
def video_split(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from data_prep import videos as command
    from data_prep.formats.video_lists import ListedClip

    names = ("ann/sit", "ann/wave", "bob/wave", "eve/wave")
    clips = [ListedClip(name, pathlib.Path(f"{name}.mp4"), name.partition("/")[2]) for name in names]
    division, notes = command._listed_division(clips, source / "split.json")
    parts = [sorted(part) for part in dataclasses.astuple(division)]
    return Outcome({"division": digest(parts)}, tuple(note.replace(str(source), "") for note in notes))


def _make_merged_classes(folder: pathlib.Path) -> None:
    rows = ["nw_ucla,walk around,walk", ",drop,", '"utd, mhad","wave, left",wave']
    (folder / "classes.csv").write_text("\n".join(["dataset,class,joined", *rows]) + "\n")


@_reader(_make_merged_classes, "a table of names without a checksum: another word in it is another class", weight=0.5)
def merged_classes(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from data_prep import merge

    return Outcome({"table": digest(sorted(merge.read_classes(source / "classes.csv").items()))})


def _make_video_answers(folder: pathlib.Path) -> None:
    lines = []
    for number, top in enumerate(([["wave", 0.7], [None, 0.2]], [[None, 0.6], ["sit down", 0.3]], [["walk", 0.9]])):
        answer = {"input": f"videos/{number}.mp4", "person": 1, "start": 0.0, "end": 2.5, "whole": True, "top": top}
        lines.append(json.dumps(answer, ensure_ascii=False))
    (folder / "first.jsonl").write_text(lines[0] + "\n")  # JSON as a whole, too
    (folder / "others.jsonl").write_text("\n".join(lines[1:]) + "\n")
    (folder / "labels.csv").write_text("clip,action,split\n0.mp4,wave|hail,a\n1.mp4,,a\n2.mp4,walk,b\n")


@_reader(_make_video_answers, "answers and labels without a checksum: another word is another answer", weight=0.5)
def video_answers(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from experiments import video_accuracy

    labels = video_accuracy.read_labels(source / "labels.csv")
    answers = {}
    for name in ("first.jsonl", "others.jsonl"):
        answers |= video_accuracy.read_answers(source / name)
    try:
        text = video_accuracy.report(video_accuracy.match(labels, answers))
    except video_accuracy.LabelsError as error:  # of both files, which the command line names
        raise video_accuracy.LabelsError(f"labels.csv: {error}") from error
    return Outcome({"report": digest(text)})


# Scores, weights, label maps.


def _make_scores(folder: pathlib.Path) -> None:
    from tests.helpers import score_files

    score_files.write(folder / "scores_test.npz")
    (folder / "config.json").write_text(json.dumps({"model": {"graph": "natural"}, "data": {"stream": "joint"}}))
    contents = score_files.contents()
    rows = dict(zip(contents["names"].tolist(), contents["scores"], strict=True))
    (folder / "epoch1_test_score.pkl").write_bytes(pickle.dumps(rows))


@_reader(_make_scores, "scores of a pickle have no checksum; those of an .npz were packed so, with one that is right")
def scores(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from experiments import scores as module

    first, second = module.read_together([source, source / "epoch1_test_score.pkl"])
    rows = zip(first.names.tolist(), first.scores, second.scores, first.labels, strict=True)
    items = {name: digest(one, other, int(label)) for name, one, other, label in rows}
    return Outcome(items, about=digest(first.class_names, first.step, first.stream))


def _state_dict() -> dict[str, np.ndarray]:
    from tests.helpers.torch_files import random_state_dict

    return random_state_dict("ctrgcn")


def _make_npz_weights(folder: pathlib.Path) -> None:
    np.savez(folder / "weights.npz", **_state_dict())


def _weights(path: pathlib.Path) -> Outcome:
    from mmcl_jax.pytorch import published, state_dicts, weight_files
    from mmcl_jax.torch_weights import _counters

    state_dict = state_dicts.unwrapped(weight_files.read_state_dict(path, print))
    try:
        recognized = published.convert(state_dict, "ctrgcn")
        counters = _counters(state_dict, recognized.entries)
    except state_dicts.TorchWeightsError as error:
        raise state_dicts.TorchWeightsError(f"{path}: {error}") from error
    leaves = state_dicts.flat(recognized.variables)
    return Outcome({"/".join(name): digest(leaf) for name, leaf in leaves.items()}, about=digest(counters))


@_reader(_make_npz_weights, "packed so, with a checksum that is right: other finite weights are weights", weight=0.7)
def weights_npz(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    return _weights(source / "weights.npz")


def _make_pt_weights(folder: pathlib.Path) -> None:
    import torch

    from tests.helpers.torch_files import tensors

    torch.save(tensors(_state_dict()), folder / "weights.pt")


@_reader(_make_pt_weights, "saved so, with a checksum that is right: other finite weights are weights", weight=0.7)
def weights_pt(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    return _weights(source / "weights.pt")


def _make_labels(folder: pathlib.Path) -> None:
    (folder / "labels.json").write_text(json.dumps({"wave": "hand waving", "squat": "squat down", "é": "kick"}))


@_reader(_make_labels, "the user's own pairs of names, which are checked against the records", weight=0.5)
def label_map(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from experiments import zero_shot

    pairs = zero_shot.read_labels(source / "labels.json")
    return Outcome({digest(action): digest(name) for action, name in pairs.items()})


# The workdir of a run.


def _make_workdir(folder: pathlib.Path) -> None:
    from mmcl_jax.config import Config

    stored = {**Config().to_json(), "clips": "0123456789abcdef"}
    (folder / "config.json").write_text(json.dumps(stored, indent=2, sort_keys=True) + "\n")
    rows = ["epoch,step,seconds,train_loss,test_top1,test_top5", "1,10,2.5,1.25,0.5,0.9", "2,20,2.5,1,0.6,0.95"]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    starts = [{"step": 0, "time": "2025-01-01", "commit": "abc", "devices": "1 x cpu", "mmcl_jax": "0.1.0"}]
    (folder / "version.json").write_text(json.dumps({"starts": starts}))


@_reader(_make_workdir, "keys that do not change a result may differ, and the rows of metrics.csv are a log")
def workdir(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    import logging
    import shutil

    from absl import logging as absl_logging

    from mmcl_jax.config import Config
    from mmcl_jax.run_log import RunLog, check_evaluation, check_training

    copied = work / "out"
    shutil.copytree(source, copied, symlinks=True)
    check_training(copied, Config())
    check_evaluation(copied, Config())
    log = RunLog(copied, Config(), "0123456789abcdef")
    said: list[str] = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda entry: said.append(entry.getMessage().replace(str(work), ""))
    absl_logging.get_absl_logger().addHandler(listener)
    try:
        log.resume(20)
    finally:
        absl_logging.get_absl_logger().removeHandler(listener)
    log.close()
    items = {f"row {row['epoch']} {row['step']}": digest(sorted(row.items())) for row in log._rows}
    return Outcome(items, tuple(said) * 2)


@_reader(_make_workdir, "what a log says: another number in it is another number")
def report(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from experiments.report import runs

    (run,) = runs.read_runs([source])
    items = {"rows": digest(run.rows)} if run.rows else {}
    return Outcome(items, tuple(run.missing), digest(run.config, run.starts))


@_reader(_make_workdir, "what a log says: another number in it is another number", weight=0.5)
def summarise(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from experiments import summarise as module

    return Outcome({"row": digest(module.summarise(source))})


@_reader(_make_workdir, "what a log says: another number in it is another number", weight=0.5)
def launch(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from experiments.launch import Run

    run = Run("configs/demo.py", source)
    (source / "config.json").unlink(missing_ok=True)
    (source / "config.json").write_text(json.dumps({**_json_of(run.read_config()), "clips": "x"}))
    return Outcome({"epochs": str(run.epochs_done())}, about=str(run.is_finished()))


def _json_of(config) -> dict:
    from mmcl_jax.config import Config

    return Config.of(config).to_json()


def _make_lock(folder: pathlib.Path) -> None:
    from mmcl_jax.runtime.locks import _Holder

    holder = {**dataclasses.asdict(_Holder.here()), "pid": 2**22 + 1, "started": "0", "since": "then", "mark": "0"}
    (folder / "training.lock").write_text(json.dumps(holder) + "\n")


@_reader(_make_lock, "words of a lock that only people read", weight=0.5)
def lock(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from mmcl_jax.runtime.locks import exclusive

    with exclusive(source / "training.lock", what=f"training in {source}", remedy="use another --workdir"):
        return Outcome({"taken": "yes"})


def _make_config(folder: pathlib.Path) -> None:
    keys = {"seed": "1", "data.window": "16", "learning_rate": "0.1", "drop_epochs": "(3,4)", "data.stream": "bone"}
    keys |= {"data.crop_interval": "(0.5,1.0)", "num_epochs": "5", "weight_decay": "0.0004", "warmup_epochs": "2"}
    keys |= {"data.rotation": "0.3", "data.test_crop": "0.95", "batch_size": "4", "model.base_channels": "4"}
    (folder / "overrides.json").write_text(json.dumps(keys))


@_reader(_make_config, "other values of keys, each of which a run can be trained with")
def config(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    """Values of config keys, as a command's `--config.KEY=VALUE` gives them."""
    from experiments.launch import read_config
    from mmcl_jax import task
    from mmcl_jax.config import Config
    from mmcl_jax.runtime.files import read_json

    root = work.parent / "training_records"
    if not root.exists():
        _make_training_records(root)
    try:
        keys = read_json(source / "overrides.json")
        given = [(str(key), str(value)) for key, value in dict(keys).items()]
    except (OSError, ValueError, TypeError, RecursionError):
        given = []
    if any("\0" in key + value or not (key + value).isprintable() for key, value in given):
        given = []  # which no command line can hold
    read = read_config("configs/demo.py:joint,skeleton_only", (*given, ("data.records", str(root))))
    built = task.build_training_task(read)
    for step in (0, built.num_steps - 1):
        if not np.isfinite(float(built.schedule(step))):
            raise AssertionError(f"learning rate of step {step}: {built.schedule(step)}")
    return Outcome(
        {key: digest(value) for key, value in _flat(Config.of(read).to_json()).items() if "records" not in key}
    )


@contextlib.contextmanager
def _shallow_backbones():
    """In this context backbones have three blocks."""
    from mmcl_jax.models import BACKBONES
    from tests.helpers.shallow import make_shallow

    deep = dict(BACKBONES)
    make_shallow()
    try:
        yield
    finally:
        BACKBONES.update(deep)


def _model():
    from tests.deploy.models import CASES, make_model

    with _shallow_backbones():
        return make_model(CASES[0])


def _make_bundle(folder: pathlib.Path) -> None:
    from mmcl_jax.bundle import Provenance, write_bundle
    from mmcl_jax.models.mmcl import BACKBONE

    model = _model()
    variables = {kind: {BACKBONE: tree} for kind, tree in model.variables.items()}
    write_bundle(folder / "model", model.description, variables, provenance=Provenance(7, (), "none"))


@_reader(_make_bundle, "the model card, which people write", weight=0.5)
def bundle(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from mmcl_jax.trained_model import load_model

    with _shallow_backbones():
        model = load_model(source / "model")
    items = {name: digest(np.asarray(leaf)) for name, leaf in _flat(model.variables).items()}
    return Outcome(items, about=digest(model.class_names, model.channels, model.units, model.layout.joints, model.step))


def _make_exported(folder: pathlib.Path) -> None:
    import jax
    from jax import export

    from mmcl_jax.deploy.exported import STABLEHLO
    from mmcl_jax.deploy.manifest import describe_export, write_folder

    manifest = describe_export(_model(), features=False, dtype="float32")
    batch, frames = export.symbolic_shape("N, T")
    bodies, joints, channels = manifest["inputs"][0]["shape"][2:]
    clips = jax.ShapeDtypeStruct((batch, frames, bodies, joints, channels), np.float32)
    counts = jax.ShapeDtypeStruct((batch,), np.int32)
    few = len(manifest["class_names"])
    program = export.export(jax.jit(lambda clip, count: jax.nn.softmax(clip[:, 0, 0, :few, 0] * count[:, None])))
    write_folder(folder / "model", STABLEHLO, bytes(program(clips, counts).serialize()), manifest)


@_reader(_make_exported, "the manifest has no checksum: another name of a class is another name", weight=0.3)
def exported(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    from mmcl_jax.deploy.exported import load_exported

    model = load_exported(source / "model")
    return Outcome({name: str(place) for place, name in enumerate(model.class_names)}, about=digest(model._shape))


def _flat(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _make_training_records(root: pathlib.Path) -> None:
    from data_prep import synthetic
    from mmcl_jax.data import records as module

    fields = [
        synthetic.ClipFields(action, subject, camera=2, replication=1) for action in (1, 2) for subject in (1, 2, 4)
    ]
    clips = (dataclasses.replace(synthetic.make_clip(0, one), image=None, texts={}) for one in fields)
    module.write_records(root, synthetic._INFO, clips, total=len(fields))


def _make_checkpoint(folder: pathlib.Path) -> None:
    from mmcl_jax import checkpoints
    from mmcl_jax.models.mmcl import BACKBONE

    rng = np.random.default_rng(9)
    arrays = {name: rng.normal(size=(8, 16)).astype(np.float32) for name in ("first", "second")}
    variables = {"params": {BACKBONE: arrays}, "batch_stats": {BACKBONE: {"mean": np.arange(4, dtype=np.float32)}}}
    checkpoints.save_variables(folder, variables)


@_reader(_make_checkpoint, "files that hold no array: times, and what Orbax writes and does not read", weight=0.3)
def checkpoint(source: pathlib.Path, work: pathlib.Path) -> Outcome:
    import jax

    from mmcl_jax import checkpoints

    step, variables = checkpoints.read_variables(source)
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    items = {jax.tree_util.keystr(path): digest(np.asarray(leaf)) for path, leaf in leaves if path[-1].key != "present"}
    return Outcome(items, about=str(step))
