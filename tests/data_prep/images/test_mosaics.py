"""The work folder of mosaics, and what finds persons in it; making them is tested with each dataset and with YOLO."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from data_prep.formats import sources
from data_prep.images import mosaics
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import PreparationError

BY_YOLO = {"boxes": "yolo", "weights": "w.pt", "sha256": 64 * "a", "confidence": 0.25, "person_class": "person"}
BY_SKELETON = {"boxes": "skeleton"}


def folder_with(path: pathlib.Path, about: dict, *names: str) -> mosaics.ImageFolder:
    folder = mosaics.ImageFolder(path)
    folder.claim(about)
    for name in names:
        folder.write(name, mosaics.assemble([(0, np.zeros((20, 20, 3), np.uint8), (0, 0, 10, 20))] * 5))
    return folder


def test_a_folder_says_what_its_boxes_come_from(tmp_path):
    assert folder_with(tmp_path / "one", BY_SKELETON, "clip").describe("the joints").endswith("cropped by the joints")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["clip.jpg"]
    described = folder_with(tmp_path / "other", BY_YOLO, "clip").describe("the joints")
    assert described.endswith("cropped by YOLO (w.pt, sha256 aaaaaaaa, class person, confidence 0.25)")


@pytest.mark.parametrize(("first", "second"), [(BY_SKELETON, BY_YOLO), (BY_YOLO, BY_SKELETON)])
def test_mosaics_of_two_kinds_are_not_mixed_and_an_empty_folder_is_free(tmp_path, first, second):
    folder_with(tmp_path / "free", first)
    assert folder_with(tmp_path / "free", second, "clip").about == second
    folder = folder_with(tmp_path / "taken", first, "clip")
    with pytest.raises(PreparationError, match=r"holds mosaics with boxes by .*, not by .*; choose another --images"):
        folder.claim(second)
    folder.claim(first)
    assert folder.about == first


@pytest.mark.parametrize("contents", ["", "[]", "{", '{"boxes": "yolo"}', "3", "\ud800"])
def test_a_damaged_about_json_is_refused(tmp_path, contents):
    folder = folder_with(tmp_path / "images", BY_YOLO, "clip")
    (folder.path / "about.json").write_bytes(contents.encode("utf-8", "surrogatepass"))
    with pytest.raises(PreparationError, match=r"about\.json: damaged .*remove the folder"):
        folder.claim(BY_YOLO)


def test_a_place_that_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "images"):
        with pytest.raises(PreparationError, match="cannot be created"):
            mosaics.ImageFolder(path).claim(BY_SKELETON)


def test_what_is_set_aside_is_forgotten_once_there_is_a_mosaic(tmp_path):
    folder = folder_with(tmp_path / "images", BY_SKELETON)
    folder.set_aside("clip", "cut short")
    with pytest.raises(sources.SourceFileError, match="cut short"):
        folder.read("clip")
    folder_with(tmp_path / "images", BY_SKELETON, "clip")
    assert folder.read("clip")[:3] == b"\xff\xd8\xff"
    assert folder.done() == {"clip"}
    assert len(list(folder.path.iterdir())) == 1


def save_greys(folder: pathlib.Path, count: int) -> pathlib.Path:
    """A video whose frame n has the gray value 10 n."""
    folder.mkdir()
    for number in range(count):
        Image.fromarray(np.full((48, 64, 3), 10 * number, np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("frame_by_frame", "num_pictures", "expected"),
    [
        (True, 20, [1, 3, 5, 7, 9]),
        (False, 10, [1, 3, 5, 7, 9]),
        (False, 20, [3, 7, 11, 15, 19]),
        (False, 5, [0, 1, 2, 3, 4]),
    ],
)
def test_moments_of_skeleton_and_video_belong_together(tmp_path, monkeypatch, frame_by_frame, num_pictures, expected):
    track = mosaics.Track(10, (480, 640), lambda frame: (0, 0, 640, 480), frame_by_frame)
    seen = []
    monkeypatch.setattr(mosaics, "assemble", seen.extend)
    mosaics.by_skeleton(mosaics.Footage("clip", save_greys(tmp_path / "clip", num_pictures), lambda: track))
    assert [round(picture.mean() / 10) for _, picture, _ in seen] == expected
    assert [frame for frame, _, _ in seen] == expected
    assert {box for *_, box in seen} == {(0, 0, 64, 48)}


def test_a_kinect_v1_track_stands_where_the_color_camera_sees_it():
    skeleton = np.zeros((2, 20, 3))
    skeleton[0] = np.random.default_rng(0).uniform((-0.3, -0.9, 2.9), (0.3, 0.8, 3.0), size=(20, 3))
    skeleton[0, 0], skeleton[0, 1] = (0.3, 0.9, 2.6557), (-0.3, -0.9, 2.6557)  # 200 pixels per meter
    track = mosaics.kinect_v1_track(skeleton)
    assert (track.num_frames, track.frame_size) == (2, (480, 640))
    # 120 x 360 pixels around the center, and 36 on every side.
    np.testing.assert_allclose(track.box_in(0), (224, 24, 416, 456), atol=1)
    assert track.box_in(1) is None


def test_clips_without_a_mosaic_are_kept(tmp_path):
    clip = records.Clip("clip", 0, 1, 1, 1, 1, np.ones((4, 1, 20, 3), np.float32))
    assert mosaics.with_mosaic(clip, None) == [clip]
    kept, item = mosaics.with_mosaic(clip, folder_with(tmp_path / "images", BY_SKELETON))
    assert (kept.image, item.name) == (None, "clip.jpg")
    assert "no mosaic of this clip; the clip is kept" in item.reason
    (found,) = mosaics.with_mosaic(clip, folder_with(tmp_path / "images", BY_SKELETON, "clip"))
    assert found.image is not None


def test_about_json_is_readable_by_a_person(tmp_path):
    folder = folder_with(tmp_path / "images", BY_YOLO)
    assert json.loads((folder.path / "about.json").read_text()) == BY_YOLO
