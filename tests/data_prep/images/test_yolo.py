"""Random YOLO weights, saved by ultralytics itself: loaded, used, and refused if they are not what they must be."""

import functools
import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest

from data_prep import ntu
from data_prep.images import yolo
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import PreparationError
from tests.helpers import ntu_files

ultralytics = pytest.importorskip("ultralytics", reason="ultralytics is not installed (make test-yolo)")
torch = pytest.importorskip("torch")

ROOT = pathlib.Path(__file__).parents[3]
CONFIDENCE = 1e-3  # random weights are sure of nothing


def save(folder: pathlib.Path, kind: str, names=None, name: str | None = None) -> pathlib.Path:
    """Random weights of the model `kind`.yaml, as `YOLO.save` writes them; scores differ from place to place."""
    torch.manual_seed(0)
    model = ultralytics.YOLO(f"{kind}.yaml", verbose=False)
    head = model.model.model[-1]
    scores = [layers[-1] for layers in (*getattr(head, "cv3", ()), *getattr(head, "one2one_cv3", ()))]

    def spread(layer, _, output):
        layer.weight.mul_(0.1 / output.std())
        layer.bias.fill_(-3)

    hooks = [layer.register_forward_hook(spread) for layer in scores]
    for module in model.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():  # else signals fade on the way, and all scores are one
        model.model.train()(torch.rand(4, 3, 160, 160))
    model.model.eval()
    for hook in hooks:
        hook.remove()
    if names:
        model.model.names = names
    path = folder / (name or f"{kind}.pt")
    model.save(path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> pathlib.Path:
    """yolov5n.pt (ultralytics makes another name of this, and downloads that), trained on small pictures."""
    names = {number: f"thing {number}" for number in range(80)} | {17: "Person"}
    path = save(tmp_path_factory.mktemp("weights"), "yolov5n", names)
    checkpoint = torch.load(path, weights_only=False)
    torch.save({**checkpoint, "train_args": {"imgsz": 160}}, path)
    return path


def pictures(count: int, size=(90, 120)) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        np.kron(rng.integers(256, size=(size[0] // 10, size[1] // 10, 3)), np.ones((10, 10, 1))).astype(np.uint8)
        for _ in range(count)
    ]


def detect(path: pathlib.Path, shown: list[np.ndarray], **settings):
    return yolo.Detector(yolo.Settings(path, **{"confidence": CONFIDENCE, **settings})).detect(shown)


@pytest.mark.parametrize("kind", ["yolov5n", "yolov8n-pose", "yolo11n-seg", "yolo26n"])
def test_persons_are_those_of_ultralytics_own_predictor(tmp_path, monkeypatch, kind):
    from ultralytics.nn import autobackend

    monkeypatch.setattr(autobackend.AutoBackend, "warmup", lambda *_, **__: None)  # it imports torchvision for CUDA
    count = 1 if kind.endswith("pose") else 80
    person = min(3, count - 1)
    path = save(tmp_path, kind, {number: str(number + 100) for number in range(count)} | {person: "person"}, "w.pt")
    shown = pictures(3)
    ours = detect(path, shown, confidence=1e-3)
    theirs = ultralytics.YOLO(path).predict(
        [picture[..., ::-1] for picture in shown], conf=1e-3, classes=[person], batch=3, verbose=False
    )
    assert sum(len(boxes) for boxes, _ in ours) > 0
    for (boxes, confidences), result in zip(ours, theirs, strict=True):
        expected = np.column_stack([result.boxes.xyxy.numpy(), result.boxes.conf.numpy()])
        rows = np.column_stack([boxes, confidences])
        if kind.endswith("seg"):  # their predictor leaves out persons whose mask is empty
            rows = np.array([rows[np.abs(rows - row).sum(axis=1).argmin()] for row in expected]).reshape(-1, 5)
            assert len(boxes) - len(expected) < 0.1 * len(boxes)
        assert len(rows) == len(expected)
        np.testing.assert_allclose(rows, expected, atol=1e-2)
        assert (boxes >= 0).all()
        assert (boxes <= (120, 90, 120, 90)).all()


def test_classes_and_confidence(weights, tmp_path):
    shown = pictures(2)
    everybody = detect(weights, shown)
    sure = detect(weights, shown, confidence=float(np.median(everybody[0][1])))
    assert 0 < len(sure[0][0]) < len(everybody[0][0])
    assert sure[0][1].min() >= np.median(everybody[0][1])
    others = detect(weights, shown, person_class="THING 40")
    assert not np.array_equal(others[0][1], everybody[0][1])
    unnamed = save(tmp_path, "yolov8n")
    assert len(detect(unnamed, shown)[0][0])
    numbered = detect(unnamed, shown, person_class="0")
    np.testing.assert_array_equal(detect(unnamed, shown)[0][0], numbered[0][0])


def test_pictures_are_brought_to_the_size_of_training(weights, monkeypatch):
    seen = []
    detector = yolo.Detector(yolo.Settings(weights))
    monkeypatch.setattr(detector, "_model", _Spy(detector._model, seen))
    detector.detect(pictures(2))
    assert seen == [(2, 3, 128, 160)]


class _Spy:
    """Notes the shapes that a model is given."""

    def __init__(self, model, seen):
        self._model, self._seen, self.end2end = model, seen, model.end2end

    def __call__(self, batch):
        self._seen.append(tuple(batch.shape))
        return self._model(batch)


def test_a_picture_does_not_see_the_others_of_its_batch(weights):
    shown = pictures(3)
    together = detect(weights, shown)
    for picture, (boxes, confidences) in zip(shown, together, strict=True):
        ((alone, alone_confidences),) = detect(weights, [picture])
        assert len(alone) == len(boxes)
        np.testing.assert_allclose(alone_confidences, confidences, rtol=1e-3)


class _Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_file_cannot_run_anything(weights, tmp_path):
    done = tmp_path / "done"
    attacks = {
        "call": {"model": _Attack(done)},
        "beside": {**torch.load(weights, weights_only=False), "train_args": _Attack(done)},
    }
    from ultralytics.nn.tasks import DetectionModel

    class Evaluated:
        def __reduce__(self):
            config = {"nc": 1, "activation": f"__import__('os').system('touch {done}')", "backbone": [], "head": []}
            return DetectionModel, (config,)

    attacks["yaml"] = {"model": Evaluated()}
    for name, contents in attacks.items():
        path = tmp_path / f"{name}.pt"
        torch.save(contents, path)
        with pytest.raises(PreparationError, match=rf"{name}\.pt: cannot be loaded"):
            yolo.Detector(yolo.Settings(path))
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(_Attack(done), protocol=2))
    with pytest.raises(PreparationError, match=r"bare\.pt: cannot be loaded"):
        yolo.Detector(yolo.Settings(tmp_path / "bare.pt"))
    assert not done.exists()
    with pytest.raises((TypeError, RuntimeError, AttributeError)):
        ultralytics.YOLO(tmp_path / "call.pt")
    assert done.exists(), "the attack is one"


def test_weights_of_other_kinds_are_refused(weights, tmp_path):
    cases = {
        "yolov8n-cls": "a ClassificationModel, expected one of DetectionModel",
        "yolov8n-obb": "an? OBBModel, expected one of DetectionModel",
    }
    for kind, message in cases.items():
        with pytest.raises(PreparationError, match=message):
            yolo.Detector(yolo.Settings(save(tmp_path, kind)))
    cats = save(tmp_path, "yolov8n", {number: f"cat {number}" for number in range(80)}, "cats.pt")
    with pytest.raises(PreparationError, match=r"no class 'person' among its 80 \(cat 0, .*--yolo_person"):
        yolo.Detector(yolo.Settings(cats))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "state.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "short.pt").write_bytes(weights.read_bytes()[:50_000])
    for name in ("state", "tensor", "text", "empty", "short"):
        with pytest.raises(PreparationError, match=rf"{name}\.pt: (cannot be loaded|holds a NoneType)"):
            yolo.Detector(yolo.Settings(tmp_path / f"{name}.pt"))
    with pytest.raises(PreparationError, match=r"nowhere\.pt: no such file"):
        yolo.Detector(yolo.Settings(tmp_path / "nowhere.pt"))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> pathlib.Path:
    """Ten one-person clips and a two-person clip, and their videos, one of them cut short."""
    folder = tmp_path_factory.mktemp("ntu")
    (folder / "skeletons").mkdir()
    (folder / "videos").mkdir()
    names = [f"S001C001P001R001A{action:03d}" for action in (*range(1, 11), 60)]
    for number, name in enumerate(names):
        text = ntu_files.two_persons() if name.endswith("060") else ntu_files.one_person()
        (folder / "skeletons" / f"{name}.skeleton").write_text(text)
        boxes = [(10 + number, 20, 60, 80)] * 20
        ntu_files.write_video(folder / "videos" / f"{name}_rgb.avi", 20, size=(90, 160), rectangles=boxes)
    spoiled = folder / "videos" / f"{names[3]}_rgb.avi"
    spoiled.write_bytes(spoiled.read_bytes()[:1500])
    return folder


def arguments(source, weights, *more) -> list[str]:
    folders = [f"--{kind}={source / kind}" for kind in ("skeletons", "videos")]
    return [*folders, "--boxes=yolo", f"--yolo_weights={weights}", f"--yolo_confidence={CONFIDENCE}", *more]


def mosaics_in(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.jpg")}


@pytest.fixture(scope="module")
def prepared(source, weights, tmp_path_factory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("records") / "ntu"
    ntu.main(arguments(source, weights, f"--out={out}"))
    return out


def test_records(prepared, weights):
    opened = records.Records(prepared)
    assert opened.clips_without(range(len(opened)), "images") == ["S001C001P001R001A004"]
    assert opened.image(0, 480).shape == (480, 480, 3)
    assert opened.info.preprocessing.endswith("class person, confidence 0.001)")
    assert f"YOLO ({weights.name}, sha256" in opened.info.preprocessing
    (item,) = json.loads((prepared / "set_aside.json").read_text())
    assert item["name"] == "S001C001P001R001A004.jpg"
    assert "S001C001P001R001A004_rgb.avi: " in item["reason"]


def test_a_killed_command_goes_on_and_writes_the_same_bytes(source, weights, prepared, tmp_path):
    given = arguments(source, weights, f"--out={tmp_path / 'ntu'}")
    run = functools.partial(subprocess.run, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    killed = run([sys.executable, "-m", "tests.helpers.interrupted", "mosaics", "3", *given])
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    assert 0 < len(mosaics_in(tmp_path / "ntu.images")) <= 3
    finished = run([sys.executable, "-m", "data_prep.ntu", *given])
    assert finished.returncode == 0, finished.stdout
    assert " of 11 mosaics present" in finished.stdout
    assert mosaics_in(tmp_path / "ntu.images") == mosaics_in(prepared.with_name("ntu.images"))


def test_shards_end_in_the_same_mosaics(source, weights, prepared, tmp_path):
    for number in (1, 0):
        ntu.main(arguments(source, weights, f"--images={tmp_path / 'images'}", f"--shard={number}/2"))
    assert mosaics_in(tmp_path / "images") == mosaics_in(prepared.with_name("ntu.images"))


def test_mosaics_by_other_boxes_are_not_mixed(source, weights, prepared, tmp_path):
    images = prepared.with_name("ntu.images")
    folders = [f"--skeletons={source / 'skeletons'}", f"--videos={source / 'videos'}", f"--out={tmp_path / 'out'}"]
    with pytest.raises(SystemExit, match=r"holds mosaics with boxes by YOLO \(yolov5n.pt, .*not by the skeleton"):
        ntu.main([*folders, f"--images={images}"])
    with pytest.raises(SystemExit, match=r"confidence 0.001\), not by YOLO .* confidence 0.5\); choose another"):
        ntu.main(
            [*arguments(source, weights, f"--out={tmp_path / 'out'}", f"--images={images}"), "--yolo_confidence=.5"]
        )
    ntu.main([*folders, f"--images={tmp_path / 'images'}"])
    with pytest.raises(SystemExit, match="holds mosaics with boxes by the skeleton, not by YOLO"):
        ntu.main(arguments(source, weights, f"--out={tmp_path / 'again'}", f"--images={tmp_path / 'images'}"))


def test_a_wrong_weights_file_leaves_nothing_behind(source, weights, prepared, tmp_path):
    wrong = tmp_path / "wrong.pt"
    wrong.write_bytes(b"no weights")
    out = f"--out={tmp_path / 'ntu'}"
    with pytest.raises(SystemExit, match=r"error: .*wrong\.pt: cannot be loaded"):
        ntu.main(arguments(source, wrong, out))
    with pytest.raises(SystemExit, match=r"error: .*nowhere\.pt: cannot be read"):
        ntu.main(arguments(source, tmp_path / "nowhere.pt", out))
    ntu.main(arguments(source, weights, out))
    assert mosaics_in(tmp_path / "ntu.images") == mosaics_in(prepared.with_name("ntu.images"))


def test_want_of_memory_names_the_option(weights, monkeypatch):
    detector = yolo.Detector(yolo.Settings(weights))

    def fail(*_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(detector, "_persons", fail)
    with pytest.raises(PreparationError, match=r"not enough memory for 2 pictures .* choose a smaller --yolo_batch"):
        detector.detect(pictures(2))
