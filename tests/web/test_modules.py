"""The page's modules in Node.js compute what the Python code computes that `mmcl_jax.predict` runs."""

import base64
import json
import pathlib

import jax
import numpy as np
import pytest

from mmcl_jax.config import Config
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.data.records import DatasetInfo
from mmcl_jax.description import Description
from mmcl_jax.poses.blazepose import detector, landmarks
from mmcl_jax.poses.blazepose.crops import Square, crop
from mmcl_jax.poses.types import PIXELS, FramePoses, Person
from mmcl_jax.recognition.clips import ClipMaker
from mmcl_jax.recognition.recognizer import Models, Recognizer, WindowOptions
from mmcl_jax.trained_model import TrainedModel
from mmcl_jax.web.folder import describe_poses
from tests.helpers import documents, runs
from tests.recognition import people
from tests.web.conftest import run_node

WIDTH, HEIGHT = 150, 220
SQUARES = [Square(70.5, 100.25, 90.0, 0.4), Square(20.0, 200.0, 300.0, -1.3), Square(75.0, 110.0, 220.0, 0.0)]
REGION = Square(75.0, 110.0, 220.0)
SEEN_IN = Square(80.0, 120.0, 150.0, 0.3)


def untrained(layout: str, units: str, channels: tuple[str, ...]) -> TrainedModel:
    """A model of other joints, channels and units."""
    info = DatasetInfo("own", layout, units, people.CLASSES, channels=channels)
    config = Config.of(runs.tiny_config(pathlib.Path("none"), data__window=8))
    description = Description(config, info, 1, centered=False)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), description.template())
    return TrainedModel(description, zeros)


def picture(rng) -> np.ndarray:
    """uint8 `[H, W, 3]`: soft blobs, as neighboring pixels of a photograph are alike."""
    coarse = rng.integers(0, 256, (HEIGHT // 10 + 1, WIDTH // 10 + 1, 3))
    fine = np.kron(coarse, np.ones((10, 10, 1)))[:HEIGHT, :WIDTH]
    return (0.8 * fine + rng.integers(0, 50, fine.shape)).astype(np.uint8)


def detected(rng) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and logits of a few people, each seen by several anchors."""
    boxes = rng.normal(0, 8, (1, 2254, 12)).astype(np.float32)
    boxes[..., 2:4] = rng.uniform(30, 90, (1, 2254, 2))
    boxes[..., 7] -= 60  # the point above the hips
    logits = np.full((1, 2254, 1), -9.0, np.float32)
    logits[0, rng.choice(2254, 12, replace=False), 0] = rng.uniform(-1, 4, 12)
    return boxes, logits


def look(rng) -> dict[str, np.ndarray]:
    """What the landmark network gives for a person."""
    points = rng.normal(0, 1, (1, 195)).astype(np.float32)
    points.reshape(39, 5)[:, :2] = rng.uniform(-10, 266, (39, 2))
    heatmaps = rng.normal(-1, 2, (1, 64, 64, 39)).astype(np.float32)
    world = rng.normal(0, 0.4, (1, 117)).astype(np.float32)
    return {"points": points, "presence": np.array([[0.9]], np.float32), "heatmaps": heatmaps, "world": world}


def walk(rng) -> list[tuple[int, Person | None]]:
    """Somebody who is lost for a while, frames that were left out, somebody else, and nobody at last."""
    frames: list[tuple[int, Person | None]] = []
    places, speed = rng.uniform(100, 300, (2, 33, 2)), rng.uniform(-2, 2, (33, 2))
    for number in [each for each in range(95) if each % 7 != 3]:
        away = 20 <= number < 26 or number > 70
        who = int(number >= 45)
        confidence = rng.uniform(0, 1, 33).astype(np.float32)
        world = rng.normal(0, 0.4, (33, 3)).astype(np.float32)
        joints = (places[who] + number * speed).astype(np.float32)
        frames.append((number, None if away else Person(who, joints, confidence, world)))
    return frames


def plain(square: Square) -> dict[str, float]:
    return {"x": square.x, "y": square.y, "side": square.side, "angle": square.angle}


@pytest.fixture(scope="module")
def others() -> list[TrainedModel]:
    """A model of a Kinect's joints in meters, and one of joints in halves of the picture."""
    return [
        untrained("nw_ucla", "meters", ("x", "y", "z")),
        untrained("h36m17", "halves of the picture", ("x", "y", "confidence")),
    ]


@pytest.fixture(scope="module")
def both(page, packages, others):
    """What went in and what the modules made of it."""
    rng = np.random.default_rng(5)
    pixels, (boxes, logits), seen, frames = picture(rng), detected(rng), look(rng), walk(rng)
    opaque = np.concatenate([pixels, np.full((HEIGHT, WIDTH, 1), 255, np.uint8)], axis=-1)

    def told(person: Person | None) -> dict | None:
        if person is None:
            return None
        arrays = {"joints": person.joints, "confidence": person.confidence, "world": person.world}
        return {"number": person.number, **{name: array.tolist() for name, array in arrays.items()}}

    given = {
        "picture": {"width": WIDTH, "height": HEIGHT, "data": base64.b64encode(opaque.tobytes()).decode()},
        "squares": [plain(square) for square in SQUARES],
        "detector": {"boxes": boxes.ravel().tolist(), "logits": logits.ravel().tolist(), "region": plain(REGION)},
        "landmarks": {**{name: array.ravel().tolist() for name, array in seen.items()}, "square": plain(SEEN_IN)},
        "frames": [{"number": number, "person": told(person)} for number, person in frames],
        "size": {"width": 640, "height": 480},
        "clips": [describe_poses(each) for each in others],
    }
    made = json.loads(run_node(pathlib.Path(__file__).with_name("in_node.mjs"), page, packages, given=given))
    return (pixels, boxes, logits, seen, frames), made


def test_crops(both):
    (pixels, *_), made = both
    for square, found in zip(SQUARES, made["cropped"], strict=True):
        expected = crop(pixels, square, 64).astype(np.float32)
        difference = np.abs(np.reshape(found, expected.shape) - expected)
        assert difference.max() <= 1 and difference.mean() < 0.1
        assert np.ptp(expected) > 100


def test_detections(both):
    (_, boxes, logits, *_), made = both
    expected = detector.decode(boxes, logits, REGION, 0.2)
    assert 3 <= len(expected) == len(made["detections"])
    for one, other in zip(made["detections"], expected, strict=True):
        assert one["score"] == pytest.approx(other.score, abs=1e-6)
        assert one["square"] == pytest.approx(plain(other.square), abs=1e-3)


def test_landmarks(both):
    (*_, seen, _), made = both
    expected, found = landmarks.decode(**seen, square=SEEN_IN), made["seen"]
    for name, value in (("joints", expected.joints), ("confidence", expected.visibility), ("world", expected.world)):
        np.testing.assert_allclose(found[name], value, atol=1e-3)
    assert found["square"] == pytest.approx(plain(expected.square), abs=1e-3)
    assert found["presence"] == pytest.approx(0.9)


def test_clips_of_models_in_meters_and_in_halves_of_the_picture(both, others):
    (*_, frames), made = both
    persons = [person for _, person in frames if person is not None]
    joints, confidence, world = (
        np.stack([getattr(person, name) for person in persons]) for name in ("joints", "confidence", "world")
    )
    for model, found in zip(others, made["clips"], strict=True):
        maker = ClipMaker(model, LAYOUTS["blazepose33"], PIXELS, (640, 480), has_world=True)
        expected = maker(joints, confidence, world)
        np.testing.assert_allclose(np.reshape(found, expected.shape), expected, atol=1e-5)


def test_events(both, model):
    (*_, frames), made = both

    def recognizer() -> Recognizer:
        return Recognizer(
            Models([model]), LAYOUTS["blazepose33"], PIXELS, people.RATE, (640, 480), WindowOptions(), source="clip",
            has_world=True, live=True,
        )  # fmt: skip

    expected, current, following = [], recognizer(), 0
    for number, person in frames:
        if person is not None and person.number != following:
            # The page follows one person: the first is summed up when another comes.
            expected, current, following = expected + current.finish(), recognizer(), person.number
        persons = () if person is None else (person,)
        expected += current.add(FramePoses(number, number / people.RATE, persons, np.zeros((0, 0, 3), np.uint8)))
    expected += current.finish()
    assert [event.whole for event in expected].count(True) == 2 and len(expected) > 8
    for found, event in zip(made["events"], expected, strict=True):
        assert (found["start"], found["end"], found["whole"]) == pytest.approx((event.start, event.end, event.whole))
        np.testing.assert_allclose(found["probabilities"], event.probabilities, atol=1e-4)
    assert np.ptp([event.probabilities for event in expected], axis=0).max() > 1e-3  # windows differ


def test_the_example_for_node(page, packages, model, tmp_path):
    script = tmp_path / "classify_clip.mjs"
    script.write_text((documents.ROOT / "docs" / "examples" / "classify_clip.mjs").read_text())
    (tmp_path / "node_modules").symlink_to(packages)
    clip = np.random.default_rng(1).uniform(0, 400, (19, 17, 3)).astype(np.float32)
    (tmp_path / "clip.json").write_text(json.dumps(clip.tolist()))
    action, probability = run_node(script, page, tmp_path / "clip.json").rsplit(maxsplit=1)
    expected = model.predict(clip)
    assert action == expected.top(1)[0][0]
    assert float(probability) == pytest.approx(float(expected.probabilities.max()), abs=1e-4)
