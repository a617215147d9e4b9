"""A model that stands by itself: loaded without records, it says what evaluation says, and refuses what it cannot."""

import ast
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import mmcl_jax
from mmcl_jax import bundle, description, export, trained_model
from mmcl_jax.config import Config
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.data.records import DatasetInfo, Records, RecordsError
from mmcl_jax.evaluate import Evaluator
from mmcl_jax.predictor import PredictionError
from mmcl_jax.runtime import sharding
from mmcl_jax.runtime.errors import MMCLError
from mmcl_jax.trained_model import TrainedModel, load_model
from tests.helpers import documents, runs

CLASSES = ("wave", "kick", "sit down")


def _random(shapes):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.uniform(0.5, 1, leaf.shape).astype(np.float32), shapes)


def _describe(bodies: int = 1, sampling: str = "crop_resize", channels=("x", "y", "confidence")):
    config = runs.tiny_config(pathlib.Path("none"), data__sampling=sampling, data__window=8)
    info = DatasetInfo("own", "coco", "pixels", CLASSES, channels=channels)
    return description.Description(Config.of(config), info, bodies, centered=False)


@pytest.fixture
def small(shallow):
    """A model of three blocks and random weights, for poses of one person."""
    described = _describe()
    return TrainedModel(described, _random(described.template()))


def _clip(frames: int, *bodies: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 500, (frames, *bodies, 17, 3)).astype(np.float32)


@pytest.mark.slow
def test_prediction_equals_the_evaluation_of_every_test_clip(finished_run, tiny_records):
    model, records = load_model(finished_run), Records(tiny_records)
    expected = runs.read_scores(finished_run)
    rows = records.select("xsub", "test")
    clips = [records.skeleton(int(row)).transpose(1, 0, 2, 3) for row in rows]
    predictions = model.predict(clips, records.index["name"][rows].tolist())
    assert [prediction.name for prediction in predictions] == expected["names"].tolist()
    scores = expected["scores"].astype(np.float64)
    probabilities = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    found = np.stack([prediction.probabilities for prediction in predictions])
    np.testing.assert_allclose(found, probabilities, atol=1e-5)
    best = predictions[0].top(3)
    assert best[0][0] == predictions[0].action == model.class_names[int(scores[0].argmax())]
    assert [probability for _, probability in best] == sorted(found[0].tolist(), reverse=True)[:3]


@pytest.mark.long
@pytest.mark.parametrize(("backbone", "sampling"), [("hdgcn", "view_normalised"), ("infogcn", "crop_resize")])
def test_other_backbones_and_recipes(backbone, sampling, tiny_records, shallow):
    config = runs.tiny_config(tiny_records, model__backbone=backbone, data__sampling=sampling, data__stream="bone")
    described = description.describe(Config.of(config), Records(tiny_records))
    variables = _random(described.template())
    evaluator = Evaluator(config, sharding.data_mesh())
    expected = evaluator.evaluate(variables, "test").scores
    rows = evaluator.rows
    clips = [evaluator.task.records.skeleton(int(row)).transpose(1, 0, 2, 3) for row in rows]
    found = TrainedModel(described, variables).logits(clips)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_many_lengths_compile_few_programs(small, compilations):
    said = []
    small.announce = said.append
    small.predict(_clip(10))
    before, programs = compilations(), small.compilations
    for frames in range(11, 131):
        small.predict(_clip(frames))
    assert small.compilations - programs == 2  # transforms to 128 and to 256 frames
    assert compilations() - before == 2
    names = [f"{number}" for number in range(9)]
    together = small.predict([_clip(20 + number, seed=number) for number in range(9)], names)
    one = small.predict(_clip(24, seed=4))
    assert [line.partition("; about half a minute")[0] for line in said] == [
        f"{small.path}: compiling the model for a clip",
        f"{small.path}: compiling the model for 32 clips at once",
    ]
    np.testing.assert_allclose(together[4].logits, one.logits, rtol=1e-4)
    assert [prediction.name for prediction in together] == names


def test_threads_share_the_programs(small):
    said = []
    small.announce = said.append
    clips = [_clip(20, seed=number) for number in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(small.predict, clips))
    assert small.compilations == 3  # the transform, the prepared weights, the model
    assert len(said) == 1
    for clip, prediction in zip(clips, found, strict=True):
        np.testing.assert_array_equal(prediction.logits, small.predict(clip).logits)


def test_absent_bodies_change_nothing_and_a_further_body_is_said(small, caplog):
    clip = _clip(12, 2)
    alone = clip.copy()
    alone[:, 1] = 0
    one = small.predict(alone)
    np.testing.assert_array_equal(one.logits, small.predict(clip[:, 0]).logits)
    caplog.clear()
    two = small.predict(clip)
    assert "was trained on clips of at most 1 body; in clips of 2" in caplog.text
    # One set of statistics for both: the mean of what the model says of each.
    other = small.predict(clip[:, 1])
    np.testing.assert_allclose(two.logits, (one.logits + other.logits) / 2, rtol=1e-4, atol=1e-4)


_BAD_FRAME = _clip(50)
_BAD_FRAME[0, 0, 0] = np.nan  # a frame that the centered crop leaves out


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (_BAD_FRAME, "NaN or infinite values in 1 of 50 frames"),
        (_clip(5)[:, :16], "16 joints with 3 channels, expected 17 joints with 3 channels (x, y, confidence): nose"),
        (_clip(5)[..., :2], "17 joints with 2 channels, expected 17 joints with 3"),
        (_clip(5)[:0], "a skeleton of zero frames"),
        (_clip(5, 1)[:, :0], "expected (frames, bodies, joints, channels)"),
        (np.zeros((5, 17, 3)), "every joint of every frame is zero"),
        (_clip(5) * 1e6, "more than 100000; units: pixels"),
        (_clip(5)[0], "shape (17, 3), expected [T, 17, 3] or [T, M, 17, 3]"),
        (_clip(5).astype(str), "expected an array of numbers"),
    ],
)
def test_clips_that_are_refused(clip, message):
    described = _describe()
    model = TrainedModel.__new__(TrainedModel)
    model.description, model._storage = described, np.dtype("float32")
    with pytest.raises(PredictionError, match=re.escape(message)) as caught:
        model.predict([_clip(4), clip], ["good", "bad"])
    assert str(caught.value).startswith("bad: ")


def test_a_bundle_says_the_same(small, tmp_path, monkeypatch):
    variables = {kind: {"backbone": tree} for kind, tree in small.variables.items()}
    provenance = bundle.Provenance(7, ("top-1 50.00 % (a test)",), "CC0")
    bundle.write_bundle(tmp_path / "whole", small.description, variables, provenance)
    loaded = load_model(tmp_path / "whole")
    clip = _clip(20)
    np.testing.assert_array_equal(loaded.predict(clip).logits, small.predict(clip).logits)
    assert (loaded.step, loaded.class_names, loaded.channels) == (7, CLASSES, ("x", "y", "confidence"))
    assert loaded.layout == LAYOUTS["coco"]
    card = (tmp_path / "whole" / "README.md").read_text()
    assert "- top-1 50.00 % (a test)" in card and "0. wave\n1. kick\n" in card and 'license_name: "CC0"' in card

    export.main([str(tmp_path / "whole"), str(tmp_path / "half"), "--dtype=float16"])
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.7 * sizes[0]
    np.testing.assert_allclose(
        load_model(tmp_path / "half").predict(clip).probabilities, loaded.predict(clip).probabilities, atol=0.02
    )
    assert "top-1 50.00 %" in (tmp_path / "half" / "README.md").read_text()
    with pytest.raises(bundle.BundleError, match="not an empty folder"):
        bundle.write_bundle(tmp_path / "half", small.description, variables, provenance)


@pytest.mark.parametrize("row", ["1,7,0.5", "1,7,0.5,x", "1,7,0.5,0.25"])
def test_the_accuracy_on_the_card_is_that_of_the_log(tmp_path, capsys, row):
    (tmp_path / "metrics.csv").write_text(f"epoch,step,test_top1,test_mean_class\n{row}\n2,14,1,1\n")
    stated = export._measured(tmp_path, _describe(), 7)
    if row.endswith("0.25"):
        assert stated[0].startswith("top-1 50.00 %, mean class 25.00 %")
    else:
        assert not stated and "metrics.csv: damaged" in capsys.readouterr().out


def test_a_changed_bundle_is_refused(small, tmp_path):
    variables = {kind: {"backbone": tree} for kind, tree in small.variables.items()}
    folder = tmp_path / "bundle"
    bundle.write_bundle(folder, small.description, variables, bundle.Provenance())
    rng = np.random.default_rng(0)
    for name in ("model.safetensors", "config.json"):
        whole = (folder / name).read_bytes()
        for place in rng.integers(0, 8 * len(whole), 40).tolist():
            changed = bytearray(whole)
            changed[place // 8] ^= 1 << place % 8
            (folder / name).write_bytes(changed)
            with pytest.raises(MMCLError, match=re.escape(str(folder))):
                load_model(folder)
        (folder / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(MMCLError, match=re.escape(str(folder))):
            load_model(folder)
        (folder / name).write_bytes(whole)
    load_model(folder)


@pytest.mark.parametrize(
    ("path", "message"),
    [("nowhere", "no such folder"), ("no/such/model", "no such folder"), (pathlib.Path("user/name"), "no such folder")],
)
def test_a_model_that_does_not_exist(path, message):
    with pytest.raises(bundle.BundleError, match=message):
        load_model(path)


def test_a_name_of_the_hub_is_looked_up_in_its_cache(small, tmp_path, monkeypatch):
    """Without a network the hub's cache is asked, and an absent model is said to be absent."""
    constants = pytest.importorskip("huggingface_hub.constants")
    variables = {kind: {"backbone": tree} for kind, tree in small.variables.items()}
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--waves"
    bundle.write_bundle(repository / "snapshots" / revision, small.description, variables, bundle.Provenance())
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert load_model("someone/waves").class_names == CLASSES
    with pytest.raises(bundle.BundleError, match="someone/else: no such folder, and no bundle that"):
        load_model("someone/else")


def test_a_workdir_that_says_too_little(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(MMCLError, match=r"neither model\.json nor config\.json"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(Config.of(runs.tiny_config(tmp_path / "gone")).to_json()))
    with pytest.raises(RecordsError, match=r"older than model\.json"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({**_describe().to_json(), "bodies": "two"}))
    with pytest.raises(description.DescriptionError, match="bodies 'two'"):
        load_model(tmp_path)


@pytest.mark.slow
def test_the_lines_of_the_readme(finished_run, tiny_records, tmp_path, compiled):
    """And those of the page about using a model: they run outside the repository, on clips in .npy files."""
    records, code = Records(tiny_records), documents.code_blocks()
    (tmp_path / "clips").mkdir()
    np.save(tmp_path / "clip.npy", records.skeleton(0).transpose(1, 0, 2, 3))
    np.save(tmp_path / "clips" / "first.npy", records.skeleton(0).transpose(1, 0, 2, 3))
    (tmp_path / "workdir").mkdir()
    (tmp_path / "workdir" / "nw_ucla_joint").symlink_to(finished_run)
    program = code["classify.py"] + "\nprint(prediction.top(3))\n" + code["classify_folder.py"]
    hasty = {"XLA_FLAGS": runs.UNOPTIMISED, "JAX_COMPILATION_CACHE_DIR": str(compiled)}
    arguments = [sys.executable, "-c", program]
    done = subprocess.run(arguments, cwd=tmp_path, env={**os.environ, **hasty}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    top, *_, folder = done.stdout.splitlines()
    action, probability = ast.literal_eval(top)[0]
    assert action in records.info.class_names
    name, rest = folder.split(f" {action} ", maxsplit=1)
    assert name == "first"
    assert float(rest.split()[0]) == pytest.approx(probability, abs=1e-4)
    assert mmcl_jax.load_model is trained_model.load_model
