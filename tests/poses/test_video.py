"""Videos become frames at a constant rate, upright; odd and damaged ones are refused or noted."""

import fractions
import itertools
import pathlib
import struct
import threading

import numpy as np
import pytest

from mmcl_jax.poses import video
from mmcl_jax.poses.types import PosesError
from mmcl_jax.poses.video import Video

av = pytest.importorskip("av", reason="PyAV is not installed (the extra `video`)")


def write(path: pathlib.Path, times, rate: int = 30, size: tuple[int, int] = (64, 48)) -> pathlib.Path:
    """A video of frames at `times` (in 1 / rate seconds), the n-th of gray 4 n with a white left upper quarter."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *size, "yuv420p", 4_000_000
        for number, time in enumerate(times):
            picture = np.full((size[1], size[0], 3), 4 * (number % 60), np.uint8)
            picture[: size[1] // 2, : size[0] // 2] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, fractions.Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read(path: pathlib.Path, fps: float | None = None) -> tuple[Video, list[video.Frame]]:
    with Video(path, fps) as opened:
        return opened, list(opened.frames())


def gray(frame: video.Frame) -> int:
    """Which of the frames of `write` it is."""
    return round(float(frame.picture[-8:, -8:].mean()) / 4)


@pytest.fixture(scope="module")
def steady(tmp_path_factory) -> pathlib.Path:
    return write(tmp_path_factory.mktemp("video") / "steady.mp4", range(60))


def test_every_frame_of_a_steady_video(steady):
    opened, frames = read(steady)
    assert opened.frame_rate == 30 and opened.size == (64, 48) and opened.notes == []
    assert opened.duration == pytest.approx(2)
    assert [frame.number for frame in frames] == list(range(60))
    assert [gray(frame) for frame in frames] == list(range(60))
    assert frames[30].time == pytest.approx(1) and frames[0].picture.shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("fps", "rate", "expected"), [(15, 15, range(0, 60, 2)), (10, 10, range(0, 60, 3)), (99, 30, range(60))]
)
def test_fewer_frames_a_second(steady, fps, rate, expected):
    opened, frames = read(steady, fps)
    assert opened.frame_rate == rate
    assert [frame.number for frame in frames] == list(range(len(expected)))
    assert [gray(frame) for frame in frames] == list(expected)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize(
    ("start", "end", "fps", "expected"),
    [
        (0.5, 1.0, None, range(15, 30)),
        (1.5, None, 15, range(45, 60, 2)),
        (0.0, 0.2, 10, (0, 3)),
        (0.1, 9, 15, range(3, 60, 2)),
    ],
)
def test_a_part_of_a_video(tmp_path, suffix, start, end, fps, expected):
    with Video(write(tmp_path / f"long{suffix}", range(60)), fps, start, end) as opened:
        frames = list(opened.frames())
    assert [gray(frame) for frame in frames] == list(expected) and opened.notes == []
    assert [frame.number for frame in frames] == list(range(len(frames)))


def test_a_part_beyond_the_end_is_refused(steady):
    with pytest.raises(PosesError, match=r"it ends before 2\.5 s"):
        Video(steady, start=2.5)


def test_a_pause_repeats_the_picture_before_it(tmp_path):
    _, frames = read(write(tmp_path / "pause.mkv", [0, 1, 2, 12, 13, 14]), fps=30)
    numbers = [gray(frame) for frame in frames]
    assert [number for number, _ in itertools.groupby(numbers)] == [0, 1, 2, 3, 4, 5]
    assert numbers.count(2) > 5
    pictures = [frame.picture for frame in frames if gray(frame) == 2]
    assert all(picture is pictures[0] for picture in pictures)
    assert [frame.number for frame in frames] == list(range(len(frames)))


def turned(path: pathlib.Path, degrees: int) -> pathlib.Path:
    """The same .mp4 with a matrix in its track header that turns it clockwise, as phones store it."""
    whole = bytearray(path.read_bytes())
    place = whole.index(b"tkhd") + 4 + 40
    turns = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    a, b, c, d = (value << 16 for value in turns)
    whole[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path = path.with_name(f"turned_{degrees}.mp4")
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize(
    ("degrees", "size", "corner"), [(90, (48, 64), (0, -1)), (180, (64, 48), (-1, -1)), (270, (48, 64), (-1, 0))]
)
def test_turned_videos_are_upright(steady, degrees, size, corner):
    opened, frames = read(turned(steady, degrees))
    assert opened.size == size
    picture = frames[0].picture
    assert picture.shape[:2] == size[::-1] and picture.flags.c_contiguous
    bright = {(y, x) for y in (0, -1) for x in (0, -1) if picture[y, x].mean() > 200}
    assert bright == {corner}  # the white quarter was on the upper left


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "not a readable video"),
        (b"no video at all" * 50, "not a readable video"),
        (None, "not a readable video|no frame can be decoded"),
    ],
)
def test_what_is_no_video_is_refused(steady, tmp_path, contents, message):
    path = tmp_path / "clip.mp4"
    path.write_bytes(steady.read_bytes()[:3000] if contents is None else contents)
    with pytest.raises(PosesError, match=message) as raised:
        read(path)
    assert str(path) in str(raised.value)


def test_other_faults_name_the_remedy(tmp_path, steady):
    with pytest.raises(PosesError, match="no such file; give a video"):
        Video(tmp_path / "missing.mp4")
    with pytest.raises(PosesError, match="--fps=0: expected frames a second, up to 240"):
        Video(steady, fps=0)
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
    with pytest.raises(PosesError, match="no video in it"):
        Video(path)


def test_a_video_that_is_cut_short_is_read_and_noted(tmp_path):
    whole = write(tmp_path / "long.avi", range(150)).read_bytes()
    path = tmp_path / "short.avi"
    path.write_bytes(whole[: len(whole) // 2])
    opened, frames = read(path)
    assert 30 < len(frames) < 120
    assert any("cut short" in note or "damaged" in note for note in opened.notes)


def test_reading_ahead_keeps_order_and_ends_its_thread():
    read_items = []

    def items():
        for item in range(100):
            read_items.append(item)
            yield item

    before = threading.active_count()
    assert list(video.read_ahead(items())) == list(range(100))
    ahead = video.read_ahead(items(), ahead=2)
    read_items.clear()
    assert next(ahead) == 0
    ahead.close()
    assert len(read_items) <= 5 and threading.active_count() == before


def test_reading_ahead_raises_what_the_reader_raises():
    def items():
        yield 1
        raise PosesError("damaged")

    ahead = video.read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(PosesError, match="damaged"):
        next(ahead)
