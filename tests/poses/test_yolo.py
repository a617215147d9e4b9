"""YOLO-pose with random weights, saved by ultralytics itself: joints as its own predictor finds them, and refusals."""

import pathlib

import numpy as np
import pytest

from mmcl_jax.poses.estimators import load_estimator
from mmcl_jax.poses.types import PosesError
from mmcl_jax.poses.video import Frame
from mmcl_jax.poses.yolo import YoloPose

ultralytics = pytest.importorskip("ultralytics", reason="ultralytics is not installed (make test-yolo)")
torch = pytest.importorskip("torch")

PICTURE = np.random.default_rng(0).integers(0, 255, (96, 160, 3), dtype=np.uint8)
SURE_OF_NOTHING = 1e-3  # random weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> pathlib.Path:
    torch.manual_seed(0)
    model = ultralytics.YOLO("yolo11n-pose.yaml", verbose=False)
    with torch.no_grad():
        for layers in model.model.model[-1].cv3:
            layers[-1].bias.fill_(-2)
    path = tmp_path_factory.mktemp("weights") / "pose.pt"
    model.save(path)
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["train_args"] = {"imgsz": 160}
    torch.save(checkpoint, path)
    return path


def test_joints_are_those_of_ultralytics_own_decoding(weights):
    """A best person's joints, from the raw output of the model on the picture (which needs no scaling)."""
    estimator = YoloPose(weights, least_confidence=SURE_OF_NOTHING)
    joints, confidence = estimator.look(PICTURE)
    assert joints.shape[1:] == (17, 2) and confidence.shape == joints.shape[:2] and estimator.layout == "coco"
    with torch.inference_mode():
        raw = estimator._model(torch.from_numpy(PICTURE).permute(2, 0, 1)[None].float() / 255)
    raw = raw[0] if isinstance(raw, tuple | list) else raw
    scores = raw[0, 4:-51].amax(dim=0)
    best = raw[0, -51:, scores >= scores.max() - 1e-5]  # random weights are equally sure of several places
    expected = best.T.reshape(-1, 17, 3).numpy()
    away = np.abs(expected[..., :2].clip(0, (160, 96)) - joints[0]).max(axis=(1, 2))
    assert away.min() < 1e-3
    np.testing.assert_allclose(confidence[0], expected[away.argmin(), :, 2], atol=1e-5)


def test_persons_are_followed(weights):
    estimator = YoloPose(weights, least_confidence=SURE_OF_NOTHING, most_persons=2)
    frames = [Frame(number, number / 10, PICTURE) for number in range(2)] + [Frame(2, 0.2, PICTURE.copy())]
    found = list(estimator.track(frames, 10))
    assert estimator.stages.counts["poses"] == 2  # the same array is not estimated again
    numbers = [[person.number for person in frame.persons] for frame in found]
    assert numbers[0] == numbers[1] == numbers[2] and 1 <= len(numbers[0]) <= 2


def test_other_weights_are_refused(tmp_path):
    with pytest.raises(PosesError, match=r"nowhere\.pt: no such file; set --pose_model"):
        load_estimator(tmp_path / "nowhere.pt")
    path = tmp_path / "boxes.pt"
    ultralytics.YOLO("yolo11n.yaml", verbose=False).save(path)
    with pytest.raises(PosesError, match="holds a DetectionModel, expected one of PoseModel"):
        load_estimator(path)
    torch.save({"model": pathlib.PurePosixPath("x")}, path)
    with pytest.raises(PosesError, match="cannot be loaded"):
        load_estimator(path)
