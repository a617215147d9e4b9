"""Frames out of videos and of folders of pictures, sound and damaged."""

import io
import pathlib
import types

import numpy as np
import pytest
from PIL import Image

from data_prep.formats import sources
from data_prep.images import videos
from tests.helpers import ntu_files

av = pytest.importorskip("av", reason="PyAV is not installed (the extra `video`)")


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("video") / "video.avi"
    ntu_files.write_video(path, 60, size=(120, 160))
    return path


def test_frames_are_the_ones_asked_for(video):
    pictures = videos.read_frames(video, [59, 0, 11, 12, 13, 40, 12])
    assert sorted(pictures) == [0, 11, 12, 13, 40, 59]
    for number, picture in pictures.items():
        assert picture.shape == (120, 160, 3)
        assert abs(picture.mean() - 2 * number) < 2
    with pytest.raises(sources.SourceFileError, match=r"cut short: frame 60 is wanted, the last \(from 0\) is 59"):
        videos.read_frames(video, [60])


def test_damaged_videos_are_refused_or_read(video, tmp_path):
    whole = video.read_bytes()
    path = tmp_path / "damaged.avi"
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(80):
        if number % 4 == 0:
            damaged = whole[: int(rng.integers(len(whole)))]
        elif number % 4 == 1:
            damaged = bytearray(whole)
            for place in rng.integers(min(len(whole), 10 ** int(rng.integers(1, 6))), size=30):
                damaged[place] = int(rng.integers(256))
        elif number % 4 == 2:
            start = int(rng.integers(len(whole)))
            damaged = whole[:start] + rng.bytes(int(rng.integers(2000))) + whole[start:]
        else:
            damaged = (b"", b"RIFF", b"no video" * 100, whole[:12], bytes(5000))[number // 4 % 5]
        path.write_bytes(damaged)
        try:
            assert all(picture.ndim == 3 for picture in videos.read_frames(path, [5, 30, 55]).values())
        except sources.SourceFileError as error:
            assert str(error)
            refused += 1
    assert 30 < refused < 80


def test_frames_next_to_each_other_are_those_of_the_whole_video(video):
    with av.open(str(video)) as container:
        whole = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for wanted in (range(60), range(10, 20), (0, 1, 9, 20, 21, 29, 38, 59)):
        pictures = videos.read_frames(video, wanted)
        assert list(pictures) == list(wanted)
        for number, picture in pictures.items():
            np.testing.assert_array_equal(picture, whole[number])


def test_frames_are_counted_with_and_without_a_header(video, tmp_path):
    assert videos.num_frames(video) == 60
    stream = tmp_path / "video.ts"
    with av.open(str(video)) as source, av.open(str(stream), "w") as target:
        copied = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copied
                target.mux(packet)
    assert videos.num_frames(stream) == 60
    stream.write_bytes(b"no video")
    with pytest.raises(sources.SourceFileError, match="not a readable video"):
        videos.num_frames(stream)


def save_pictures(folder: pathlib.Path, count: int) -> pathlib.Path:
    """Frames as NW-UCLA has them, picture n with the gray value 10 n, and the other files of such a folder."""
    folder.mkdir(parents=True)
    for number in range(count):
        picture = Image.fromarray(np.full((48, 64, 3), 10 * number, np.uint8))
        picture.save(folder / f"frame_{number}_tc_{9_000_000 - number}_rgb.jpg")
        picture.save(folder / f"frame_{number}_tc_{9_000_000 - number}_depth.png")
    (folder / "fileList.txt").write_text("0 1 2")
    (folder / "._frame_0_rgb.jpg").write_bytes(b"of macOS")
    return folder


def test_a_folder_of_pictures_is_a_video(tmp_path):
    folder = save_pictures(tmp_path / "a01_s01_e00", 12)
    assert videos.num_frames(folder) == 12
    pictures = videos.read_frames(folder, [11, 2, 9, 10])
    assert [round(picture.mean() / 10) for picture in pictures.values()] == [2, 9, 10, 11]
    assert pictures[2].shape == (48, 64, 3)
    with pytest.raises(sources.SourceFileError, match=r"cut short: frame 12 is wanted, the last \(from 0\) is 11"):
        videos.read_frames(folder, [12])


def broken_pictures() -> list[tuple[bytes, str]]:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(256, size=(48, 64, 3), dtype=np.uint8)).save(stream, "JPEG")
    whole = stream.getvalue()
    png = io.BytesIO()
    Image.new("RGB", (4, 4)).save(png, "PNG")
    huge = io.BytesIO()
    Image.new("L", (9000, 1)).save(huge, "JPEG")
    return [
        (b"", "not a JPEG"),
        (b"text", "not a JPEG"),
        (whole[:-300], "not a whole JPEG"),
        (whole[:30], "not a (whole )?JPEG"),
        (png.getvalue(), "not a JPEG"),
        (huge.getvalue(), "at most 8192 a side"),
    ]


@pytest.mark.parametrize(("contents", "message"), broken_pictures())
def test_broken_pictures_are_refused_by_name(tmp_path, contents, message):
    folder = save_pictures(tmp_path / "clip", 3)
    (folder / "frame_1_tc_8999999_rgb.jpg").write_bytes(contents)
    with pytest.raises(sources.SourceFileError, match=rf"frame_1_tc_8999999_rgb\.jpg: .*{message}"):
        videos.read_frames(folder, [0, 1, 2])
    assert sorted(videos.read_frames(folder, [0, 2])) == [0, 2]


def test_videos_are_found_in_both_forms(video, tmp_path):
    save_pictures(tmp_path / "view_1" / "a01_s01_e00", 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / ".hidden.avi").write_bytes(b"")
    (tmp_path / "video.AVI").symlink_to(video)
    assert videos.find(tmp_path) == [tmp_path / "video.AVI", tmp_path / "view_1" / "a01_s01_e00"]
    assert videos.find(tmp_path / "nowhere") == []
    with pytest.raises(sources.SourceFileError, match="no pictures"):
        videos.num_frames(tmp_path / "empty")


def test_damaged_pictures_are_refused_or_read(tmp_path):
    folder = save_pictures(tmp_path / "clip", 2)
    path = folder / "frame_1_tc_8999999_rgb.jpg"
    rng = np.random.default_rng(0)
    stream = io.BytesIO()
    Image.fromarray(rng.integers(256, size=(48, 64, 3), dtype=np.uint8)).save(stream, "JPEG")
    refused = 0
    for number in range(150):
        damaged = bytearray(stream.getvalue())
        if number % 3 == 0:
            del damaged[int(rng.integers(len(damaged))) :]
        elif number % 3 == 1:
            for place in rng.integers(min(len(damaged), 10 ** int(rng.integers(1, 4))), size=10):
                damaged[place] = int(rng.integers(256))
        else:
            start = int(rng.integers(len(damaged)))
            damaged[start:start] = rng.bytes(int(rng.integers(1, 500)))
        path.write_bytes(damaged)
        try:
            assert videos.read_frames(folder, [1])[1].ndim == 3
        except sources.SourceFileError as error:
            assert path.name in str(error)
            refused += 1
    assert 50 < refused < 150


def test_a_video_whose_codec_is_unknown(tmp_path, monkeypatch):
    class Container:
        streams = types.SimpleNamespace(video=[types.SimpleNamespace(codec_context=None)])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    (tmp_path / "a.avi").touch()
    monkeypatch.setattr(av, "open", lambda path: Container())
    with pytest.raises(sources.SourceFileError, match="a codec that is unknown or damaged"):
        videos._in_video(tmp_path / "a.avi", videos._count)
