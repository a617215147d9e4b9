"""Folders of pose files, of Kinetics-skeleton and of OpenPose."""

import json
import pathlib

import numpy as np
import pytest

from data_prep import pyskl
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import PreparationError
from tests.helpers.ntu_formats import set_aside
from tests.helpers.pyskl_files import save


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
