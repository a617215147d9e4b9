"""NW-UCLA preparation from archives and folders, intact and damaged; the real clips if MMCL_TEST_DATA is set."""

import io
import json
import os
import pathlib
import tarfile

import numpy as np
import pytest
from PIL import Image

from data_prep import nw_ucla
from data_prep.images import kinect_v1, videos
from data_prep.preparation import image_request
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import PreparationError
from tests.helpers import ntu_files
from tests.helpers.folders import contents

NAMES = ("a01_s01_e00_v01", "a12_s02_e01_v02", "a08_s10_e03_v03")


def clip_json(name: str, frames: int = 4, **changes) -> str:
    label = list(nw_ucla.ACTIONS).index(int(name[1:3])) + 1
    skeletons = np.random.default_rng(int(name[5:7])).normal(size=(frames, 20, 3)).tolist()
    return json.dumps({"file_name": name, "skeletons": skeletons, "label": label, **changes})


@pytest.fixture
def source(tmp_path) -> pathlib.Path:
    """A folder as the archive unpacks, with other files in it."""
    folder = tmp_path / "data" / "NW-UCLA" / "all_sqe"
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / f"{name}.json").write_text(clip_json(name))
    (folder.parent / "val_label.pkl").write_bytes(b"never opened")
    (folder / "._a01_s01_e00_v01.json").write_bytes(b"\0\5\26\7")
    (folder / ".hidden.json").write_text("{}")
    return tmp_path / "data"


def pack(source: pathlib.Path, archive: pathlib.Path, mode: str = "w:xz") -> pathlib.Path:
    with tarfile.open(archive, mode) as tar:
        tar.add(source, "data")
    return archive


def set_aside(out) -> dict[str, str]:
    return {item["name"]: item["reason"] for item in json.loads((out / "set_aside.json").read_text())}


@pytest.mark.parametrize("mode", ["w:xz", "w:gz", "w", None])
def test_archive_and_folder(source, tmp_path, capsys, mode):
    given = pack(source, tmp_path / "nw_ucla.tar", mode) if mode else source
    out = tmp_path / "prepared" / "out"
    nw_ucla.main(["--source", str(given), "--out", str(out)])
    opened = records.Records(out)
    assert opened.info.class_names[opened.index["label"][2]] == "carry"
    assert opened.index["name"].tolist() == sorted(NAMES)
    rows = {field: opened.index[field].tolist() for field in ("label", "subject", "replication", "camera")}
    assert rows == {"label": [0, 6, 9], "subject": [1, 10, 2], "replication": [0, 3, 1], "camera": [1, 3, 2]}
    stored = np.array(json.loads(clip_json(NAMES[0]))["skeletons"], np.float32)
    np.testing.assert_array_equal(opened.skeleton(0), stored[np.newaxis])
    assert set_aside(out) == {}
    assert not opened.has_images
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert "2 training and 1 test clips; NOTE: the complete dataset has 1,020 and 464" in capsys.readouterr().out


def test_spoiled_files_are_set_aside(source, tmp_path):
    folder = source / "NW-UCLA" / "all_sqe"
    spoiled = {
        "a01_s01_e01_v01": clip_json(NAMES[0])[:500],
        "a01_s01_e02_v01": "",
        "a01_s01_e03_v01": clip_json(NAMES[0], skeletons=[]),
        "a01_s01_e04_v01": clip_json(NAMES[0], skeletons=np.zeros((5, 20, 3)).tolist()),
        "a01_s01_e05_v01": clip_json(NAMES[0], skeletons=np.full((5, 20, 3), np.nan).tolist()),
        "a01_s01_e06_v01": clip_json(NAMES[0], skeletons=np.ones((5, 25, 3)).tolist()),
        "a01_s01_e07_v01": clip_json(NAMES[0], skeletons=[[[1.0, 2.0]], [[1.0]]]),
        "a01_s01_e08_v01": clip_json(NAMES[0], label=2),
        "a01_s01_e09_v01": '{"file_name": "a01_s01_e09_v01", "label": 1}',
        "a01_s01_e10_v01": "[1, 2, 3]",
        "a01_s01_e11_v01": "\x00\xff",
        "a01_s01_e12_v01": "[" * 100_000,
        "a01_s01_e13_v01": clip_json(NAMES[0], skeletons=3.0),
        "a01_s01_e14_v01": clip_json(NAMES[0], skeletons=[10**400]),
        "a01_s99999999999999999999_e00_v01": clip_json(NAMES[0]),
        "a07_s01_e00_v01": clip_json(NAMES[0]),
        "holiday": clip_json(NAMES[0]),
    }
    for name, text in spoiled.items():
        (folder / f"{name}.json").write_text(text)
    elsewhere = source / "copy"
    elsewhere.mkdir()
    (elsewhere / f"{NAMES[0]}.json").write_text(clip_json(NAMES[0]))
    nw_ucla.prepare(source, tmp_path / "out")
    assert records.Records(tmp_path / "out").index["name"].tolist() == sorted(NAMES)
    reasons = set_aside(tmp_path / "out")
    duplicate = f"copy/{NAMES[0]}.json" if f"copy/{NAMES[0]}.json" in reasons else f"NW-UCLA/all_sqe/{NAMES[0]}.json"
    assert "duplicate" in reasons.pop(duplicate)
    assert {name.removesuffix(".json") for name in reasons} == set(spoiled)
    assert "truncated" in reasons["a01_s01_e01_v01.json"]
    assert reasons["a01_s01_e03_v01.json"] == "a clip of zero frames"
    assert "zero" in reasons["a01_s01_e04_v01"]
    assert "NaN" in reasons["a01_s01_e05_v01"]
    assert "label 2 in the file, but the name says 1" in reasons["a01_s01_e08_v01.json"]
    assert "not of the form" in reasons["holiday.json"]


def test_archive_that_leads_outside_itself(source, tmp_path):
    """Nothing is written outside, each such member is named, the rest is prepared."""
    archive = tmp_path / "deep" / "down" / "evil.tar"
    archive.parent.mkdir(parents=True)
    pack(source, archive, "w")
    victim = tmp_path / "victim.json"
    with tarfile.open(archive, "a") as tar:
        for name in ("../../a01_s01_e01_v01.json", str(victim), "data/../../../a01_s01_e02_v01.json"):
            member = tarfile.TarInfo(name)
            member.size = 2
            tar.addfile(member, io.BytesIO(b"{}"))
        for kind, target in (
            (tarfile.SYMTYPE, str(tmp_path)),
            (tarfile.SYMTYPE, "data"),
            (tarfile.LNKTYPE, "/etc/passwd"),
        ):
            member = tarfile.TarInfo(f"link{kind.decode()}{len(target)}.json")
            member.type, member.linkname = kind, target
            tar.addfile(member)
        member = tarfile.TarInfo("way")
        member.type, member.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(member)
        member = tarfile.TarInfo("way/a01_s01_e03_v01.json")
        tar.addfile(member, io.BytesIO(b""))
    before = set(tmp_path.rglob("*"))
    nw_ucla.prepare(archive, archive.parent / "out")
    created = {
        path for path in set(tmp_path.rglob("*")) - before if (archive.parent / "out") not in [path, *path.parents]
    }
    assert not created
    assert len(records.Records(archive.parent / "out")) == 3
    assert len(set_aside(archive.parent / "out")) == 8


def test_duplicate_members_and_links_in_archives_are_set_aside(source, tmp_path):
    archive = pack(source, tmp_path / "twice.tar", "w")
    with tarfile.open(archive, "a") as tar:
        tar.add(source, "data")
    nw_ucla.prepare(archive, tmp_path / "out")
    assert len(records.Records(tmp_path / "out")) == 3
    assert all("duplicate" in reason for reason in set_aside(tmp_path / "out").values())


@pytest.mark.parametrize("kept", [0, 10, 0.4, 0.97])
def test_truncated_archive(source, tmp_path, kept):
    whole = pack(source, tmp_path / "whole.tar.xz").read_bytes()
    archive = tmp_path / "truncated.tar.xz"
    archive.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else kept])
    with pytest.raises(PreparationError, match=r"truncated.tar.xz: truncated, corrupt or not a tar"):
        nw_ucla.prepare(archive, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_commands_end_with_a_plain_message(source, tmp_path):
    arguments = ["--source", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=r"error: .*nowhere: no such file or folder"):
        nw_ucla.main(arguments)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=r"no \*.json files; give the dataset as distributed"):
        nw_ucla.main(["--source", str(tmp_path / "empty"), "--out", str(tmp_path / "out")])
    arguments = ["--source", str(source), "--out", str(tmp_path / "out")]
    nw_ucla.main(arguments)
    with pytest.raises(SystemExit, match="exists already"):
        nw_ucla.main(arguments)
    nw_ucla.main([*arguments, "--overwrite"])


@pytest.mark.skipif("MMCL_TEST_DATA" not in os.environ, reason="MMCL_TEST_DATA is unset: no real NW-UCLA archive")
def test_real_archive(tmp_path):
    data = pathlib.Path(os.environ.get("MMCL_TEST_DATA", ""))
    nw_ucla.prepare(data / "data" / "nw_ucla.tar.xz", tmp_path / "out")
    opened = records.Records(tmp_path / "out")
    published = json.loads((data / "golden" / "nw_ucla_split.json").read_text())
    parts = {part: opened.select("xview", part) for part in ("train", "test")}
    assert (len(parts["train"]), len(parts["test"])) == (published["train"], published["val"]) == (1020, 464)
    names = {part: set(opened.index["name"][rows]) for part, rows in parts.items()}
    assert set(published["train_first"]) <= names["train"]
    assert set(published["val_first"]) <= names["test"]
    labels = dict(published["label_map"])
    for name, label in zip(opened.index["name"], opened.index["label"], strict=True):
        assert labels[name[:3]] == label
    assert set_aside(tmp_path / "out") == {}


SEEN = {  # for each form in which videos come: the clip, and where it is
    "a01_s01_e00_v01": "multiview_action_videos/a01/v01_s01_e00.avi",
    "a12_s02_e01_v02": "multiview_action/view_2/a12_s02_e01",
    "a08_s10_e03_v03": "elsewhere/A08_S10_E03_V03.mkv",
}
FRAMES = 30


def walk() -> np.ndarray:
    """[T, 20, 3]: a person of 1.5 m, who walks to the right."""
    joints = np.random.default_rng(0).uniform((-0.25, -0.8, 2.9), (0.25, 0.7, 3.1), size=(1, 20, 3))
    joints[:, 0], joints[:, 1] = (0, 0.7, 3), (0, -0.8, 3)
    return joints + np.linspace(-0.8, 0.8, FRAMES)[:, np.newaxis, np.newaxis] * (1, 0, 0)


def rectangles(skeleton: np.ndarray, num_frames: int) -> list[tuple[int, int, int, int]]:
    """Where the person stands in the pictures of a video of `num_frames`."""
    pixels = kinect_v1.COLOR.project(skeleton[(np.arange(num_frames) * len(skeleton)) // num_frames])
    return np.concatenate([pixels.min(axis=1), pixels.max(axis=1)], axis=1).astype(int).tolist()


@pytest.fixture
def filmed(tmp_path) -> pathlib.Path:
    """Skeletons, and videos in both forms of distribution and a third: a red rectangle is the person."""
    pytest.importorskip("av", reason="PyAV is not installed (the extra `video`)")
    (tmp_path / "json").mkdir()
    for name in SEEN:
        text = clip_json(name, skeletons=walk().tolist())
        (tmp_path / "json" / f"{name}.json").write_text(text)
    for place in SEEN.values():
        path = tmp_path / "videos" / place
        if path.suffix:
            path.parent.mkdir(parents=True)
            count = FRAMES if path.suffix == ".avi" else 2 * FRAMES  # not as many pictures as skeletons
            ntu_files.write_video(path, count, size=(480, 640), rectangles=rectangles(walk(), count))
            continue
        path.mkdir(parents=True)
        for number, (left, top, right, bottom) in enumerate(rectangles(walk(), FRAMES)):
            picture = np.full((480, 640, 3), 2 * number, np.uint8)
            picture[top:bottom, left:right] = (230, 20, 20)
            Image.fromarray(picture).save(path / f"frame_{number}_tc_{number}_rgb.jpg")
            (path / f"frame_{number}_tc_{number}_depth.png").write_bytes(b"never opened")
    return tmp_path


def assert_shows_the_person(picture: np.ndarray) -> None:
    """Each of the five crops is red but for the margin."""
    for crop in np.split(picture.astype(int), 5, axis=1):
        red = (crop[..., 0] > 150) & (crop[..., 1] < 90)
        assert 0.35 < red.mean() < 0.9
        assert red[240, 48]
        assert not red[:20].any()


def test_mosaics_of_videos_and_of_folders_of_pictures(filmed, tmp_path, capsys):
    nw_ucla.main([f"--source={filmed / 'json'}", f"--videos={filmed / 'videos'}", f"--out={tmp_path / 'out'}"])
    opened = records.Records(tmp_path / "out")
    assert opened.index["name"].tolist() == sorted(SEEN)
    assert set_aside(tmp_path / "out") == {}
    assert opened.info.image_source == "rgb"
    assert opened.info.preprocessing.endswith("five RGB frames, person cropped by the projected skeleton")
    for row in range(3):
        assert_shows_the_person(opened.image(row, 480))
    assert "videos of 3 of 3 clips" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a05/v01_s04_e02.avi", "a05_s04_e02_v01"),
        ("multiview_action/view_3/a05_s04_e02", "a05_s04_e02_v03"),
        ("view1/v01_s01_e00_a02.avi", "a02_s01_e00_v01"),
        ("a5_s4_e2_v1.mp4", "a05_s04_e02_v01"),
        ("a05/s04_e02.avi", None),
        ("data05/v01_s04_e02.avi", None),
    ],
)
def test_names_of_videos(path, name):
    assert nw_ucla.name_of(pathlib.Path(path)) == name


def test_bad_videos_cost_the_image_alone(filmed, tmp_path):
    folder = filmed / "videos"
    whole = (folder / SEEN["a01_s01_e00_v01"]).read_bytes()
    (folder / SEEN["a01_s01_e00_v01"]).write_bytes(whole[: len(whole) // 2])
    (folder / SEEN["a12_s02_e01_v02"] / "frame_15_tc_15_rgb.jpg").write_bytes(b"no picture")
    (folder / SEEN["a08_s10_e03_v03"]).write_bytes(b"no video")
    (folder / "a03" / "empty_v01_s01_e00").mkdir(parents=True)
    request = image_request.Request(videos=folder)
    nw_ucla.prepare(filmed / "json", tmp_path / "out", request, workers=1)
    assert not records.Records(tmp_path / "out").has_images
    reasons = set_aside(tmp_path / "out")
    assert "v01_s01_e00.avi: cut short: frame" in reasons["a01_s01_e00_v01.jpg"]
    assert "a12_s02_e01: frame_15_tc_15_rgb.jpg: not a JPEG" in reasons["a12_s02_e01_v02.jpg"]
    assert "A08_S10_E03_V03.mkv: not a readable video" in reasons["a08_s10_e03_v03.jpg"]
    (folder / SEEN["a01_s01_e00_v01"]).write_bytes(whole)
    nw_ucla.prepare(filmed / "json", tmp_path / "out", request, workers=1, overwrite=True)
    assert records.Records(tmp_path / "out").clips_without(range(3), "images") == sorted(SEEN)[1:]


def test_skeletons_that_are_nowhere_in_the_picture(filmed, tmp_path):
    spoiled = walk()
    spoiled[:, :, 2] = 0
    (filmed / "json" / "a01_s01_e00_v01.json").write_text(clip_json("a01_s01_e00_v01", skeletons=spoiled.tolist()))
    (filmed / "json" / "a12_s02_e01_v02.json").write_text("{}")
    nw_ucla.prepare(filmed / "json", tmp_path / "out", image_request.Request(videos=filmed / "videos"), workers=1)
    opened = records.Records(tmp_path / "out")
    assert opened.index["name"].tolist() == ["a01_s01_e00_v01", "a08_s10_e03_v03"]
    assert "nobody in it: the skeleton is nowhere" in set_aside(tmp_path / "out")["a01_s01_e00_v01.jpg"]


def test_shards_and_a_second_run_end_in_the_same_records(filmed, tmp_path, monkeypatch):
    request = image_request.Request(videos=filmed / "videos")
    nw_ucla.prepare(filmed / "json", tmp_path / "once", request, workers=1)
    for number in (1, 0):
        folders = [f"--source={filmed / 'json'}", f"--videos={filmed / 'videos'}", f"--images={tmp_path / 'images'}"]
        nw_ucla.main([*folders, f"--shard={number}/2"])
    monkeypatch.setattr(videos, "read_frames", None)  # all is done
    request = image_request.Request(videos=filmed / "videos", images=tmp_path / "images")
    nw_ucla.prepare(filmed / "json", tmp_path / "again", request, workers=1)
    assert contents(tmp_path / "once") == contents(tmp_path / "again")


def test_videos_that_do_not_belong(source, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "holiday.avi").write_bytes(b"")
    with pytest.raises(PreparationError, match=r"no video of any of the 3 clips; expected .*a05/v01_s04_e02\.avi"):
        nw_ucla.prepare(source, tmp_path / "out", image_request.Request(videos=tmp_path / "videos"))
    with pytest.raises(PreparationError, match="nowhere: no such folder; set --videos"):
        nw_ucla.prepare(source, tmp_path / "out", image_request.Request(videos=tmp_path / "nowhere"))


@pytest.mark.skipif("MMCL_TEST_DATA" not in os.environ, reason="MMCL_TEST_DATA is unset: no real NW-UCLA archive")
def test_real_skeletons_fall_into_the_color_picture(tmp_path):
    """In all but a few of 2,000 frames; so the skeleton is fit to find the person."""
    with tarfile.open(pathlib.Path(os.environ["MMCL_TEST_DATA"]) / "data" / "nw_ucla.tar.xz") as tar:
        for number, member in enumerate(member for member in tar if member.name.endswith(".json")):
            if number % 30 == 0:
                tar.extract(member, tmp_path, filter="data")
    files = sorted(tmp_path.rglob("*.json"))
    tracks = [nw_ucla.find_track(path) for path in files]
    boxes = [track.box_in(frame) for track in tracks for frame in range(track.num_frames)]
    assert len(boxes) > 1500
    assert sum(box is None for box in boxes) < 5
    heights = [box[3] - box[1] for box in boxes if box]
    assert 200 < np.median(heights) < 400
