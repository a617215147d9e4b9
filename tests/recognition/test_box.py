"""The model that comes with the package, and the whole way from a real video to a labeled one."""

import json
import os
import pathlib

import numpy as np
import pytest

from mmcl_jax import predict
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.poses.types import PosesError
from mmcl_jax.poses.video import Video
from mmcl_jax.recognition.models import BOX, load_models
from mmcl_jax.recognition.watch import usual_estimator


def test_it_says_what_it_sees_and_is_small():
    models = load_models(None)
    (model,) = models.models
    assert model.layout == LAYOUTS["body13"] and model.channels == ("x", "y", "confidence") and model.units == "pixels"
    assert {"walk", "sit down", "stand up", "squat"} <= set(models.class_names)
    assert models.window == 3.0 and models.frame_rate == 12.0 and 0 < models.threshold < 1
    assert sum(path.stat().st_size for path in BOX.rglob("*")) < 5e6
    # Where in the picture and how large a person is changes nothing.
    clip = np.random.default_rng(0).uniform(0, 200, (36, 13, 3)).astype(np.float32)
    clip[..., 2] = 1
    moved = clip * np.array([2, 2, 1], np.float32) + np.array([300, 40, 0], np.float32)
    one, other = model.predict([clip, moved])
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)


def test_a_real_video_is_labeled(tmp_path, capsys):
    """NTU RGB+D's clip of a person who drinks: which action it is called is not tested, the model knows no drinking."""
    pytest.importorskip("av")
    folder = os.environ.get("MMCL_TEST_DATA")
    video = pathlib.Path(folder or "none") / "data" / "S001C001P001R001A001_rgb.avi"
    if not video.exists():
        pytest.skip("MMCL_TEST_DATA names no folder with NTU's clip")
    try:
        usual_estimator()
    except PosesError as error:
        pytest.skip(f"no pose model: {error}")
    predict.main([str(video), "--json=-", f"--out={tmp_path / 'out.mp4'}", f"--html={tmp_path / 'page.html'}"])
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["person"] for event in events} == {events[0]["person"]}
    assert [event["whole"] for event in events] == [False] * (len(events) - 1) + [True]
    assert events[0]["end"] == pytest.approx(3.0) and 3.2 < events[-1]["end"] < 3.6
    with Video(tmp_path / "out.mp4") as opened:
        frames = list(opened.frames())
    assert len(frames) == pytest.approx(41, abs=2) and (tmp_path / "page.html").stat().st_size > 10_000
