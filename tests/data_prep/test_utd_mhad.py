"""UTD-MHAD preparation on files made here, and a few real clips if MMCL_TEST_DATA is set."""

import io
import json
import os
import pathlib
import tarfile

import numpy as np
import pytest
import scipy.io
from PIL import Image

from data_prep import utd_mhad
from data_prep.images import kinect_v1
from data_prep.preparation import image_request
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import PreparationError
from tests.helpers import ntu_files

FRAMES = 12


def make_skeleton(frames: int = FRAMES, depth: float = 2.8) -> np.ndarray:
    """[T, 20, 3]: a person of 1.5 m who walks to the right."""
    rng = np.random.default_rng(0)
    joints = rng.uniform((-0.2, -0.9, depth), (0.2, 0.6, depth + 0.1), size=(frames, 20, 3))
    joints[:, 0], joints[:, 1] = (0, 0.6, depth), (0, -0.9, depth)
    joints[..., 0] += np.linspace(-0.8, 0.8, frames)[:, np.newaxis]
    return joints


def make_video(skeleton: np.ndarray) -> np.ndarray:
    """(240, 320, T): a rectangle where the joints fall."""
    video = np.zeros((*kinect_v1.DEPTH.frame_size, len(skeleton)), np.uint16)
    pixels = kinect_v1.DEPTH.project(skeleton)
    for frame, (low, high) in enumerate(
        zip(pixels.min(axis=1).astype(int), pixels.max(axis=1).astype(int), strict=True)
    ):
        video[low[1] : high[1], low[0] : high[0], frame] = 2800
    return video


def save(folder: pathlib.Path, name: str, skeleton: np.ndarray | None, video: np.ndarray | None) -> None:
    for kind, variable, value in (("Skeleton", "d_skel", skeleton), ("Depth", "d_depth", video)):
        if value is not None:
            (folder / kind).mkdir(exist_ok=True, parents=True)
            path = folder / kind / f"{name}_{kind.lower()}.mat"
            scipy.io.savemat(path, {variable: value}, do_compression=True)


@pytest.fixture
def source(tmp_path) -> pathlib.Path:
    skeleton = make_skeleton()
    for name in ("a1_s1_t1", "a27_s2_t4", "a2_s1_t1"):
        save(tmp_path / "data", name, skeleton.transpose(1, 2, 0), make_video(skeleton))
    (tmp_path / "data" / "Skeleton" / "Skeleton_joint_order.txt").write_text("1. head")
    (tmp_path / "data" / "Inertial").mkdir()
    (tmp_path / "data" / "Inertial" / "a1_s1_t1_inertial.mat").write_bytes(b"never opened")
    return tmp_path / "data"


def set_aside(out) -> dict[str, str]:
    return {item["name"]: item["reason"] for item in json.loads((out / "set_aside.json").read_text())}


def names(out) -> list[str]:
    return records.Records(out).index["name"].tolist()


def test_archive(source, tmp_path, capsys):
    archive = tmp_path / "utd_mhad.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(source, "data")
    utd_mhad.prepare(archive, tmp_path / "out", workers=1)
    opened = records.Records(tmp_path / "out")
    assert names(tmp_path / "out") == ["a1_s1_t1", "a2_s1_t1", "a27_s2_t4"]
    rows = {field: opened.index[field].tolist() for field in ("label", "subject", "replication", "num_bodies")}
    assert rows == {"label": [0, 1, 26], "subject": [1, 1, 2], "replication": [1, 1, 4], "num_bodies": [1, 1, 1]}
    np.testing.assert_array_equal(opened.skeleton(0)[0], make_skeleton().astype(np.float32))
    assert len(opened.info.class_names) == 27
    assert opened.info.image_source == "depth"
    assert "standing in for RGB" in opened.info.preprocessing
    assert opened.image(1, 480).shape == (480, 480, 3)
    assert opened.select("xsub", "train").tolist() == [0, 1]
    assert set_aside(tmp_path / "out") == {}
    assert "the complete dataset has 431 and 430" in capsys.readouterr().out


def test_workers_give_the_same_records_as_one_process(source, tmp_path):
    for workers in (1, 2):
        utd_mhad.prepare(source, tmp_path / f"by{workers}", workers=workers)
    alone, together = (records.Records(tmp_path / f"by{workers}") for workers in (1, 2))
    for row in range(3):
        np.testing.assert_array_equal(alone.skeleton(row), together.skeleton(row))
        np.testing.assert_array_equal(alone.image(row, 96), together.image(row, 96))


def test_without_images(source, tmp_path):
    utd_mhad.main(["--source", str(source), "--out", str(tmp_path / "out"), "--no_images"])
    opened = records.Records(tmp_path / "out")
    assert not opened.has_images
    assert opened.info.image_source is None
    assert set_aside(tmp_path / "out") == {}


def test_spoiled_skeletons_are_set_aside(source, tmp_path):
    good = make_skeleton()
    skeletons = {
        "a3_s1_t1": good.transpose(1, 2, 0)[:, :, :0],
        "a3_s1_t2": np.zeros((20, 3, 8)),
        "a3_s1_t3": np.full((20, 3, 8), np.nan),
        "a3_s1_t4": good,
        "a3_s2_t1": np.array([[{"a": 1}]], dtype=object),
        "a3_s2_t2": np.array("a text"),
        "a28_s1_t1": good.transpose(1, 2, 0),
        "walking": good.transpose(1, 2, 0),
    }
    for name, skeleton in skeletons.items():
        save(source, name, skeleton, make_video(good))
    folder = source / "Skeleton"
    whole = (folder / "a1_s1_t1_skeleton.mat").read_bytes()
    (folder / "a4_s1_t1_skeleton.mat").write_bytes(whole[: len(whole) // 2])
    (folder / "a4_s1_t2_skeleton.mat").write_bytes(b"")
    (folder / "a4_s1_t3_skeleton.mat").write_bytes(b"no matlab" * 100)
    scipy.io.savemat(folder / "a4_s1_t4_skeleton.mat", {"d_other": np.ones((20, 3, 8))})
    for trial in range(1, 5):
        save(source, f"a4_s1_t{trial}", None, make_video(good))
    save(source, "a5_s1_t1", None, make_video(good))
    utd_mhad.prepare(source, tmp_path / "out", workers=1)
    assert names(tmp_path / "out") == ["a1_s1_t1", "a2_s1_t1", "a27_s2_t4"]
    reasons = set_aside(tmp_path / "out")
    assert reasons["a4_s1_t4_skeleton.mat"] == "no variable 'd_skel'"
    assert reasons["a4_s1_t2_skeleton.mat"] == "an empty file"
    assert reasons["a3_s1_t1_skeleton.mat"] == "a clip of zero frames"
    assert reasons["a5_s1_t1_depth.mat"] == "no skeleton file of this clip"
    assert "not a numeric array" in reasons["a3_s2_t1_skeleton.mat"]
    assert "zero" in reasons["a3_s1_t2"]
    assert "NaN" in reasons["a3_s1_t3"]
    odd_names = {f"{name}_{kind}.mat" for name in ("a28_s1_t1", "walking") for kind in ("skeleton", "depth")}
    kept_out = {f"a3_s{s}_t{t}" for s, t in ((1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2))}
    kept_out |= {f"a4_s1_t{trial}" for trial in range(1, 5)}
    assert odd_names < set(reasons)
    assert kept_out == {
        name.removesuffix("_skeleton.mat") for name in set(reasons) - odd_names - {"a5_s1_t1_depth.mat"}
    }


def test_a_clip_without_a_usable_video_keeps_its_skeleton(source, tmp_path):
    skeleton = make_skeleton().transpose(1, 2, 0)
    save(source, "a6_s1_t1", skeleton, None)
    save(source, "a6_s1_t2", skeleton, np.zeros((240, 320, 5), np.uint16))
    save(source, "a6_s1_t3", skeleton, np.ones((24, 32, 5), np.uint16))
    utd_mhad.prepare(source, tmp_path / "out", workers=1)
    opened = records.Records(tmp_path / "out")
    assert len(opened) == 6
    assert opened.clips_without(range(6), "images") == ["a6_s1_t1", "a6_s1_t2", "a6_s1_t3"]
    reasons = set_aside(tmp_path / "out")
    assert set(reasons) == {"a6_s1_t1_skeleton.mat", "a6_s1_t2_depth.mat", "a6_s1_t3_depth.mat"}
    assert all("the clip is kept, without an image" in reason for reason in reasons.values())


def test_crop_follows_the_person_and_falls_back_to_the_segmentation():
    skeleton = make_skeleton()
    depth = make_video(skeleton)[:, :, 0]
    rows, columns = np.nonzero(depth)
    left, top, right, bottom = utd_mhad.person_box(skeleton[0], depth)
    assert left < columns.min() < columns.max() < right
    assert top < rows.min() < rows.max() < bottom
    segmented = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    for lost in (np.zeros((20, 3)), skeleton[0] + (1.0, 0, 0), skeleton[0] * (1, 1, -1)):
        assert utd_mhad.person_box(lost, depth) == segmented
    assert utd_mhad.person_box(skeleton[0], np.zeros_like(depth)) is None


def test_mosaic_shows_what_comes_near_in_red_and_the_background_black():
    skeleton = make_skeleton()
    video = make_video(skeleton)
    rows, columns = np.nonzero(video[:, :, 10])
    hand = np.s_[rows.min() : rows.min() + 20, columns.min() : columns.max(), 10]
    video[hand] = 2000
    picture = np.array(Image.open(io.BytesIO(utd_mhad.depth_mosaic(skeleton, video)))).astype(int)
    assert picture.shape == (480, 480, 3)
    assert (picture[:5, :, :] < 20).all()
    reddish = (picture[..., 0] > 180) & (picture[..., 1] < 100)
    assert reddish[:, 4 * 96 :].sum() > 1000  # frame 10 of 12 is the last of the five
    assert not reddish[:, : 4 * 96].any()


@pytest.mark.skipif("MMCL_TEST_DATA" not in os.environ, reason="MMCL_TEST_DATA is unset: no real UTD-MHAD archive")
def test_real_clips(tmp_path):
    """The first depth videos of the archive: a person is found. Unpacking it all would take too long here."""
    archive = pathlib.Path(os.environ.get("MMCL_TEST_DATA", "")) / "data" / "utd_mhad.tar.xz"
    with tarfile.open(archive) as tar:
        members = (member for member in tar if member.name.endswith("_depth.mat"))
        for member, number in zip(members, range(3), strict=False):
            path = tmp_path / f"a1_s1_t{number + 1}_depth.mat"
            path.write_bytes(tar.extractfile(member).read())
            video = utd_mhad.read_depth(path)
            nobody = np.zeros((video.shape[2], 20, 3), np.float32)  # the skeletons come later in the archive
            picture = np.array(Image.open(io.BytesIO(utd_mhad.depth_mosaic(nobody, video))))
            assert picture.shape == (480, 480, 3)
            for crop in np.split(picture, 5, axis=1):
                assert 0.25 < (crop.max(axis=-1) > 40).mean() < 0.95


def test_no_clip_at_all(tmp_path):
    save(tmp_path / "data", "a1_s1_t1", None, np.ones((240, 320, 5), np.uint16))
    with pytest.raises(PreparationError, match="no clip is left"):
        utd_mhad.prepare(tmp_path / "data", tmp_path / "out", workers=1)


@pytest.fixture
def filmed(source) -> pathlib.Path:
    """The source with RGB videos of two of its clips, one with half as many frames: a red rectangle is the person."""
    pytest.importorskip("av", reason="PyAV is not installed (the extra `video`)")
    folder = source.with_name("RGB")
    folder.mkdir()
    pixels = kinect_v1.COLOR.project(make_skeleton())
    boxes = np.concatenate([pixels.min(axis=1), pixels.max(axis=1)], axis=1).astype(int).tolist()
    ntu_files.write_video(folder / "a1_s1_t1_color.avi", FRAMES, size=(480, 640), rectangles=boxes)
    ntu_files.write_video(folder / "a2_s1_t1_color.avi", FRAMES // 2, size=(240, 320), rectangles=halved(boxes))
    return folder


def halved(boxes: list[list[int]]) -> list[list[int]]:
    """Every second frame, at half the size."""
    return [[number // 2 for number in box] for box in boxes[::2]]


def test_mosaics_of_rgb_videos(source, filmed, tmp_path):
    utd_mhad.main([f"--source={source}", f"--videos={filmed}", f"--out={tmp_path / 'out'}"])
    opened = records.Records(tmp_path / "out")
    assert opened.info.image_source == "rgb"
    assert "five RGB frames, person cropped by the projected skeleton" in opened.info.preprocessing
    assert set_aside(tmp_path / "out") == {
        "a27_s2_t4.jpg": "no mosaic of this clip; the clip is kept, without an image"
    }
    for row in range(2):
        for crop in np.split(opened.image(row, 480).astype(int), 5, axis=1):
            red = (crop[..., 0] > 150) & (crop[..., 1] < 90)
            assert 0.35 < red.mean() < 0.9
            assert not red[:15].any()
    utd_mhad.main([f"--source={source}", f"--images={tmp_path / 'out.images'}", f"--out={tmp_path / 'again'}"])
    np.testing.assert_array_equal(records.Records(tmp_path / "again").image(0, 480), opened.image(0, 480))


def test_bad_rgb_videos_cost_the_image_alone(source, filmed, tmp_path):
    whole = (filmed / "a1_s1_t1_color.avi").read_bytes()
    (filmed / "a1_s1_t1_color.avi").write_bytes(whole[: len(whole) // 3])
    (filmed / "a2_s1_t1_color.avi").write_bytes(b"no video")
    ntu_files.write_video(filmed / "a27_s2_t4_color.avi", 1, size=(480, 640))
    utd_mhad.prepare(source, tmp_path / "out", image_request.Request(videos=filmed), workers=1)
    opened = records.Records(tmp_path / "out")
    assert opened.clips_without(range(3), "images") == ["a1_s1_t1", "a2_s1_t1"]
    reasons = set_aside(tmp_path / "out")
    assert "a1_s1_t1_color.avi: cut short" in reasons["a1_s1_t1.jpg"]
    assert "a2_s1_t1_color.avi: not a readable video" in reasons["a2_s1_t1.jpg"]


def test_images_are_wanted_or_not(source, capsys):
    with pytest.raises(SystemExit):
        utd_mhad.main([f"--source={source}", "--out=x", "--videos=y", "--no_images"])
    assert "exclude each other" in capsys.readouterr().err
