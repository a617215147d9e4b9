"""Videos as phones, programs and broken downloads leave them: each becomes a clip, or is set aside with the reason."""

import dataclasses
import fractions
import io
import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from data_prep import inspect, videos
from data_prep.images import person_crops
from mmcl_jax.data.records import Records
from tests.data_prep import test_videos
from tests.poses.test_video import turned

av = pytest.importorskip("av", reason="PyAV is not installed (the extra `video`)")
LEFTS = range(0, 30, 2)  # of the person, frame by frame
MILLISECONDS = fractions.Fraction(1, 1000)


def picture(*lefts: int, scale: int = 1) -> np.ndarray:
    """Persons with these left edges, 96 x 64 pixels or `scale` times as many each way."""
    image = np.zeros((64 * scale, 96 * scale, 3), np.uint8)
    for left in lefts:
        image[20 * scale : 50 * scale, left * scale : (left + 12) * scale] = 255
    return image


def write(path: pathlib.Path, pictures, codec="mpeg4", pixels="yuv420p", rate=15, times=None, **options) -> bytes:
    """Writes the pictures, at `times` in ms or at a constant rate; the format follows from the name or `options`."""
    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = *pictures[0].shape[:2], pixels, 4_000_000
        if times is not None:
            stream.time_base = stream.codec_context.time_base = MILLISECONDS
        for number, image in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], MILLISECONDS
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("odd")
    place = root / "a"
    place.mkdir()
    steady = [picture(left) for left in LEFTS]
    good = write(place / "good.mp4", steady)
    matroska = write(place / "steady.mkv", steady)
    write(place / "raw.h264", steady, "libx264")
    write(place / "vp9.webm", steady, "libvpx-vp9")
    write(place / "moving jpeg.avi", steady, "mjpeg", "yuvj420p")
    write(place / "gray.mkv", steady, "ffv1", "gray")
    write(place / "odd size.mkv", [image[:63, :95] for image in steady], "ffv1", "bgr0")
    write(place / "4k.mp4", [picture(left, scale=40) for left in (0, 4)], rate=2)
    write(place / "fast.mp4", [picture(left // 8) for left in range(240)], rate=240)
    write(place / "slow.mp4", [picture(4 * left) for left in range(8)], rate=2)
    # Two pauses of a third of a second.
    uneven = [*range(0, 167, 33), *range(500, 667, 33), *range(1000, 1100, 33)]
    write(place / "uneven.mkv", steady[: len(uneven)], rate=30, times=uneven)
    write(place / "late.mkv", steady, times=[3_600_000 + 66 * number for number in range(15)])
    write(place / "jump.mkv", steady, times=[66 * number + 60_000 * (number > 7) for number in range(15)])
    write(place / "four.mp4", [picture(left, left + 20, 40, 60 + 2 * left) for left in range(12)])
    whole = write(place / "no index lost.mp4", steady, options={"movflags": "faststart"})
    (place / "cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    (place / "no index.mp4").write_bytes(good[: len(good) * 9 // 10])
    (place / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (place / "a page.mp4").write_text("<!DOCTYPE html><html>not found</html>")
    (place / "ünï 日本's (1).mp4").write_bytes(good)
    (place / "in truth mkv.mp4").write_bytes(matroska)
    for degrees in (90, 180, 270):
        turned(place / "good.mp4", degrees)
    with av.open(str(place / "no frame.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=15)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()
    (place / "nowhere.mp4").symlink_to("/no/such/video.mp4")
    (place / "link.mp4").symlink_to(place / "good.mp4")
    os.mkfifo(place / "pipe.mp4")
    (place / ".hidden.mp4").write_bytes(good)
    return root


def test_each_is_a_clip_or_set_aside_with_the_reason(folder, tmp_path, monkeypatch):
    test_videos.use(monkeypatch, test_videos.RectangleEstimator())
    videos.prepare(folder, tmp_path / "out", images=True, workers=1)
    records = Records(tmp_path / "out")
    names = [str(name).removeprefix("a/") for name in records.index["name"]]
    assert records.clips_without(np.arange(len(names)), "images") == []
    frames = dict(zip(names, records.index["num_frames"].tolist(), strict=True))
    others = {"4k": 2, "slow": 8, "fast": 16, "uneven": 17, "four": 12, "cut": frames["cut"]}
    steady = set(frames) - set(others)
    assert steady == {
        *("good", "gray", "in truth mkv", "jump", "late", "link", "moving jpeg", "no index lost", "odd size", "raw"),
        *("steady", "turned_180", "turned_270", "turned_90", "ünï 日本's (1)", "vp9"),
    }
    assert {name: frames[name] for name in others} == others and {frames[name] for name in steady} == {15}
    for row, name in enumerate(names):
        if name in steady:
            moves = np.ptp(records.skeleton(row)[0, :, 0, :2], axis=0).round()
            assert moves.tolist() == ([0, 28] if name in ("turned_90", "turned_270") else [28, 0]), name
    reasons = {item["name"]: item["reason"] for item in json.loads((tmp_path / "out/set_aside.json").read_text())}
    expected = {
        "a/no index": "no frame can be decoded",
        "a/noise": "not a readable video",
        "a/a page": "not a readable video",
        "a/no frame": "no video in it",
        "a/nowhere.mp4": "a link that leads nowhere",
        "a/pipe.mp4": "a pipe",
    }
    assert {name: text for name, text in expected.items() if text not in reasons.get(name, "")} == {}
    assert reasons.keys() == expected.keys()
    notes = dict(line.split(": ", 1) for line in (tmp_path / "out.work/notes.txt").read_text().splitlines())
    assert notes.keys() == {"a/four", "a/cut", "a/jump"}
    assert "one who acts most is kept" in notes["a/four"] and "cut short" in notes["a/cut"]
    assert "time stamps jump" in notes["a/jump"]


def test_moments_are_numbered_as_the_frames_of_the_skeleton(tmp_path, monkeypatch):
    """The person appears after a third of a second; the page of the records draws the joints into the boxes."""
    test_videos.use(monkeypatch, test_videos.RectangleEstimator())
    (tmp_path / "mine/a").mkdir(parents=True)
    pictures = [*[picture()] * 5, *[picture(3 * left) for left in range(20)]]
    for name in ("one", "two"):
        write(tmp_path / f"mine/a/{name}.mp4", pictures)
    videos.prepare(tmp_path / "mine", tmp_path / "out", images=True, workers=1)
    records = Records(tmp_path / "out")
    skeleton = records.skeleton(0)
    with Image.open(io.BytesIO(records.image_file(0))) as mosaic:
        origin = person_crops.read_origin(mosaic)
    assert skeleton.shape[1] == 20 and origin is not None and origin.frames == (2, 6, 10, 14, 18)
    poses = inspect.poses_at(records.info, skeleton, origin.frames)
    assert poses is not None
    for joints, (left, top, right, bottom) in zip(poses, origin.boxes, strict=True):
        (places,) = np.array(joints)
        assert ((places >= (left, top)) & (places <= (right, bottom))).all() and right - left < 25
    hidden = skeleton * [1, 1, 0]
    hidden[:, :, 0, 2] = 1
    assert [joint is None for joint in inspect.poses_at(records.info, hidden, [3])[0][0]] == [False] + [True] * 16
    assert inspect.poses_at(records.info, skeleton, [20]) is None
    assert inspect.poses_at(dataclasses.replace(records.info, units="metres"), skeleton, [3]) is None
