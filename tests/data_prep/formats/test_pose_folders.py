"""Folders of pose files become annotations; a label that no dataset has is set aside and costs no memory."""

import json

import numpy as np

from data_prep.formats import pose_folders


def write_kinetics(path, label: int) -> None:
    path.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(label % 1000)
    person = {"pose": rng.uniform(0.2, 0.8, 36).tolist(), "score": [0.9] * 18}
    frames = [{"frame_index": number, "skeleton": [person]} for number in range(4)]
    path.write_text(json.dumps({"data": frames, "label": f"class of {label}", "label_index": label}))


def test_a_label_beyond_all_classes_is_set_aside(tmp_path):
    for name, label in (("a", 0), ("b", 1), ("c", 2**31)):
        write_kinetics(tmp_path / "clips" / f"{name}.json", label)
    contents = pose_folders.read([tmp_path / "clips"], None, None, None)
    assert contents.class_names == ("class of 0", "class of 1")
    assert [each["frame_dir"] for each in contents.source.annotations] == ["a", "b"]
    assert [(item.name, item.reason) for item in contents.source.set_aside] == [
        ("c", "label_index 2147483648, expected 0 to 9999")
    ]
