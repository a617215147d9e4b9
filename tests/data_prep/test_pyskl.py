"""pyskl's annotations become the clips they were made of, with their splits; damaged ones are named."""

import json
import pathlib
import pickle
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import ntu60
from data_prep import pyskl
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.task import build_training_task
from tests.helpers import ntu_formats
from tests.helpers.ntu_formats import set_aside
from tests.runtime.test_plain_pickle import CRAFTED, HARMFUL, program

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> records.Records:
    return ntu_formats.prepare(tmp_path_factory.mktemp("reference"))


def save(path: pathlib.Path, value, protocol: int = 4) -> pathlib.Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def prepare(folder: pathlib.Path, value, **options) -> records.Records:
    """Records of one file that holds `value`."""
    pyskl.prepare([save(folder / "mine.pkl", value)], folder / "out", **options)
    return records.Records(folder / "out")


def assert_same_clips(opened: records.Records, reference: records.Records, tolerance: float = 0.0) -> None:
    """Every clip of `reference`, with its fields, and every protocol of NTU RGB+D."""
    rows = {name: row for row, name in enumerate(opened.index["name"])}
    assert sorted(rows) == sorted(reference.index["name"])
    for original, name in enumerate(reference.index["name"]):
        for field in set(records.INDEX_FIELDS) - {"fold"}:
            assert opened.index[field][rows[name]] == reference.index[field][original], (name, field)
        np.testing.assert_allclose(opened.skeleton(rows[name]), reference.skeleton(original), rtol=0, atol=tolerance)
    for protocol in records.PROTOCOLS["ntu"]:
        for part in ("train", "test"):
            expected = set(reference.index["name"][reference.select(protocol, part)])
            assert set(opened.index["name"][opened.select(protocol, part)]) == expected


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_clips_are_those_of_the_raw_files(reference, tmp_path, capsys, protocol):
    source = save(tmp_path / "ntu60_3danno.pkl", ntu_formats.annotations(reference), protocol)
    pyskl.main(["--source", str(source), "--out", str(tmp_path / "out")])
    opened = records.Records(tmp_path / "out")
    assert_same_clips(opened, reference)
    for own, standard in (("xsub", "ntu60_xsub"), ("xview", "ntu60_xview")):
        assert opened.class_names(own) == opened.class_names(standard) == reference.class_names(standard)
        for part in ("train", "test"):
            assert opened.select(own, part).tolist() == opened.select(standard, part).tolist()
    assert opened.info.channels == ("x", "y", "z") and opened.info.layout == "ntu"
    assert set_aside(tmp_path / "out") == {}
    printed = capsys.readouterr().out
    assert "xview: " in printed and "NOTE: the complete dataset has 40,091" in printed and "ntu120" not in printed


def test_half_precision_as_published(reference, tmp_path):
    """float16 of meters, some four away: 2 mm."""
    assert_same_clips(prepare(tmp_path, ntu_formats.annotations(reference, np.float16)), reference, tolerance=5e-3)


def test_the_form_of_earlier_versions(reference, tmp_path):
    """A list of annotations per split; the second division names the same clips again."""
    whole = ntu_formats.annotations(reference)
    sources = []
    for split, names in whole["split"].items():
        clips = [clip for clip in whole["annotations"] if clip["frame_dir"] in names]
        sources.append(save(tmp_path / f"ntu60_{split}.pkl", clips))
    pyskl.main(["--source", *map(str, sources), "--out", str(tmp_path / "out")])
    opened = records.Records(tmp_path / "out")
    assert_same_clips(opened, reference)
    assert set_aside(tmp_path / "out") == {}
    assert set(opened.info.protocols) == {"ntu60_xsub", "ntu60_xview"}
    assert {protocol.field for protocol in opened.info.protocols.values()} == {"fold"}


@pytest.mark.slow
def test_training_sees_the_clips_of_the_raw_files(reference, tmp_path, monkeypatch):
    opened = prepare(tmp_path, ntu_formats.annotations(reference))
    imported, raw = (ntu_formats.first_batch(records, "ntu60_xsub") for records in (opened, reference))
    for key in imported:
        np.testing.assert_array_equal(imported[key], raw[key])
    ntu_formats.train_two_steps(opened, tmp_path / "run", monkeypatch)


def pose(name: str, label: int = 0, frames: int = 5, bodies: int = 1, **changes) -> dict:
    """A 2-D annotation as of HRNet."""
    rng = np.random.default_rng(abs(hash((label, frames, bodies))))
    made = {
        "frame_dir": name,
        "label": label,
        "img_shape": (1080, 1920),
        "original_shape": (1080, 1920),
        "total_frames": frames,
        "keypoint": rng.uniform((0, 0), (1920, 1080), size=(bodies, frames, 17, 2)).astype(np.float16),
        "keypoint_score": rng.uniform(0.1, 1, size=(bodies, frames, 17)).astype(np.float16),
        **changes,
    }
    return {key: value for key, value in made.items() if value is not ...}


def dataset(annotations: list, **split) -> dict:
    names = [clip["frame_dir"] for clip in annotations]
    return {"split": split or {"train": names[0::2], "val": names[1::2]}, "annotations": annotations}


def test_pixels_are_halves_of_the_picture_around_its_middle(tmp_path):
    clip = pose("a", frames=3, img_shape=(100, 200))
    clip["keypoint"][0, 0, :4] = [[0, 0], [200, 100], [100, 50], [150, 75]]
    clip["keypoint_score"][0, 1, 2], clip["keypoint_score"][0, 1, 3] = 0.009, 0
    clip["keypoint"][0, 1, 3] = np.nan
    opened = prepare(tmp_path, dataset([clip, pose("b", 1)]))
    assert opened.info.channels == ("x", "y", "confidence") and opened.info.layout == "coco"
    assert "(x - w/2) / (w/2)" in opened.info.preprocessing and "halves" in opened.info.units
    (body,) = opened.skeleton(0)
    np.testing.assert_allclose(body[0, :4, :2], [[-1, -1], [1, 1], [0, 0], [0.5, 0.5]])
    np.testing.assert_array_equal(body[..., 2], clip["keypoint_score"][0].astype(np.float32))
    np.testing.assert_array_equal(body[1, 2:4], np.array([[0, 0, np.float16(0.009)], [0, 0, 0]], np.float32))
    np.testing.assert_allclose(
        body[2, :, 0], clip["keypoint"][0, 2, :, 0].astype(np.float32) / 100 - 1, rtol=1e-6, atol=1e-6
    )


def test_forms_of_scores(tmp_path):
    """As a third coordinate, or none at all."""
    clip = pose("a")
    third = np.concatenate([clip["keypoint"], clip["keypoint_score"][..., np.newaxis]], axis=-1)
    for number, (changes, channels) in enumerate(
        (({"keypoint": third, "keypoint_score": ...}, 3), ({"keypoint_score": ...}, 2), ({}, 3))
    ):
        (tmp_path / str(number)).mkdir()
        opened = prepare(tmp_path / str(number), dataset([pose("a", **changes), pose("b", 1, **changes)]))
        assert opened.num_channels == channels
        whole = opened.skeleton(0)
        if number == 0:
            expected = whole
        np.testing.assert_array_equal(whole, expected[..., :channels])


def test_two_dimensional_ntu_has_its_protocols_and_its_config(tmp_path):
    names = ["S001C001P001R001A001", "S001C002P003R001A001", "S001C003P002R002A060"]
    poses = [pose(name, int(name[-3:]) - 1, img_shape=..., original_shape=...) for name in names]
    opened = prepare(tmp_path, dataset(poses, xsub_train=names[0::2], xsub_val=names[1:2]))
    assert opened.select("ntu60_xsub", "train").tolist() == opened.select("xsub", "train").tolist() == [0, 2]
    assert opened.select("ntu60_xview", "train").tolist() == [1, 2]
    assert opened.index["subject"].tolist() == [1, 3, 2] and opened.index["replication"].tolist() == [1, 1, 2]
    assert np.abs(opened.skeleton(0)[..., :2]).max() <= 1.01  # 1080 x 1920, as pyskl takes it to be
    config = ntu60.get_config("xsub,bone,skeleton_only").unlock()
    config.update_from_flattened_dict(
        {"data.records": str(tmp_path / "out"), "batch_size": 2, "data.window": 8, "model.base_channels": 4}
    )
    config.model.batch_norm_group_size = config.loss.contrastive_group_size = None
    task = build_training_task(config)
    batch = ntu_formats.first_batch(opened, "xsub")
    arguments = (batch["skeleton"][0], batch["frames"][0], batch["bodies"][0], jax.random.key(0))
    assert np.isfinite(jax.jit(task.skeleton.transform)(*arguments)).all()


def test_other_datasets_have_classes_and_protocols_of_their_own(tmp_path):
    poses = [pose(f"v_{number}", number % 3, frames=3 + number) for number in range(6)]
    names = [clip["frame_dir"] for clip in poses]
    lists = {"train1": names[:4], "test1": names[4:], "train2": tuple(names[2:]), "test2": np.array(names[:2])}
    (tmp_path / "classes.txt").write_text("wave\n\nsit down\nkick \n")
    opened = prepare(tmp_path, dataset(poses, **lists), class_names=tmp_path / "classes.txt")
    assert opened.info.class_names == ("wave", "sit down", "kick")
    assert opened.info.dataset == "pyskl_mine"
    assert opened.index["name"].tolist() == names
    assert {name: opened.select(name, "test").tolist() for name in opened.info.protocols} == {
        "split1": [4, 5],
        "split2": [0, 1],
    }
    assert not opened.index["subject"].any()
    again = prepare(tmp_path, dataset(poses, **lists), overwrite=True)
    assert again.info.class_names == ("class 0", "class 1", "class 2")


def test_bodies(tmp_path, capsys):
    """Nobody, padding, three persons, and one who comes later."""
    poses = [pose(f"v{number}", number, bodies=3) for number in range(5)]
    for place, bodies in enumerate((slice(None), slice(1, None), slice(0, 1), slice(0, 0), slice(2, None))):
        poses[place]["keypoint"][0, bodies] = 0
        poses[place]["keypoint"][bodies] = 0
    opened = prepare(tmp_path, dataset(poses))
    assert opened.index["num_bodies"].tolist() == [1, 2, 2, 2]
    assert set_aside(tmp_path / "out") == {"v0": "every joint of every frame is zero"}
    printed = capsys.readouterr().out
    assert "4 bodies of zeros left out" in printed and "1 clips have more than 2 bodies" in printed


def test_a_second_actor_of_zeros_is_padding_where_everybody_has_one(reference, tmp_path):
    whole = ntu_formats.annotations(reference)
    for clip in whole["annotations"]:
        if len(clip["keypoint"]) == 1:
            clip["keypoint"] = np.concatenate([clip["keypoint"], np.zeros_like(clip["keypoint"])])
    opened = prepare(tmp_path, whole)
    for row, original in enumerate(reference.index["name"]):
        assert opened.index["name"][row] == original
        assert opened.index["num_bodies"][row] == reference.skeleton(row).any(axis=(1, 2, 3)).sum()


def test_frames_of_nobody_are_left_out_in_3d(reference, tmp_path, capsys):
    whole = ntu_formats.annotations(reference)
    for clip in whole["annotations"]:
        clip["keypoint"] = np.insert(clip["keypoint"], [0, 3], 0, axis=1)
        clip["total_frames"] += 2
    assert_same_clips(prepare(tmp_path, whole), reference)
    assert f"{2 * len(reference)} frames without a body left out" in capsys.readouterr().out


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


def test_names_with_folders(reference, tmp_path):
    whole = ntu_formats.annotations(reference)
    for clip in whole["annotations"]:
        clip["filename"] = f"videos/{clip.pop('frame_dir')}"
    whole["split"] = {key: [f"videos/{name}" for name in names] for key, names in whole["split"].items()}
    assert_same_clips(prepare(tmp_path, whole), reference)


def test_a_clip_on_both_sides_only_tests(tmp_path, capsys):
    opened = prepare(tmp_path, dataset([pose("a"), pose("b"), pose("c")], train=["a", "b"], val=["b", "c"]))
    assert opened.select("split", "train").tolist() == [0] and opened.select("split", "test").tolist() == [1, 2]
    assert "NOTE: 1 clips are in both train and val; they are used for testing only" in capsys.readouterr().out


@pytest.mark.parametrize("value", [{"annotations": [GOOD]}, {"annotations": [GOOD], "split": {}}])
def test_no_split_is_said(tmp_path, capsys, value):
    prepare(tmp_path, value)
    assert "NOTE: the source has no split" in capsys.readouterr().out


def test_a_split_that_is_none_is_set_aside(tmp_path):
    prepare(tmp_path, {"annotations": [GOOD], "split": ["good"]})
    assert set_aside(tmp_path / "out") == {"split": "a list, expected a dict of lists of names"}


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
    "unknown joints alone": (
        dataset([pose("a", keypoint=np.ones((1, 5, 21, 2)), keypoint_score=...)]),
        r"no usable annotation among 1 \(\(21, 2\) joints and channels\); expected two coordinates of 13, 17, 18",
    ),
    "Kinetics": (dataset([pose("a", keypoint=..., keypoint_score=..., raw_file="a.pkl")]), "Kinetics keeps them"),
    "NaN alone": (dataset([pose("a", keypoint=np.full((1, 5, 17, 2), np.nan))]), "no clip is left to write"),
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


def h36m(name: str, label: int = 0, **changes) -> dict:
    """A 3-D annotation as of Human3.6M: 17 joints in meters around the pelvis."""
    joints = np.random.default_rng(label).normal(0, 0.4, (1, 5, 17, 3)).astype(np.float32)
    return pose(name, label, keypoint=joints, keypoint_score=..., **changes)


def test_three_coordinates_are_not_two_and_a_confidence(tmp_path):
    whole = dataset([h36m("a"), h36m("b", 1)])
    with pytest.raises(PreparationError, match=r"2 of 2 clips .*third number is -.*no confidence; .*--layout h36m"):
        prepare(tmp_path, whole)
    opened = prepare(tmp_path, whole, layout="h36m")
    assert opened.info.channels == ("x", "y", "z") and opened.info.units == "metres"
    assert opened.info.skeleton_layout.joints[:2] == ("pelvis", "right hip")
    np.testing.assert_array_equal(opened.skeleton(0), whole["annotations"][0]["keypoint"])


def test_a_single_clip_of_three_coordinates_is_set_aside(tmp_path):
    third = np.random.default_rng(0).uniform(0, 1, (1, 5, 17, 3)) * (1000, 1000, 1)
    poses = [pose(f"v{number}", keypoint=third, keypoint_score=...) for number in range(3)]
    assert len(prepare(tmp_path, dataset([*poses, h36m("odd")]))) == 3
    assert "no confidence" in set_aside(tmp_path / "out")["odd"]


def test_a_layout_that_no_annotation_has(tmp_path):
    with pytest.raises(PreparationError, match=r"no usable annotation .*--layout h36m17\. .*docs/own-layout\.md"):
        prepare(tmp_path, dataset([pose("a")]), layout="h36m")


def test_shares_of_the_picture_are_not_pixels(tmp_path):
    in_pixels = [pose(f"v{number}", number) for number in range(4)]
    in_shares = [{**clip, "keypoint": clip["keypoint"].astype(np.float32) / (1920, 1080)} for clip in in_pixels]
    with pytest.raises(PreparationError, match=r"no coordinate exceeds .*1080 x 1920 pixels; .*--coordinates shares"):
        prepare(tmp_path, dataset(in_shares))
    opened = prepare(tmp_path, dataset(in_shares), coordinates="shares")
    (tmp_path / "pixels").mkdir()
    reference = prepare(tmp_path / "pixels", dataset(in_pixels))
    for row in range(4):
        np.testing.assert_allclose(opened.skeleton(row), reference.skeleton(row), atol=1e-5)
    with pytest.raises(PreparationError, match="no share of the picture; leave --coordinates shares out"):
        prepare(tmp_path, dataset(in_pixels), coordinates="shares", overwrite=True)
    mixed = prepare(tmp_path, dataset([*in_pixels[:3], in_shares[3]]), overwrite=True)
    assert len(mixed) == 3 and "no coordinate exceeds" in set_aside(tmp_path / "out")["v3"]


@pytest.mark.parametrize("scores", [True, False])
def test_who_is_seen_longest_is_used(tmp_path, capsys, scores):
    clip = pose("a", bodies=4, **({} if scores else {"keypoint_score": ...}))
    for passer_by in (0, 1, 3):
        clip["keypoint"][passer_by, 1 + passer_by :] = 0
        if scores:
            clip["keypoint_score"][passer_by, 1 + passer_by :] = 0
    opened = prepare(tmp_path, dataset([clip, pose("b", 1, **({} if scores else {"keypoint_score": ...}))]))
    (tmp_path / "alone").mkdir()
    clip["keypoint"] = clip["keypoint"][[2, 3]]
    if scores:
        clip["keypoint_score"] = clip["keypoint_score"][[2, 3]]
    expected = prepare(tmp_path / "alone", dataset([clip, pose("b", 1, **({} if scores else {"keypoint_score": ...}))]))
    np.testing.assert_array_equal(opened.skeleton(0), expected.skeleton(0))
    assert "1 clips have more than 2 bodies; the two that are seen longest are used" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("labels", "note"),
    [((1, 2), "1 of 3 classes have no clip (0)"), ((3, 45), "44 of 46 classes have no clip (0, 1, 2, 4, 5, ...)")],
)
def test_classes_without_a_clip_are_noted(tmp_path, capsys, labels, note):
    prepare(tmp_path, dataset([pose(f"v{label}", label) for label in labels]))
    assert f"NOTE: {note}. Labels count from 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (["a.mp4", "b.mp4"], "'a.mp4' in the split, 'a' among the clips; the names differ by '.mp4'"),
        (["videos/a"], "the names differ by 'videos/'"),
        (["x"], "'x' in the split, 'a' among the clips. Make them the same, or divide the clips with --split 0.25"),
    ],
)
def test_a_split_of_other_names_is_refused(tmp_path, names, hint):
    with pytest.raises(PreparationError, match=re.escape(hint)):
        prepare(tmp_path, dataset([pose("a"), pose("b", 1)], train=["a", "b"], val=names))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.pkl"]


@pytest.mark.parametrize("value", [[pose("a"), pose("b", 1)], dataset([pose("a"), pose("b", 1)], train=["a", "b"])])
def test_a_split_with_nothing_to_train_or_test_is_noted(tmp_path, capsys, value):
    prepare(tmp_path, value)
    assert "NOTE: a protocol has no clip to train or none to test with; divide the clips with --split" in (
        capsys.readouterr().out
    )


def test_a_division_at_random(tmp_path):
    poses = [pose(f"v{number:02d}", number % 3) for number in range(24)]
    opened = prepare(tmp_path, poses, split="0.25")
    test = opened.select("split", "test")
    assert np.bincount(opened.index["label"][test]).tolist() == [2, 2, 2]
    assert sorted([*test, *opened.select("split", "train")]) == list(range(24))
    again = prepare(tmp_path, dataset(poses[::-1]), split="0.25", overwrite=True)
    assert set(again.index["name"][again.select("split", "test")]) == set(opened.index["name"][test])
    with pytest.raises(PreparationError, match=r"--split 1.5: expected a share between 0 and 1"):
        prepare(tmp_path, poses, split="1.5", overwrite=True)


def test_a_division_from_a_file(tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": ["a"], "test": ["b"]}))
    opened = prepare(tmp_path, [pose("a"), pose("b", 1), pose("c")], split=str(path))
    assert opened.select("split", "train").tolist() == [0] and opened.select("split", "test").tolist() == [1]
    for wrong, message in (
        ("{", "not a readable JSON"),
        ("[]", "expected lists"),
        ('{"train": [1]}', "expected lists"),
    ):
        path.write_text(wrong)
        with pytest.raises(PreparationError, match=message):
            prepare(tmp_path, [pose("a")], split=str(path), overwrite=True)


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


def flat(joints: int, channels: int = 2, **changes) -> list[dict]:
    """Two annotations of a number of joints in pixels, with scores of their own."""
    rng = np.random.default_rng(joints)
    keypoint = rng.uniform(0, 1080, (1, 5, joints, channels)).astype(np.float32)
    if channels == 4:
        keypoint[..., 2:] = rng.uniform(0.1, 1, keypoint[..., 2:].shape)
    score = rng.uniform(0.1, 1, (1, 5, joints)).astype(np.float32) if channels == 2 else ...
    return [pose(name, label, keypoint=keypoint, keypoint_score=score, **changes) for label, name in enumerate("ab")]


@pytest.mark.parametrize(
    ("joints", "channels", "layout", "kept"),
    [
        (13, 2, "body13", 13),
        (18, 2, "openpose18", 18),
        (25, 2, "body25", 25),
        (26, 2, "halpe26", 26),
        (33, 2, "blazepose33", 33),
        (33, 4, "blazepose33", 33),
        (133, 2, "coco", 17),
        (136, 2, "halpe26", 26),
    ],
)
def test_joints_of_pose_estimators(tmp_path, joints, channels, layout, kept):
    annotations = flat(joints, channels)
    opened = prepare(tmp_path, dataset(annotations))
    assert (opened.info.layout, opened.info.channels) == (layout, ("x", "y", "confidence"))
    (body,) = opened.skeleton(0)
    keypoint = annotations[0]["keypoint"][0, :, :kept]
    np.testing.assert_allclose(body[..., 0], keypoint[..., 0] / 960 - 1, atol=1e-6)
    expected = keypoint[..., 3] if channels == 4 else annotations[0]["keypoint_score"][0, :, :kept]
    np.testing.assert_array_equal(body[..., 2], expected)


def test_three_coordinates_of_other_layouts(tmp_path):
    rng = np.random.default_rng(0)
    for layout, joints, options in (("utd_mhad", 20, {}), ("blazepose33", 33, {"coordinates": "metres"})):
        keypoint = rng.normal(0, 0.5, (1, 5, joints, 3)).astype(np.float32)
        clips = [pose(name, label, keypoint=keypoint, keypoint_score=...) for label, name in enumerate("ab")]
        (tmp_path / layout).mkdir()
        opened = prepare(tmp_path / layout, dataset(clips), layout=layout, **options)
        assert (opened.info.layout, opened.info.units, opened.num_channels) == (layout, "metres", 3)
        np.testing.assert_array_equal(opened.skeleton(0), keypoint)


def test_pictures_of_a_size_that_only_the_caller_knows(tmp_path):
    clips = flat(17, img_shape=..., original_shape=...)
    with pytest.raises(PreparationError, match="no clip is left to write"):
        prepare(tmp_path, dataset(clips))
    opened = prepare(tmp_path, dataset(clips), size=(1920, 1080), overwrite=True)
    np.testing.assert_allclose(opened.skeleton(0)[0, ..., 0], clips[0]["keypoint"][0, ..., 0] / 960 - 1, atol=1e-6)


def kinetics_file(path: pathlib.Path, label: int, /, **changes) -> None:
    rng = np.random.default_rng(label)
    people = [{"pose": rng.uniform(0.2, 0.8, 36).tolist(), "score": [0.9] * 18}]
    data = [{"frame_index": number + 1, "skeleton": people if number != 2 else []} for number in range(6)]
    contents = {"data": data, "label": f"class {'abc'[label]}", "label_index": label, **changes}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({key: value for key, value in contents.items() if value is not ...}))


def test_kinetics_folders_are_splits(tmp_path):
    for folder, count in (("kinetics_train", 4), ("kinetics_val", 2)):
        for number in range(count):
            kinetics_file(tmp_path / folder / f"{folder}_{number}.json", number % 2)
    kinetics_file(tmp_path / "kinetics_val" / "beside.json", 1, label=..., label_index=...)
    beside = {"beside": {"has_skeleton": True, "label": "class b", "label_index": 1}}
    (tmp_path / "kinetics_val_label.json").write_text(json.dumps(beside))
    (tmp_path / "kinetics_val" / "broken.json").write_text("{")
    folders = [str(tmp_path / name) for name in ("kinetics_train", "kinetics_val")]
    pyskl.main(["--source", *folders, "--out", str(tmp_path / "out")])
    opened = records.Records(tmp_path / "out")
    assert opened.info.layout == "openpose18" and opened.info.class_names == ("class a", "class b")
    (protocol,) = opened.info.protocols
    assert (len(opened.select(protocol, "train")), len(opened.select(protocol, "test"))) == (4, 3)
    stored = json.loads((tmp_path / "kinetics_train" / "kinetics_train_1.json").read_text())
    row = opened.index["name"].tolist().index("kinetics_train_1")
    expected = 2 * np.reshape(stored["data"][0]["skeleton"][0]["pose"], (18, 2)) - 1
    np.testing.assert_allclose(opened.skeleton(row)[0, 0, :, :2], expected, atol=1e-5)
    assert "not a readable JSON file" in set_aside(tmp_path / "out")["broken"]


def test_a_folder_for_each_class(tmp_path, capsys):
    """OpenPose's frames, of pictures whose size only the caller knows."""
    for label, name in enumerate(("jump", "wave")):
        for number in range(2):
            clip = tmp_path / "clips" / name / f"clip_{number}"
            clip.mkdir(parents=True)
            for frame in range(4):
                values = np.full((25, 3), 100.0 + 10 * frame + label)
                values[:, 1] += np.arange(25)
                values[:, 2] = 0.8
                people = [{"pose_keypoints_2d": values.ravel().tolist()}]
                (clip / f"v_{frame:012}_keypoints.json").write_text(json.dumps({"people": people}))
    arguments = ["--source", str(tmp_path / "clips"), "--out", str(tmp_path / "out"), "--split", "0.5"]
    with pytest.raises(SystemExit, match="no clip is left to write"):
        pyskl.main(arguments)
    pyskl.main([*arguments, "--size", "200x100"])
    opened = records.Records(tmp_path / "out")
    assert opened.info.class_names == ("jump", "wave") and opened.info.layout == "body25"
    assert sorted(opened.index["name"]) == [f"{name}/clip_{number}" for name in ("jump", "wave") for number in (0, 1)]
    row = opened.index["name"].tolist().index("wave/clip_1")
    np.testing.assert_allclose(opened.skeleton(row)[0, 3, 5], [131 / 100 - 1, 136 / 50 - 1, 0.8], atol=1e-5)


def test_folders_without_poses_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PreparationError, match=r"nothing to import \(no pose files\); expected Kinetics-skeleton's"):
        pyskl.prepare([tmp_path / "empty"], tmp_path / "out")
    kinetics_file(tmp_path / "clips" / "a.json", 0, label=..., label_index=...)
    with pytest.raises(PreparationError, match=r"nothing to import \(a: no label in it"):
        pyskl.prepare([tmp_path / "clips"], tmp_path / "out")
    with pytest.raises(PreparationError, match="files and folders together"):
        pyskl.prepare([tmp_path / "clips", save(tmp_path / "mine.pkl", [])], tmp_path / "out")
