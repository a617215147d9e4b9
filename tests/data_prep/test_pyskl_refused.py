"""What pyskl's importer sets aside, and files that it refuses: named with the reason, and nothing in them run."""

import json
import pathlib
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

from data_prep import pyskl
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import PreparationError
from tests.helpers import ntu_formats
from tests.helpers.ntu_formats import set_aside
from tests.helpers.pyskl_files import dataset, pose, prepare, save
from tests.runtime.test_plain_pickle import CRAFTED, HARMFUL, program

ROOT = pathlib.Path(__file__).parents[2]
GOOD = pose("good")
SPOILT = {
    "a list": ([1, 2], "a list, expected a dict"),
    "nothing": (None, "a NoneType, expected a dict"),
    "an array": (np.zeros(3), "a ndarray, expected a dict"),
    "no name": (pose(...), "frame_dir None, expected the clip's name"),
    "an empty name": (pose(""), "frame_dir '', expected"),
    "a number as name": (pose(7), "frame_dir 7, expected"),
    "an array as name": (pose(np.array(["a", "b"])), "frame_dir a ndarray"),
    "no label": (pose("x", label=...), "label None, expected a whole number"),
    "label of text": (pose("x", label="3"), "label '3', expected a whole number"),
    "label of a half": (pose("x", label=1.5), "label 1.5"),
    "label of truth": (pose("x", label=True), "label True"),
    "negative label": (pose("x", label=-1), "label -1, expected 0 to 9999"),
    "huge label": (pose("x", label=10**12), "label 1000000000000, expected"),
    "no keypoint": (pose("x", keypoint=...), "no keypoint in it"),
    "keypoint of lists": (pose("x", keypoint=[[1, 2]]), "keypoint is a list, expected an array"),
    "keypoint of text": (pose("x", keypoint=np.full((1, 5, 17, 2), "a")), "keypoint is a ndarray"),
    "keypoint of truths": (pose("x", keypoint=np.ones((1, 5, 17, 2), bool)), "keypoint is a ndarray"),
    "three axes": (pose("x", keypoint=np.ones((5, 17, 2))), r"keypoint of shape \(5, 17, 2\), expected \(bodies"),
    "no frames": (pose("x", frames=0), r"keypoint of shape \(1, 0, 17, 2\)"),
    "no bodies": (pose("x", bodies=0), r"keypoint of shape \(0, 5, 17, 2\)"),
    "other joints": (pose("x", keypoint=np.ones((1, 5, 18, 2))), r"keypoint_score of shape \(1, 5, 17\), but"),
    "other joints, scores too": (
        pose("x", keypoint=np.ones((1, 5, 18, 2)), keypoint_score=np.ones((1, 5, 18))),
        r"keypoint of \(18, 2\) joints and channels with scores, most clips here have \(17, 2\) with scores",
    ),
    "four channels": (pose("x", keypoint=np.ones((1, 5, 17, 4))), r"keypoint of \(17, 4\) joints and channels, most"),
    "three-dimensional": (
        pose("x", keypoint=np.ones((1, 5, 25, 3)), keypoint_score=...),
        r"keypoint of \(25, 3\) joints and channels, most",
    ),
    "scores of other frames": (pose("x", keypoint_score=np.ones((1, 4, 17))), r"keypoint_score of shape \(1, 4, 17\)"),
    "scores of other bodies": (pose("x", keypoint_score=np.ones((2, 5, 17))), r"keypoint_score of shape \(2, 5, 17\)"),
    "scores of lists": (pose("x", keypoint_score=[1]), "keypoint_score is a list"),
    "no scores": (pose("x", keypoint_score=...), r"keypoint of \(17, 2\) joints and channels, most"),
    "other length": (pose("x", total_frames=9), "total_frames 9, but keypoint has 5"),
    "length of text": (pose("x", total_frames="5"), "total_frames '5', but"),
    "length of an array": (pose("x", total_frames=np.arange(2)), "total_frames a ndarray"),
    "NaN": (pose("x", keypoint=np.full((1, 5, 17, 2), np.nan)), "NaN or infinite values in 5 of 5 frames"),
    "infinite score": (pose("x", keypoint_score=np.full((1, 5, 17), np.inf)), "NaN or infinite values"),
    "beyond float32": (pose("x", keypoint=np.full((1, 5, 17, 2), 1e300)), "NaN or infinite values"),
    "all zero": (pose("x", keypoint=np.zeros((1, 5, 17, 2))), "every joint of every frame is zero"),
    "nothing found": (pose("x", keypoint_score=np.zeros((1, 5, 17))), "every joint of every frame is zero"),
    "no picture": (pose("x", img_shape=..., original_shape=...), "no img_shape in it"),
    "picture of nothing": (pose("x", img_shape=(0, 1920)), r"img_shape \(0, 1920\), expected \(height, width\)"),
    "picture of three": (pose("x", img_shape=(1080, 1920, 3)), "img_shape"),
    "picture of text": (pose("x", img_shape="1080x1920"), "img_shape '1080x1920'"),
    "picture of halves": (pose("x", img_shape=(1080.5, 1920)), "img_shape"),
    "a name again": (pose("good1"), "duplicate: a clip of this name came before"),
}


def test_spoiled_annotations_are_set_aside_and_no_good_one_is_lost(tmp_path):
    annotations = [pose("good0")]
    for number, (spoiled, _) in enumerate(SPOILT.values()):
        annotations += [spoiled, pose(f"good{number + 1}", number % 5)]
    annotations[2]["label"] = np.int64(4)
    annotations[4]["img_shape"] = np.array([1080, 1920])
    annotations[6]["total_frames"] = ...
    del annotations[6]["total_frames"]
    lists = {"train": ["good0", "good1", "nowhere"], "val": ["good2"], "odd": 3, "odder": [1, 2], 5: ["good3"]}
    good = [f"good{number}" for number in range(len(SPOILT) + 1)]
    opened = prepare(tmp_path, {"split": lists, "annotations": annotations})
    assert opened.index["name"].tolist() == good
    stored = json.loads((tmp_path / "out" / "set_aside.json").read_text())
    assert len(stored) == len(SPOILT) + 4
    assert {item["name"] for item in stored[:3]} == {"split odd", "split odder", "split 5"}
    for number, (item, (spoiled, message)) in enumerate(zip(stored[3:-1], SPOILT.values(), strict=True)):
        assert re.search(message, item["reason"]), (message, item)
        named = isinstance(spoiled, dict) and isinstance(spoiled.get("frame_dir"), str) and spoiled["frame_dir"]
        assert item["name"] == (named or f"annotation {2 * number + 1}")
    assert stored[-1] == {"name": "nowhere", "reason": "in split train, but there is no annotation of it"}
    assert opened.select("split", "train").tolist() == [0, 1]
    assert len(opened.info.class_names) == 5


def test_names_of_ntu_that_contradict_their_labels(reference, tmp_path):
    whole = ntu_formats.annotations(reference)
    first, second, *rest = whole["annotations"]
    first["label"] += 1
    second["frame_dir"] = "walking"
    opened = prepare(tmp_path, whole)
    assert len(opened) == len(rest)
    reasons = set_aside(tmp_path / "out")
    assert "most clips are named as NTU RGB+D's" in reasons["walking"]
    assert f"label {first['label']}, where most" in reasons[first["frame_dir"]]


def test_sizes_of_pictures(tmp_path):
    """Whole numbers of any type; none of thousands of digits."""
    sizes = [(1080.0, 1920.0), [1080, 1920], np.array([1080.0, 1920.0]), (10**400, 1920), (10**5000, 1), (np.inf, 9)]
    opened = prepare(tmp_path, dataset([pose(f"v{number}", img_shape=size) for number, size in enumerate(sizes)]))
    assert opened.index["name"].tolist() == ["v0", "v1", "v2"]
    reasons = set_aside(tmp_path / "out")
    assert set(reasons) == {"v3", "v4", "v5"}
    assert all("img_shape" in reason and len(reason) < 200 for reason in reasons.values())


def test_numbers_of_thousands_of_digits_are_set_aside(tmp_path):
    huge = 10**5000
    poses = [pose("good"), pose("label", label=huge), pose("frames", total_frames=huge), pose(huge)]
    opened = prepare(tmp_path, {"annotations": poses, "split": {"train": ["good"], huge: ["good"]}})
    assert len(opened) == 1 and len(set_aside(tmp_path / "out")) == 4
    with pytest.raises(PreparationError, match="a dict of a int of thousands of digits, expected a dict"):
        prepare(tmp_path, {huge: 1}, overwrite=True)


WRONG_FILES = {
    "another dict": ({"a": 1, "b": 2}, "a dict of a, b, expected a dict of annotations"),
    "an empty dict": ({}, "expected a dict of annotations"),
    "annotations that are none": ({"annotations": 3}, "a dict of annotations, expected a dict of annotations"),
    "an array": (np.zeros(3), "a ndarray, expected a dict"),
    "a number": (3, "3, expected a dict"),
    "text": ("annotations", "'annotations', expected a dict"),
    "labels as CTR-GCN has them": ((["a", "b"], [1, 2]), "expected a dict"),
    "scores": ({"S001C001P001R001A001": np.zeros(60)}, "expected a dict of annotations"),
    "no annotations": ({"split": {}, "annotations": []}, r"no usable annotation among 0"),
    "an empty list": ([], "no usable annotation among 0"),
    "a list of numbers": ([1, 2, 3], r"no usable annotation among 3 \(3 times a int, expected a dict"),
    "only unknown joints": (
        dataset([pose("a", keypoint=np.ones((1, 5, 21, 2)), keypoint_score=...)]),
        r"no usable annotation among 1 \(\(21, 2\) joints and channels\); expected two coordinates of 13, 17, 18",
    ),
    "Kinetics": (dataset([pose("a", keypoint=..., keypoint_score=..., raw_file="a.pkl")]), "Kinetics keeps them"),
    "only NaN": (dataset([pose("a", keypoint=np.full((1, 5, 17, 2), np.nan))]), "no clip is left to write"),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_files_of_something_else_are_refused(tmp_path, kind):
    value, message = WRONG_FILES[kind]
    with pytest.raises(PreparationError, match=message):
        prepare(tmp_path, value)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.pkl"]


def test_no_code_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    harmful = {kind: pickle.dumps(dataset([GOOD, {**GOOD, "x": value}])) for kind, (value, _) in HARMFUL.items()}
    crafted = {kind: program(contents) for kind, (contents, _) in CRAFTED.items()}
    for contents in [
        *harmful.values(),
        *crafted.values(),
        b"",
        b"PK",
        save(tmp_path / "a.pkl", GOOD).read_bytes()[:-9],
    ]:
        (tmp_path / "a.pkl").write_bytes(contents)
        with pytest.raises(PreparationError, match=r"a\.pkl: "):
            pyskl.prepare(["a.pkl"], "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]


def test_several_files(tmp_path):
    whole, part = save(tmp_path / "a.pkl", dataset([GOOD])), save(tmp_path / "b_train.pkl", [GOOD])
    with pytest.raises(PreparationError, match=r"a\.pkl: has all splits; give it as the only --source"):
        pyskl.prepare([part, whole], tmp_path / "out")
    with pytest.raises(PreparationError, match=r"nowhere: no such file"):
        pyskl.prepare([part, tmp_path / "nowhere"], tmp_path / "out")


@pytest.mark.parametrize(
    ("contents", "message"), [(b"", "empty"), (b"\n \n", "empty"), (b"\xff", "not a readable list")]
)
def test_class_names_that_are_none(tmp_path, contents, message):
    (tmp_path / "classes.txt").write_bytes(contents)
    with pytest.raises(PreparationError, match=message):
        prepare(tmp_path, dataset([GOOD]), class_names=tmp_path / "classes.txt")


def test_labels_beyond_the_class_names(tmp_path):
    (tmp_path / "classes.txt").write_text("wave")
    prepare(tmp_path, dataset([pose("a"), pose("b", 1)]), class_names=tmp_path / "classes.txt")
    assert set_aside(tmp_path / "out") == {"b": "label 1, expected 0 to 0"}


def test_existing_records_stay_unless_told(tmp_path):
    prepare(tmp_path, dataset([pose("a"), pose("b", 1)]))
    command = [sys.executable, "-m", "data_prep.pyskl", "--source", tmp_path / "mine.pkl", "--out", tmp_path / "out"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 1 and "exists already" in refused.stderr and "Traceback" not in refused.stderr
    with pytest.raises(PreparationError, match="no usable annotation"):
        prepare(tmp_path, [], overwrite=True)
    assert len(records.Records(tmp_path / "out")) == 2
    assert len(prepare(tmp_path, dataset([pose("a")]), overwrite=True)) == 1


def test_an_interruption_leaves_nothing_that_loads(tmp_path, monkeypatch):
    source = save(tmp_path / "mine.pkl", dataset([pose(f"v{number}") for number in range(9)]))
    calls = iter(range(100))
    sound = pyskl.annotations.check

    def stop(stored):
        if next(calls) == 14:  # all nine are looked at first
            raise KeyboardInterrupt
        return sound(stored)

    monkeypatch.setattr(pyskl.annotations, "check", stop)
    with pytest.raises(SystemExit, match="interrupted; nothing was changed"):
        pyskl.main(["--source", str(source), "--out", str(tmp_path / "out")])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.pkl"]
