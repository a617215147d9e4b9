"""BlazePose on pictures and on a real clip, with its model files; without them only the refusals are tested."""

import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.poses import model_files
from mmcl_jax.poses.blazepose import BlazePose
from mmcl_jax.poses.blazepose.network import Network
from mmcl_jax.poses.estimate import poses_of_video
from mmcl_jax.poses.types import PosesError
from mmcl_jax.poses.video import Frame, Video

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed (the extra `video`)")
pytest.importorskip("av", reason="PyAV is not installed (the extra `video`)")

CLIP = pathlib.Path(os.environ.get("MMCL_TEST_DATA", "")) / "data" / "S001C001P001R001A001_rgb.avi"
needs_clip = pytest.mark.skipif(
    "MMCL_TEST_DATA" not in os.environ or not CLIP.is_file(), reason=f"no {CLIP.name} in MMCL_TEST_DATA/data"
)
JOINTS = LAYOUTS["blazepose33"].joints


@pytest.fixture(scope="module")
def estimator() -> BlazePose:
    try:
        return BlazePose("full", threads=1)
    except PosesError as error:
        pytest.skip(str(error))


def test_nobody_in_a_picture_of_nobody(estimator):
    noise = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    frames = [Frame(number, number / 15, noise) for number in range(3)]
    before = estimator.stages.counts["detect"]
    assert [frame.persons for frame in estimator.track(frames, 15)] == [(), (), ()]
    assert estimator.stages.counts["detect"] - before == 3  # the same array is not estimated again; whole and two parts


@needs_clip
def test_every_frame_of_a_real_clip(estimator):
    """A person who stands and drinks, about 400 pixels high in 1920 x 1080."""
    done = []
    poses = poses_of_video(CLIP, estimator, fps=5, progress=done.append)
    assert poses.size == (1920, 1080) and poses.frame_rate == 5 and poses.layout == "blazepose33"
    assert poses.num_frames == len(done) == 18
    (track,) = poses.tracks
    assert track.frames.tolist() == list(range(18))
    left, top, right, bottom = done[0].persons[0].box
    assert 900 < left < right < 1200 and 250 < top < bottom < 800
    place = {name: track.joints[0, joint] for joint, name in enumerate(JOINTS)}
    assert place["nose"][1] < place["left shoulder"][1] < place["left hip"][1] < place["left ankle"][1]
    assert track.confidence[:, [JOINTS.index("left hip"), JOINTS.index("right hip")]].min() > 0.5
    # In meters: y downwards, from the middle of the hips; a person of ordinary height.
    world = {name: track.world[:, joint] for joint, name in enumerate(JOINTS)}
    np.testing.assert_allclose((world["left hip"] + world["right hip"]) / 2, 0, atol=0.03)
    height = np.median(world["left ankle"][:, 1] - world["nose"][:, 1])
    assert 1.0 < height < 1.8


@needs_clip
def test_two_persons_keep_their_numbers_through_a_crossing(estimator):
    """The clip twice in one picture, one of them tinted and in front; they pass each other."""
    with Video(CLIP, fps=10) as video:
        size = (384, 216)
        small = [np.asarray(Image.fromarray(frame.picture).resize(size)) for frame in video.frames()]
    person = slice(110, 310)  # columns around the person
    frames = []
    for number, picture in enumerate(small[:20]):
        wide = np.full((216, 800, 3), 160, np.uint8)
        step = 30 * number
        back, front = 600 - step, step
        wide[:, back : back + 200] = picture[:, person]
        wide[:, front : front + 200] = picture[:, person] // np.array([1, 2, 2], np.uint8)
        frames.append(Frame(number, number / 10, wide))
    found = list(estimator.track(frames, 10))
    start = {person.number: np.mean(person.joints[:, 0]) for person in found[3].persons}
    end = {person.number: np.mean(person.joints[:, 0]) for person in found[-1].persons}
    assert start.keys() == end.keys() and len(start) == 2
    front, back = sorted(start, key=start.__getitem__)
    assert end[back] < 300 < 480 < end[front]
    assert {person.number for frame in found for person in frame.persons} == {front, back}


def test_what_is_no_network_is_refused(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"no model at all")
    with pytest.raises(PosesError, match=r"model\.tflite: not a \.tflite model"):
        Network(path, 256, ((1, 195),))


def test_a_network_of_something_else_is_refused(estimator):
    path = model_files.find(model_files.DETECTOR)
    with pytest.raises(PosesError, match="expected float32 \\(1, 256, 256, 3\\)"):
        BlazePose(path)
    with pytest.raises(PosesError, match="without \\(1, 195\\); not BlazePose's"):
        Network(path, 224, ((1, 195),))
