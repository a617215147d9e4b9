"""Every pose format, real-shaped, becomes the same person; wrong ones are refused with the remedy."""

import csv
import json
import pathlib
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.poses.files import find_pose_files, read_clips, read_poses
from mmcl_jax.poses.types import Poses, PosesError
from tests.helpers import ntu_files

FRAMES, SIZE = 6, (640, 480)
GAP = 3  # a frame in which nobody is seen


def person(layout: str, channels: int = 2) -> np.ndarray:
    """Pixels `[T, V, 2]` of a person who walks through the picture; or meters `[T, V, 3]`."""
    rng = np.random.default_rng(len(layout))
    shape = rng.uniform(-0.5, 0.5, (LAYOUTS[layout].num_joints, 3))
    step = np.array([0.04, 0.01, 0.0])
    metres = shape + step * np.arange(FRAMES)[:, np.newaxis, np.newaxis]
    return metres if channels == 3 else np.round(300 + 200 * metres[..., :2], 2)


def scores(layout: str) -> np.ndarray:
    return np.round(np.random.default_rng(1).uniform(0.3, 1, (FRAMES, LAYOUTS[layout].num_joints)), 3)


def triples(layout: str, frame: int) -> list[float]:
    return np.concatenate([person(layout)[frame], scores(layout)[frame, :, np.newaxis]], axis=1).ravel().tolist()


def openpose(layout: str) -> Callable[[pathlib.Path], pathlib.Path]:
    def write(folder: pathlib.Path) -> pathlib.Path:
        for frame in range(FRAMES):
            people = [{"person_id": [-1], "pose_keypoints_2d": triples(layout, frame), "face_keypoints_2d": []}]
            contents = {"version": 1.3, "people": [] if frame == GAP else people}
            (folder / f"video_{100 + frame:012}_keypoints.json").write_text(json.dumps(contents))
        return folder

    return write


def kinetics(folder: pathlib.Path) -> pathlib.Path:
    data = []
    for frame in range(FRAMES):
        pose = (person("openpose18")[frame] / (340, 256)).round(5).ravel().tolist()
        skeleton = [{"pose": pose, "score": scores("openpose18")[frame].tolist()}]
        data.append({"frame_index": frame + 1, "skeleton": [] if frame == GAP else skeleton})
    return dump(folder / "clip.json", {"data": data, "label": "jump", "label_index": 3})


def dump(path: pathlib.Path, contents) -> pathlib.Path:
    path.write_text(json.dumps(contents))
    return path


def seen_frames() -> list[int]:
    return [frame for frame in range(FRAMES) if frame != GAP]


def coco_results(folder: pathlib.Path) -> pathlib.Path:
    entries = [
        {"image_id": frame, "category_id": 1, "keypoints": triples("coco", frame), "score": 0.9}
        for frame in seen_frames()
    ]
    return dump(folder / "results.json", entries[::-1])


def coco_annotations(folder: pathlib.Path) -> pathlib.Path:
    width, height = SIZE
    images = [
        {"id": 70 + frame, "file_name": f"frame_{frame:06}.jpg", "width": width, "height": height}
        for frame in range(FRAMES)
    ]
    flags = [np.insert(person("coco")[frame], 2, 2, axis=1).ravel().tolist() for frame in range(FRAMES)]
    annotations = [
        {"id": frame, "image_id": 70 + frame, "category_id": 1, "keypoints": flags[frame], "num_keypoints": 17}
        for frame in seen_frames()
    ]
    return dump(folder / "annotations.json", {"images": images, "annotations": annotations, "categories": []})


def alphapose(layout: str) -> Callable[[pathlib.Path], pathlib.Path]:
    def write(folder: pathlib.Path) -> pathlib.Path:
        entries = [
            {
                "image_id": f"{frame}.jpg",
                "category_id": 1,
                "keypoints": triples(layout, frame),
                "score": 2.9,
                "idx": [1.0],
            }
            for frame in seen_frames()
        ]
        return dump(folder / "alphapose-results.json", entries)

    return write


def alphapose_cmu(folder: pathlib.Path) -> pathlib.Path:
    pictures = {
        f"{frame}.jpg": {"version": "AlphaPose v0.3", "bodies": [{"joints": triples("openpose18", frame)}]}
        for frame in seen_frames()
    }
    return dump(folder / "alphapose.json", pictures)


def mmpose(folder: pathlib.Path) -> pathlib.Path:
    info = [
        {
            "frame_id": frame + 1,
            "instances": [
                {"keypoints": person("coco")[frame].tolist(), "keypoint_scores": scores("coco")[frame].tolist()}
            ],
        }
        for frame in seen_frames()
    ]
    return dump(folder / "predictions.json", {"meta_info": {}, "instance_info": info})


def landmarks(frame: int, world: bool = False) -> list[dict[str, float]]:
    joints = person("blazepose33", 3)[frame]
    if world:
        joints = joints - joints[23:25].mean(axis=0)
    else:
        joints = np.concatenate([person("blazepose33")[frame] / SIZE, joints[:, 2:]], axis=1)
    rows = zip(joints.tolist(), scores("blazepose33")[frame].tolist(), strict=True)
    return [{"x": x, "y": y, "z": z, "visibility": visibility} for (x, y, z), visibility in rows]


def mediapipe_json(folder: pathlib.Path) -> pathlib.Path:
    frames = [{"frame": frame, "pose_landmarks": [] if frame == GAP else [landmarks(frame)]} for frame in range(FRAMES)]
    return dump(folder / "landmarks.json", {"frames": frames})


def mediapipe_world(folder: pathlib.Path) -> pathlib.Path:
    return dump(folder / "world.json", [[] if frame == GAP else landmarks(frame, True) for frame in range(FRAMES)])


def table(path: pathlib.Path, rows: list[list]) -> pathlib.Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def mediapipe_csv(folder: pathlib.Path) -> pathlib.Path:
    names = [f"{kind}{joint}" for joint in range(33) for kind in "xyzv"]
    rows = [[frame, *[value for point in landmarks(frame) for value in point.values()]] for frame in seen_frames()]
    return table(folder / "landmarks.csv", [["frame", *names], *rows])


def named_csv(folder: pathlib.Path) -> pathlib.Path:
    joints = [name.replace(" ", "_") for name in LAYOUTS["body25"].joints]
    order = np.random.default_rng(0).permutation(25)
    names = [f"{joints[joint]}_{kind}" for joint in order for kind in ("x", "y", "score")]
    rows = [[frame, *np.reshape(triples("body25", frame), (25, 3))[order].ravel()] for frame in seen_frames()]
    return table(folder / "named.csv", [["frame", *names], *rows])


def long_csv(folder: pathlib.Path) -> pathlib.Path:
    rows = [
        [frame, 7, joint, *place, score]
        for frame in seen_frames()
        for joint, place, score in zip(
            LAYOUTS["coco"].joints, person("coco")[frame].tolist(), scores("coco")[frame].tolist(), strict=True
        )
    ]
    return table(folder / "long.csv", [["frame", "person_id", "keypoint", "x", "y", "confidence"], *rows])


def ultralytics(folder: pathlib.Path, last: str = "") -> pathlib.Path:
    for frame in seen_frames():
        joints = np.concatenate([person("coco")[frame] / SIZE, scores("coco")[frame, :, np.newaxis]], axis=1)
        line = " ".join(["0", "0.5", "0.5", "0.2", "0.6", *[f"{value:.6g}" for value in joints.ravel()]])
        (folder / f"video_{frame + 1}.txt").write_text(line + last + "\n" + "16 0.1 0.1 0.1 0.1\n" * (frame == 0))
    return folder


def ultralytics_tracked(folder: pathlib.Path) -> pathlib.Path:
    return ultralytics(folder, " 0.93 4")


def pyskl(joints: int, layout: str) -> Callable[[pathlib.Path], pathlib.Path]:
    """A pickle of one annotation; more joints than the layout's come after them."""

    def write(folder: pathlib.Path) -> pathlib.Path:
        keypoint, score = person(layout)[np.newaxis].copy(), scores(layout)[np.newaxis].copy()
        keypoint[:, GAP], score[:, GAP] = 0, 0
        more = joints - keypoint.shape[2]
        keypoint = np.pad(keypoint, ((0, 0), (0, 0), (0, more), (0, 0)), constant_values=5)
        score = np.pad(score, ((0, 0), (0, 0), (0, more)), constant_values=0.5)
        annotation = {"frame_dir": "clip", "label": 1, "keypoint": keypoint.astype(np.float32)}
        annotation |= {"keypoint_score": score.astype(np.float32), "img_shape": SIZE[::-1], "total_frames": FRAMES}
        path = folder / "poses.pkl"
        path.write_bytes(pickle.dumps({"split": {}, "annotations": [annotation]}))
        return path

    return write


def arrays(layout: str, name: str, *, persons_first: bool = False) -> Callable[[pathlib.Path], pathlib.Path]:
    def write(folder: pathlib.Path) -> pathlib.Path:
        array = np.concatenate([person(layout), scores(layout)[..., np.newaxis]], axis=2)
        array[GAP] = 0
        array = array[np.newaxis] if persons_first else array
        path = folder / name
        if path.suffix == ".npy":
            np.save(path, array)
        else:
            np.savez(path, keypoints=array, fps=15.0, width=SIZE[0], height=SIZE[1])
        return path

    return write


FLAT = {  # format -> how it is written, layout, the units in which it is read, frame rate, size
    "OpenPose 25": (openpose("body25"), "body25", "pixels", None, None),
    "OpenPose 18": (openpose("openpose18"), "openpose18", "pixels", None, None),
    "Kinetics": (kinetics, "openpose18", "shares", 30, (340, 256)),
    "COCO results": (coco_results, "coco", "pixels", None, None),
    "COCO annotations": (coco_annotations, "coco", "pixels", None, SIZE),
    "AlphaPose 17": (alphapose("coco"), "coco", "pixels", None, None),
    "AlphaPose 26": (alphapose("halpe26"), "halpe26", "pixels", None, None),
    "AlphaPose cmu": (alphapose_cmu, "openpose18", "pixels", None, None),
    "mmpose": (mmpose, "coco", "pixels", None, None),
    "MediaPipe JSON": (mediapipe_json, "blazepose33", "shares", None, None),
    "MediaPipe CSV": (mediapipe_csv, "blazepose33", "shares", None, None),
    "CSV with names": (named_csv, "body25", "pixels", None, None),
    "CSV of joints": (long_csv, "coco", "pixels", None, None),
    "ultralytics": (ultralytics, "coco", "shares", None, None),
    "ultralytics tracked": (ultralytics_tracked, "coco", "shares", None, None),
    "pyskl 17": (pyskl(17, "coco"), "coco", "pixels", None, SIZE),
    "pyskl 18": (pyskl(18, "openpose18"), "openpose18", "pixels", None, SIZE),
    "pyskl 25": (pyskl(25, "body25"), "body25", "pixels", None, SIZE),
    "pyskl 26": (pyskl(26, "halpe26"), "halpe26", "pixels", None, SIZE),
    "pyskl 33": (pyskl(33, "blazepose33"), "blazepose33", "pixels", None, SIZE),
    "pyskl 133": (pyskl(133, "coco"), "coco", "pixels", None, SIZE),
    "npy": (arrays("body25", "poses.npy"), "body25", "pixels", None, None),
    "npz": (arrays("coco", "poses.npz"), "coco", "pixels", 15, SIZE),
    "npy, persons first": (arrays("halpe26", "poses.npy", persons_first=True), "halpe26", "pixels", None, None),
}


def in_pixels(poses: Poses) -> np.ndarray:
    joints = poses.dense()[0][:, 0]
    return joints * (poses.size or SIZE) if poses.units == "shares" else joints


@pytest.mark.parametrize("kind", FLAT)
def test_every_format_in_two_dimensions(tmp_path, kind):
    write, layout, units, rate, size = FLAT[kind]
    poses = read_poses(write(tmp_path))
    assert (poses.layout, poses.units, poses.frame_rate, poses.size) == (layout, units, rate, size)
    (track,) = poses.tracks
    assert poses.num_frames == FRAMES and track.frames.tolist() == seen_frames()
    np.testing.assert_allclose(in_pixels(poses)[track.frames], person(layout)[track.frames], atol=0.01)
    expected = np.ones((5, LAYOUTS[layout].num_joints)) if kind == "COCO annotations" else scores(layout)[track.frames]
    np.testing.assert_allclose(track.confidence, expected, atol=1e-3)


def test_meters(tmp_path):
    poses = read_poses(mediapipe_world(tmp_path))
    assert (poses.layout, poses.units) == ("blazepose33", "metres")
    expected = person("blazepose33", 3)[0]
    np.testing.assert_allclose(poses.dense()[0][0, 0], expected - expected[23:25].mean(axis=0), atol=1e-5)
    for layout in ("ntu", "h36m17"):
        np.save(tmp_path / "solid.npy", person(layout, 3))
        poses = read_poses(tmp_path / "solid.npy")
        assert (poses.layout, poses.units, poses.num_coordinates) == (layout, "metres", 3)
        np.testing.assert_allclose(poses.dense()[0][:, 0], person(layout, 3), atol=1e-6)
        assert any("Human3.6M" in note for note in poses.notes) == (layout == "h36m17")
    np.save(tmp_path / "solid.npy", person("utd_mhad", 3))
    assert read_poses(tmp_path / "solid.npy", "utd_mhad").layout == "utd_mhad"


def test_a_skeleton_file(tmp_path):
    path = tmp_path / "S001C001P001R001A001.skeleton"
    path.write_text(ntu_files.one_person())
    poses = read_poses(path)
    assert (poses.layout, poses.units, poses.frame_rate, len(poses.tracks)) == ("ntu", "metres", 30, 1)
    with pytest.raises(PosesError, match=r"--layout=coco: a \.skeleton file has NTU"):
        read_poses(path, "coco")


def test_people_without_numbers_are_followed_by_place(tmp_path):
    """OpenPose lists people in any order."""
    both = person("body25"), person("body25") + 200
    for frame in range(FRAMES):
        rows = [np.insert(each[frame], 2, 0.9, axis=1).ravel().tolist() for each in both]
        people = [{"pose_keypoints_2d": row} for row in (rows[::-1] if frame % 2 else rows)]
        dump(tmp_path / f"v_{frame}_keypoints.json", {"people": people})
    joints, _, _ = read_poses(tmp_path).dense()
    for number, expected in enumerate(both):
        np.testing.assert_allclose(joints[:, number], expected, atol=1e-3)


def test_what_the_caller_says_goes_first(tmp_path):
    poses = read_poses(kinetics(tmp_path), frame_rate=12, size=(100, 50), coordinates="pixels")
    assert (poses.frame_rate, poses.size, poses.units) == (12, (100, 50), "pixels")


def test_several_clips_of_a_pickle(tmp_path):
    annotation = {"keypoint": person("coco")[np.newaxis], "label": 0}
    clips = [{"frame_dir": "a", **annotation}, {"frame_dir": "b", "label": 1}]
    path = tmp_path / "clips.pkl"
    path.write_bytes(pickle.dumps(clips))
    (first, poses), (second, fault) = read_clips(path)
    assert (first, second) == ("a", "b") and isinstance(poses, Poses) and "no keypoint" in str(fault)
    with pytest.raises(PosesError, match="more than one clip in it"):
        read_poses(path)


def test_pose_files_beneath_a_folder(tmp_path):
    (tmp_path / "frames").mkdir()
    openpose("body25")(tmp_path / "frames")
    (tmp_path / "clips").mkdir()
    kinetics(tmp_path / "clips")
    (tmp_path / "clips" / "notes.txt").write_text("nothing")
    (tmp_path / "clips" / ".hidden.json").write_text("{}")
    assert find_pose_files(tmp_path) == [tmp_path / "clips" / "clip.json", tmp_path / "frames"]


def save(array, **_) -> Callable[[pathlib.Path], pathlib.Path]:
    def write(folder: pathlib.Path) -> pathlib.Path:
        np.save(folder / "a.npy", array)
        return folder / "a.npy"

    return write


def text(name: str, contents: str) -> Callable[[pathlib.Path], pathlib.Path]:
    def write(folder: pathlib.Path) -> pathlib.Path:
        (folder / name).write_text(contents)
        return folder / name

    return write


def two_videos(folder: pathlib.Path) -> pathlib.Path:
    for name in ("one_0", "other_0"):
        dump(folder / f"{name}_keypoints.json", {"people": []})
    return folder


RNG = np.random.default_rng(0)
REFUSED = {
    "missing": (lambda folder: folder / "nothing.json", "no such file or folder"),
    "a word document": (text("a.docx", "x"), r"\.docx: not one of the pose files \.json, \.csv"),
    "an empty folder": (lambda folder: folder, "a folder without the files of one video"),
    "two videos in a folder": (two_videos, "files of 2 videos in one folder .* give each video a folder of its own"),
    "broken JSON": (text("a.json", '{"people": ['), "not a readable JSON file"),
    "deep JSON": (text("a.json", "[" * 100_000), "not a readable JSON file"),
    "other JSON": (text("a.json", '{"a": 1}'), "JSON of a dict of a: none of the known kinds"),
    "nobody": (text("a.json", '{"people": []}'), "nobody in any of its 1 frame"),
    "an odd number of numbers": (
        text("a.json", '{"people": [{"pose_keypoints_2d": [1, 2]}]}'),
        "2 numbers for the joints of a person, expected x, y and a confidence",
    ),
    "words for numbers": (
        text("a.json", '[{"image_id": 1, "keypoints": ["a", "b", "c"]}]'),
        "keypoints is a list of 3, expected numbers",
    ),
    "pictures without an order": (
        text("a.json", json.dumps([{"image_id": "a.jpg", "keypoints": [1, 2, 3] * 17}])),
        "names have no number",
    ),
    "twelve landmarks": (text("a.json", '[[{"x": 1, "y": 1}]]'), "1 landmarks, expected MediaPipe's 33"),
    "an unknown number of joints": (
        save(RNG.uniform(0, 500, (5, 21, 2))),
        "21 joints of 2 coordinates; name .* --layout",
    ),
    "20 joints": (
        save(RNG.uniform(-1, 1, (5, 20, 3))),
        "the last may be z or a confidence; name the joints with --layout",
    ),
    "millimeters": (save(RNG.uniform(-900, 900, (5, 25, 3))), "cannot be meters; divide by 1000"),
    "neither shares nor pixels": (save(RNG.uniform(-1, 1, (5, 17, 2))), "pass --coordinates=shares, pixels or metres"),
    "a table of 75 numbers": (save(RNG.uniform(0, 500, (5, 75))), "may be joints of ntu or body25; pass --layout"),
    "a table of 41 numbers": (save(RNG.uniform(0, 500, (5, 41))), "41 numbers for each frame, .*; name the joints"),
    "objects": (
        lambda folder: np.savez(folder / "a.npz", x=np.array([None])) or folder / "a.npz",
        "not a readable NumPy file of numbers .*; objects are not loaded, save plain arrays",
    ),
    "several arrays": (
        lambda folder: np.savez(folder / "a.npz", a=np.ones((2, 2)), b=np.ones((2, 2))) or folder / "a.npz",
        "arrays a, b: which one holds the poses is unknown; name it keypoints",
    ),
    "a frame rate that is none": (
        lambda folder: np.savez(folder / "a.npz", keypoints=np.ones((4, 17, 2)), fps=np.nan) or folder / "a.npz",
        "fps is nan, expected 0.01 to 1000 frames a second",
    ),
    "a picture of no width": (
        lambda folder: np.savez(folder / "a.npz", x=np.ones((4, 17, 2)), width="w", height=1) or folder / "a.npz",
        "width is 'w', expected a number",
    ),
    "a frame beyond all numbers": (
        text(
            "a.csv",
            "frame," + ",".join(f"x{n},y{n}" for n in range(17)) + "".join(f"\n{n}" + 34 * ",5" for n in (0, 1e300)),
        ),
        "a frame numbered 1e.300, expected at most",
    ),
    "a picture of no size": (
        text(
            "a.json",
            '{"images": [{"id": 1, "width": 1' + 400 * "0" + ', "height": 4, "file_name": "1.jpg"}], "annotations": '
            '[{"image_id": 1, "keypoints": [' + ", ".join(["5, 6, 2"] * 17) + "]}]}",
        ),
        "a picture's width is 1e.09, expected 1 to 100000 pixels",
    ),
    "pictures": (save(np.ones((4, 3, 480, 640))), "whose last axis is not the coordinates"),
    "all zero": (save(np.zeros((5, 17, 2))), "no joint was found"),
    "columns without a meaning": (text("a.csv", "frame,colour\n1,2\n"), "a column 'colour', expected frame, person"),
    "names of no layout": (text("a.csv", "tail_x,tail_y\n1,2\n"), "which are not those of any known layout"),
    "a missing column": (text("a.csv", "0_x,0_y,1_x\n1,2,3\n"), "no column for 1 y, which other joints have"),
    "a short line": (text("a.csv", "1,2,3\n1,2\n"), "line 2: 2 columns, expected 3"),
    "an empty table": (text("a.csv", ""), "an empty file"),
    "boxes without joints": (
        lambda folder: text("v_1.txt", "0 0.5 0.5 0.1 0.1\n")(folder).parent,
        "a line of 5 numbers, expected class, box and joints; .* use a pose model",
    ),
    "a pickle that runs code": (
        lambda folder: (folder / "a.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.") and folder / "a.pkl",
        "more than plain data",
    ),
    "a damaged .skeleton": (text("a.skeleton", "3\n1\n"), "truncated or damaged"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_wrong_files_are_refused_with_the_remedy(tmp_path, kind):
    write, message = REFUSED[kind]
    path = write(tmp_path)
    with pytest.raises(PosesError, match=message) as raised:
        read_poses(path)
    assert str(raised.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "body25"}, "17 joints, but --layout=body25 has 25"),
        ({"layout": "coco25"}, "--layout=coco25: not one of ntu, nw_ucla"),
        ({"coordinates": "inches"}, "--coordinates=inches: not one of pixels, shares, metres"),
        ({"coordinates": "shares"}, "which is no share of the picture; pass --coordinates=pixels"),
    ],
)
def test_options_that_contradict_the_file(tmp_path, options, message):
    with pytest.raises(PosesError, match=message):
        read_poses(coco_results(tmp_path), **options)


def spoiled(value, rng: np.random.Generator):
    """JSON of which something is replaced, removed or added."""
    if rng.random() < 0.04:
        return [None, True, -1, 1e308, float("nan"), "x", [], {}, [None], 10**30][rng.integers(10)]
    if isinstance(value, dict):
        return {key: spoiled(each, rng) for key, each in value.items() if rng.random() > 0.01}
    if isinstance(value, list) and len(value) > 20:
        place = rng.integers(len(value))
        return [*value[:place], spoiled(value[place], rng), *value[place + 1 :]]
    return [spoiled(each, rng) for each in value] if isinstance(value, list) else value


def test_damaged_files_are_read_or_refused_and_nothing_else(tmp_path):
    rng, kinds, refused = np.random.default_rng(0), list(FLAT), 0
    for number in range(150):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = FLAT[kinds[number % len(kinds)]][0](folder)
        file = path if path.is_file() else sorted(path.iterdir())[rng.integers(FRAMES - 1)]
        if file.suffix == ".json":
            file.write_text(json.dumps(spoiled(json.loads(file.read_text()), rng)))
        else:
            contents = bytearray(file.read_bytes())
            for place in rng.integers(len(contents), size=rng.integers(1, 20)):
                contents[place] = rng.choice([*b"9,\n-", int(rng.integers(256))])
            file.write_bytes(contents)
        try:
            list(read_clips(path))
        except PosesError as error:
            assert str(error).startswith(str(path))
            refused += 1
    assert 30 < refused < 140
