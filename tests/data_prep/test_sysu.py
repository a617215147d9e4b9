"""SYSU preparation on files made here, as public code describes them: no copy of the dataset was at hand."""

import pathlib
import re
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import scipy.io

from configs import sysu as config
from data_prep import sysu
from mmcl_jax.data import records
from mmcl_jax.data.records import writing
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.task import build_training_task
from tests.helpers.ntu_formats import set_aside

ROOT = pathlib.Path(__file__).parents[2]
PERSONS = ("BoTong", "Weige", "cenjiepeng", "zhouzaozhe")


def make_skeleton(frames: int = 6, head_first: bool = False, seed: int = 0) -> np.ndarray:
    """[T, 20, 3]: bones of a person's lengths between the first four joints."""
    rng = np.random.default_rng(seed)
    joints = rng.uniform((-0.3, -0.9, 2.5), (0.3, 0.6, 2.8), size=(frames, 20, 3))
    trunk = np.array([[0, 0, 2.6], [0, 0.06, 2.6], [0, 0.45, 2.6], [0, 0.65, 2.6]])
    joints[:, :4] = trunk[::-1] if head_first else trunk
    return joints + rng.normal(scale=0.005, size=joints.shape)


def save(
    root: pathlib.Path, person: str, video: str, skeleton: np.ndarray | None, variable: str = "SW"
) -> pathlib.Path:
    folder = root / person / video
    folder.mkdir(parents=True, exist_ok=True)
    if skeleton is not None:
        scipy.io.savemat(folder / "sklWorld.mat", {variable: skeleton})
    return folder / "sklWorld.mat"


@pytest.fixture
def source(tmp_path) -> pathlib.Path:
    """Four persons, all actions, and other files beside them."""
    root = tmp_path / "SYSU3DAction" / "3DvideoNorm"
    for place, person in enumerate(PERSONS):
        for action in range(1, 13):
            save(root, person, f"video{action}", make_skeleton(3 + action, seed=place).transpose(1, 2, 0))
    scipy.io.savemat(root / "BoTong" / "video1" / "sklImage.mat", {"S": np.ones((20, 2, 4))})
    (root / "BoTong" / "video1" / "rgb").mkdir()
    (root / "BoTong" / "video1" / "rgb" / "1.jpg").write_bytes(b"never opened")
    (root.parent / "matlabcode").mkdir()
    (root.parent / "matlabcode" / "show.m").write_text("never opened")
    return tmp_path / "SYSU3DAction"


def prepare(source: pathlib.Path, out: pathlib.Path, **options) -> records.Records:
    sysu.prepare(source, out, **options)
    return records.Records(out)


@pytest.mark.parametrize("form", ["folder", "inner folder", "archive"])
def test_records(source, tmp_path, capsys, form):
    given = source / "3DvideoNorm" if form == "inner folder" else source
    if form == "archive":
        given = tmp_path / "sysu.tar.gz"
        with tarfile.open(given, "w:gz") as tar:
            tar.add(source, "SYSU3DAction")
    sysu.main(["--source", str(given), "--out", str(tmp_path / "out")])
    opened = records.Records(tmp_path / "out")
    assert len(opened) == 48 and opened.info.layout == "nw_ucla"
    row = opened.index["name"].tolist().index("Weige_video12")
    assert (opened.index["label"][row], opened.index["subject"][row], opened.index["num_frames"][row]) == (11, 2, 15)
    assert opened.info.class_names[11] == "sweeping"
    np.testing.assert_array_equal(opened.skeleton(row)[0], make_skeleton(15, seed=1).astype(np.float32))
    subjects = {
        name.split("_")[0]: int(number)
        for name, number in zip(opened.index["name"], opened.index["subject"], strict=True)
    }
    assert subjects == {person: number for number, person in enumerate(PERSONS, start=1)}
    assert set_aside(tmp_path / "out") == {}
    printed = capsys.readouterr().out
    assert "joints: hip centre, spine, shoulder centre, head" in printed
    assert "NOTE: 4 persons, expected 40" in printed and "the complete dataset has 240 and 240" in printed
    assert not list(tmp_path.glob("*.unpacked*"))


def test_the_protocols_are_those_of_the_complete_dataset():
    protocols = sysu.draw_protocols()
    index = {
        "label": np.tile(np.arange(12), 40),
        "subject": np.repeat(np.arange(1, 41), 12),
        "fold": np.arange(1, 481),  # person by person, as read_clips counts
    }
    assert len(protocols) == 60
    divisions = set()
    for name, protocol in protocols.items():
        train, test = protocol.masks(index)
        assert train.sum() == test.sum() == 240 and not (train & test).any()
        assert (np.bincount(index["label"][train]) == 20).all()
        shared = set(index["subject"][train]) & set(index["subject"][test])
        assert bool(shared) == name.startswith("same_subject")
        divisions.add(train.tobytes())
    assert len(divisions) == 60
    assert protocols == sysu.draw_protocols()


def test_folds_count_subject_by_subject(source, tmp_path):
    opened = prepare(source, tmp_path / "out")
    expected = (opened.index["subject"] - 1) * 12 + opened.index["label"] + 1
    np.testing.assert_array_equal(opened.index["fold"], expected)
    for part in ("train", "test"):
        protocol = opened.protocol("same_subject_7")
        rows = opened.select("same_subject_7", part)
        assert set(np.isin(opened.index["fold"][rows], protocol.train)) == {part == "train"}


def test_the_order_of_the_joints_is_seen_in_the_bones(source, tmp_path):
    """A clip with NaN and one without bones do not decide."""
    root = source / "3DvideoNorm"
    for action in range(1, 13):
        for person in PERSONS[:3]:
            save(root, person, f"video{action}", make_skeleton(head_first=True).transpose(1, 2, 0))
    save(root, PERSONS[3], "video1", np.full((20, 3, 4), np.nan))
    save(root, PERSONS[3], "video2", np.ones((20, 3, 4)))
    opened = prepare(source, tmp_path / "out")
    assert opened.info.layout == "utd_mhad"
    assert opened.info.skeleton_layout.joints[0] == "head"
    assert sysu.find_layout([]) == "nw_ucla"


SPOILT = {
    "zero frames": (np.zeros((20, 3, 0)), "SW of shape|zero frames"),
    "other joints": (np.ones((25, 3, 5)), r"SW of shape \(25, 3, 5\), expected \(20, 3, T\)"),
    "two coordinates": (np.ones((20, 2, 5)), "SW of shape"),
    "frames first": (np.ones((5, 20, 3)), "SW of shape"),
    "two axes": (np.ones((20, 3)), "SW of shape"),
    "text": (np.array("a text"), "not a numeric array"),
    "cells": (np.array([[{"a": 1}]], dtype=object), "not a numeric array"),
    "NaN": (np.full((20, 3, 5), np.nan), "NaN or infinite values in 5 of 5 frames"),
    "infinite": (np.full((20, 3, 5), np.inf), "NaN or infinite"),
    "beyond float32": (np.full((20, 3, 5), 1e300), "NaN or infinite"),
    "all zero": (np.zeros((20, 3, 5)), "every joint of every frame is zero"),
}
WRONG_FILES = {
    "empty": (lambda contents: b"", "an empty file"),
    "half": (lambda contents: contents[: len(contents) // 2], "not a readable .mat file"),
    "no matlab": (lambda contents: b"no matlab" * 100, "not a readable .mat file"),
    "HDF5": (lambda contents: b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(9), "not a readable .mat file"),
}


def test_spoiled_files_are_set_aside(source, tmp_path):
    root = source / "3DvideoNorm"
    for number, (skeleton, _) in enumerate(SPOILT.values(), start=1):
        save(root, PERSONS[0], f"video{number}", skeleton)
    whole = (root / PERSONS[1] / "video9" / "sklWorld.mat").read_bytes()
    for number, (edit, _) in enumerate(WRONG_FILES.values(), start=1):
        (root / PERSONS[1] / f"video{number}" / "sklWorld.mat").write_bytes(edit(whole))
    save(root, PERSONS[2], "video1", make_skeleton().transpose(1, 2, 0), variable="S")
    for folder in ("video13", "video0", "video", "action1", "video1234"):
        save(root, PERSONS[2], folder, make_skeleton().transpose(1, 2, 0))
    (root / "sklWorld.mat").write_bytes(whole)
    (root / PERSONS[3] / "video5" / "sklWorld.mat").unlink()
    (root / PERSONS[3] / "video5" / "sklWorld.mat").mkdir()
    opened = prepare(source, tmp_path / "out")
    assert len(opened) == 48 - len(SPOILT) - len(WRONG_FILES) - 2
    reasons = {name.split("/")[0]: reason for name, reason in set_aside(tmp_path / "out").items()}
    for person, kinds in ((PERSONS[0], SPOILT), (PERSONS[1], WRONG_FILES)):
        for number, (_, message) in enumerate(kinds.values(), start=1):
            assert re.search(message, reasons[f"{person}_video{number}"])
    assert reasons["cenjiepeng_video1"] == "no variable 'SW'"
    odd = [f"cenjiepeng_{folder}" for folder in ("video13", "video0", "video", "action1", "video1234")]
    for name in [*odd, "3DvideoNorm"]:
        assert "the path is not of the form PERSON/videoK/sklWorld.mat, K from 1 to 12" in reasons[name]
    assert len(reasons) == len(SPOILT) + len(WRONG_FILES) + 1 + 6


def test_a_second_copy_is_set_aside(source, tmp_path):
    save(source / "copy", PERSONS[0], "video1", make_skeleton().transpose(1, 2, 0))
    opened = prepare(source, tmp_path / "out")
    assert len(opened) == 48
    ((name, reason),) = set_aside(tmp_path / "out").items()
    assert name == "copy/BoTong/video1/sklWorld.mat" and reason.startswith("duplicate: 3DvideoNorm/BoTong")


def test_sources_that_are_none(source, tmp_path):
    (tmp_path / "empty").mkdir()
    for given, message in (
        (tmp_path / "nowhere", "no such file or folder"),
        (tmp_path / "empty", r"no \*sklWorld.mat files; give the dataset as distributed"),
        (source / "3DvideoNorm" / PERSONS[0] / "video1" / "sklWorld.mat", "not a tar archive"),
        (source / "3DvideoNorm" / PERSONS[0] / "video1", "no clip is left to write"),
    ):
        with pytest.raises(PreparationError, match=message):
            sysu.prepare(given, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["SYSU3DAction", "empty"]


def test_existing_records_stay_unless_told(source, tmp_path):
    prepare(source, tmp_path / "out")
    command = [sys.executable, "-m", "data_prep.sysu", "--source", source, "--out", tmp_path / "out"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 1 and "exists already" in refused.stderr and "Traceback" not in refused.stderr
    for path in (source / "3DvideoNorm" / "Weige").rglob("sklWorld.mat"):
        path.unlink()
    assert len(prepare(source, tmp_path / "out", overwrite=True)) == 36


def test_an_interruption_leaves_nothing_that_loads(source, tmp_path, monkeypatch):
    def stop(incomplete, out):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "_move_into_place", stop)
    with pytest.raises(SystemExit, match="interrupted"):
        sysu.main(["--source", str(source), "--out", str(tmp_path / "out")])
    assert [path.name for path in tmp_path.iterdir()] == ["SYSU3DAction"]


def test_the_config_trains_on_them(source, tmp_path):
    opened = prepare(source, tmp_path / "out")
    for arguments, protocol in (("xsub_1,bone", "xsub_1"), ("same_subject_3", "same_subject_3")):
        made = config.get_config(arguments).unlock()
        made.update_from_flattened_dict({"data.records": str(tmp_path / "out"), "model.base_channels": 4})
        task = build_training_task(made)
        assert task.rows.tolist() == opened.select(protocol, "train").tolist()
        assert task.skeleton.num_classes == 12
    assert config.get_config().data.protocol == "xsub_1"
    with pytest.raises(ValueError, match="3 arguments"):
        config.get_config("a,b,c")
