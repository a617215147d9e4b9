"""What people look at: labeled pictures and videos, a page; and a camera that never falls behind."""

import dataclasses
import json
import resource
import signal
import time

import numpy as np
import pytest

from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.poses.types import Person, PosesError
from mmcl_jax.poses.video import Video
from mmcl_jax.recognition.camera import Camera
from mmcl_jax.recognition.drawing import COLORS, draw
from mmcl_jax.recognition.events import Event, best
from mmcl_jax.recognition.labelled_video import Labels, VideoWriter, write_labelled
from mmcl_jax.recognition.page import page_data, write_page
from mmcl_jax.runtime.errors import PreparationError
from tests.recognition import people

pytest.importorskip("av")


def _event(person: int, start: float, end: float, probabilities, *, whole: bool = False) -> Event:
    values = np.array(probabilities, np.float32)
    return Event("input", person, start, end, whole, best(values, people.CLASSES, 3, 0.3), values)


EVENTS = [
    _event(0, 0.0, 2.0, [0.9, 0.1, 0, 0]),
    _event(0, 1.0, 3.0, [0.1, 0.9, 0, 0]),
    _event(0, 4.0, 6.0, [0.25, 0.25, 0.25, 0.25]),
    _event(0, 0.0, 6.0, [0.45, 0.45, 0.05, 0.05], whole=True),
]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """60 frames of 120 x 90 pixels at 30 a second, each brighter than the one before."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with VideoWriter(path, 30.0, (120, 90)) as writer:
        for number in range(60):
            writer.write(number, np.full((90, 120, 3), 40 + 3 * number, np.uint8))
    return path


def test_a_written_video_is_read_again(video):
    with Video(video) as opened:
        frames = list(opened.frames())
        assert (len(frames), opened.size, round(float(opened.frame_rate))) == (60, (120, 90), 30)
    means = [frame.picture.mean() for frame in frames]
    np.testing.assert_allclose(means, 40 + 3 * np.arange(60), atol=3)
    for name in ("clip.avi", "no folder/clip.mp4"):
        with pytest.raises(PosesError, match=r"--out="):
            VideoWriter(video.parent / name, 30.0, (120, 90))


def test_a_person_is_drawn_with_bones_box_and_label():
    joints = people.poses((0, 0)).tracks[0].joints[0]
    person = Person(1, joints, np.full(17, 0.9, np.float32))
    picture = np.zeros((480, 640, 3), np.uint8)
    drawn = draw(picture, [person], LAYOUTS["coco"], {1: ("kick", 0.87)})
    assert not picture.any() and drawn.shape == picture.shape
    colored = np.abs(drawn.astype(int) - np.array(COLORS[1])).max(axis=2) < 8
    left, top = (int(value) for value in joints[5, :2] / 2 + joints[7, :2] / 2)  # the middle of a bone
    assert colored[top - 3 : top + 4, left - 3 : left + 4].any()
    unlabeled = draw(picture, [person], LAYOUTS["coco"], {})
    assert (drawn != unlabeled).any(axis=2).sum() > 500  # the label is large
    unseen = dataclasses.replace(person, confidence=np.zeros(17, np.float32))
    assert not draw(picture, [unseen], LAYOUTS["coco"], {1: ("kick", 0.87)}).any()


def test_labels_are_the_mean_of_the_windows_around_a_moment():
    labels = Labels(EVENTS, people.CLASSES, 0.3)
    assert labels.at(0.5)[0] == ("wave", pytest.approx(0.9))
    assert labels.at(1.5)[0] == ("wave", pytest.approx(0.5))
    assert labels.at(2.5)[0] == ("kick", pytest.approx(0.9))
    assert labels.at(3.5) == {}
    assert labels.at(5.0)[0][0] is None


def test_a_labeled_video_has_the_frames_of_its_source(video, tmp_path):
    poses = people.poses((0, 29), num_frames=30, frame_rate=15.0, size=(120, 90))
    small = dataclasses.replace(poses.tracks[0], joints=poses.tracks[0].joints / 5)
    write_labelled(
        tmp_path / "out.mp4",
        video,
        15.0,
        dataclasses.replace(poses, tracks=(small,)),
        Labels(EVENTS, people.CLASSES, 0),
    )
    with Video(tmp_path / "out.mp4") as opened:
        frames = list(opened.frames())
    assert len(frames) == 30
    assert np.ptp(frames[0].picture.astype(int), axis=(0, 1)).max() > 60  # something is drawn on a gray picture
    assert not list(tmp_path.glob(".*"))


def test_a_labeled_video_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path):
    """What is written last, when the file is closed, may not fit either."""
    path, limits = tmp_path / "out.mp4", resource.getrlimit(resource.RLIMIT_FSIZE)
    path.write_text("before")
    pictures = np.random.default_rng(0).integers(0, 256, (3, 120, 160, 3), np.uint8)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that is too large is then an error
    try:
        with pytest.raises(OSError), VideoWriter(path, 10.0, (160, 120)) as writer:
            for number, picture in enumerate(pictures):
                writer.write(number, picture)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_camera_leaves_frames_out_rather_than_fall_behind(video):
    with Camera(video, 30.0) as camera:
        seen = []
        for frame in camera.frames():
            seen.append(frame)
            time.sleep(0.12)  # slower than the camera
    numbers = [frame.number for frame in seen]
    assert numbers == sorted(set(numbers)) and camera.dropped > 10
    assert len(seen) < 60 and numbers[-1] >= 30
    with Camera(video, 30.0) as camera:
        frames = camera.frames()
        next(frames)
        camera.stop()
        assert len(list(frames)) == 0
    assert all(abs(frame.picture.mean() - 40 - 3 * frame.number) < 8 for frame in seen)


def test_a_camera_that_is_none():
    with pytest.raises(PosesError, match="cannot be opened"):
        Camera(99)


def test_the_page_holds_poses_and_probabilities(tmp_path):
    poses = people.poses((0, 59), (10, 19))
    data = page_data(poses, EVENTS, people.CLASSES, 0.3)
    (person,) = data["people"]  # nothing was said of the other one
    assert person["actions"][:2] == ["wave", "kick"]
    assert [each["top"] for each in person["windows"]] == ["wave", "kick", None]
    assert (data["frames"], data["seconds"], data["extent"]) == (60, 6.0, [1000, 750])
    assert len(person["joints"]) == 60 and len(person["joints"][0]) == 17
    write_page(tmp_path / "page.html", poses, EVENTS, people.CLASSES, 0.3)
    page = (tmp_path / "page.html").read_text()
    assert json.dumps("wave") in page and "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(PreparationError, match="not a page of this command"):
        write_page(tmp_path / "mine.html", poses, EVENTS, people.CLASSES, 0.3)
