"""Records that are refused when they are opened or read: damaged, of another version, or contradicting themselves."""

import json
import os
import shutil

import numpy as np
import pytest

from mmcl_jax.data import records
from mmcl_jax.data.records import checks
from mmcl_jax.runtime import arrays
from tests.helpers.made_up_records import edit_info, make_clip, make_info


def test_missing_folder(tmp_path):
    with pytest.raises(records.RecordsError, match=r"nowhere: no such folder; prepare"):
        records.Records(tmp_path / "nowhere")


def test_folder_of_something_else(tmp_path):
    with pytest.raises(records.RecordsError, match=r"not a records folder"):
        records.Records(tmp_path)


def test_records_of_another_version(damaged):
    stored = json.loads((damaged / "info.json").read_text())
    (damaged / "info.json").write_text(json.dumps({**stored, "records_version": "0.9.0"}))
    with pytest.raises(
        records.RecordsError, match=r"info.json: records version '0.9.0', this program reads '1.0.0'; prep"
    ):
        records.Records(damaged)


@pytest.mark.parametrize("name", ["info.json", "index.npz"])
def test_truncated_index(damaged, name):
    whole = (damaged / name).read_bytes()
    for size in (0, len(whole) // 2):
        (damaged / name).write_bytes(whole[:size])
        with pytest.raises(records.RecordsError, match=name):
            records.Records(damaged)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda info: info.update(layout="kinect"), "layout 'kinect' is not one of ntu, nw_ucla, utd_mhad, coco"),
        (lambda info: info.update(channels=["x", "confidence", "y"]), "channels .* are not one of"),
        (lambda info: info.update(channels=["x", "y", "z", "confidence"]), r"\(3, 3\) joints and channels.*\(3, 4\)"),
        (lambda info: info["layout"]["bones"].pop(), "2 joints have no parent"),
        (lambda info: info["layout"].pop("centre"), "centre"),
        (lambda info: info["protocols"]["xview"].update(field="view"), "field 'view' is not one of label, subject"),
        (lambda info: info.update(layout=None), "incomplete or wrong"),
    ],
)
def test_a_layout_that_does_not_fit_is_named_with_its_file(own_dataset, tmp_path, edit, message):
    folder = shutil.copytree(own_dataset, tmp_path / "own")
    edit_info(folder, edit)
    with pytest.raises(records.RecordsError, match=r"info\.json: .*" + message):
        records.Records(folder)


def test_index_of_another_length(damaged):
    with np.load(damaged / "index.npz") as stored:
        np.savez(damaged / "index.npz", **{field: values[:-1] for field, values in stored.items()})
    with pytest.raises(records.RecordsError, match=r"skeletons: 12 rows, but the index has 11 clips; prepare again"):
        records.Records(damaged)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": np.full(12, -1)}, "label -1 of clip clip00, expected 0 to 2, one of the 3 class names"),
        ({"label": np.full(12, 3)}, "label 3 of clip clip00, expected 0 to 2"),
        ({"label": np.zeros(12)}, "columns of types .*expected text for the names and whole numbers"),
        ({"name": np.arange(12)}, "columns of types"),
        ({"name": np.full(12, "a")}, "clip name 'a' is empty or not unique"),
        ({"name": np.array(["", *"abcdefghijk"])}, "clip name '' is empty"),
        ({"num_frames": np.zeros(12, int)}, "num_frames 0 of clip clip00, expected at least 1"),
        ({"num_bodies": np.full(12, -1)}, "num_bodies -1 of"),
        ({"label": np.zeros((12, 1), int)}, "columns of lengths"),
        ({"label": np.array(0)}, "columns of lengths"),
        ({"label": np.array([None] * 12)}, "missing or corrupt"),
    ],
)
def test_an_index_that_cannot_be_right(damaged, changes, message):
    with np.load(damaged / "index.npz") as stored:
        columns = dict(stored)
    np.savez(damaged / "index.npz", **{**columns, **changes})
    with pytest.raises(records.RecordsError, match=r"index\.npz: .*" + message):
        records.Records(damaged)


def test_class_names_that_are_too_few(damaged):
    edit_info(damaged, lambda info: info.update(class_names=["a", "b"]))
    with pytest.raises(
        records.RecordsError, match=r"label 2 of clip clip02, expected 0 to 1, one of the 2 class names"
    ):
        records.Records(damaged)


def test_any_changed_bit_of_the_index_is_refused_or_changes_nothing(damaged):
    path = damaged / "index.npz"
    whole, sound = path.read_bytes(), records.Records(damaged).index
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 300):
        spoiled = bytearray(whole)
        spoiled[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(spoiled)
        try:
            index = records.Records(damaged).index
        except records.RecordsError as error:
            assert "prepare again" in str(error)
        else:
            for field, values in sound.items():
                np.testing.assert_array_equal(index[field], values)


def test_an_index_that_declares_more_than_fits_into_memory(damaged, monkeypatch):
    monkeypatch.setattr(arrays, "LARGEST", 1000)
    with pytest.raises(records.RecordsError, match="bytes declared"):
        records.Records(damaged)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_stored_value_that_no_skeleton_has_is_refused_when_it_is_read(tmp_path, monkeypatch, value):
    skeleton = make_clip(4).skeleton.copy()
    skeleton[-1, 0, 5, 1] = value
    with monkeypatch.context() as patch:
        patch.setattr(checks, "skeleton_fault", lambda skeleton, info: None)
        records.write_records(tmp_path / "out", make_info(), [make_clip(0), make_clip(4, skeleton=skeleton)])
    opened = records.Records(tmp_path / "out")
    opened.skeleton(0)
    with pytest.raises(records.RecordsError, match=r"row 1 \(clip clip04\): .*; prepare again"):
        opened.skeleton(1)


def test_index_of_other_clips(damaged):
    with np.load(damaged / "index.npz") as stored:
        columns = dict(stored)
    np.savez(damaged / "index.npz", **{**columns, "name": columns["name"][::-1]})
    with pytest.raises(records.RecordsError, match=r"row 0 holds clip clip00, the index says clip11"):
        records.Records(damaged).skeleton(0)


@pytest.mark.parametrize(("dataset", "feature"), [("skeletons", "skeleton"), ("images", "name")])
def test_a_dataset_without_its_features(damaged, dataset, feature):
    path = damaged / dataset / "features.json"
    path.write_text(path.read_text().replace(f'"{feature}"', '"other"'))
    with pytest.raises(records.RecordsError, match=rf"{dataset}: cannot be opened .*{feature}"):
        records.Records(damaged).image_file(0)


def test_a_pipe_among_the_files_is_not_waited_for(damaged):
    path = next((damaged / "skeletons").glob("*.array_record*"))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(records.RecordsError, match="not a regular file"):
        records.Records(damaged)


def test_missing_skeletons(damaged):
    shutil.rmtree(damaged / "skeletons")
    with pytest.raises(records.RecordsError, match=r"skeletons: missing; expected a dataset of 12 clips"):
        records.Records(damaged)


@pytest.mark.parametrize("kept", [0, 0.5, 0.95])
def test_truncated_skeletons(damaged, kept):
    (file,) = (damaged / "skeletons").glob("*array_record*")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(records.RecordsError, match=r"skeletons: .*; prepare again"):
        records.Records(damaged)


def test_overwritten_bytes_in_skeletons(damaged):
    (file,) = (damaged / "skeletons").glob("*array_record*")
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 8 : len(whole) // 2] = bytes(len(whole) // 2 - len(whole) // 8)
    file.write_bytes(whole)
    with pytest.raises(records.RecordsError, match="prepare again"):
        opened = records.Records(damaged)
        for row in range(12):
            opened.skeleton(row)


def test_truncated_images(damaged):
    (file,) = (damaged / "images").glob("*array_record*")
    file.write_bytes(file.read_bytes()[:100])
    opened = records.Records(damaged)
    opened.skeleton(0)
    with pytest.raises(records.RecordsError, match=r"images: .*; prepare again"):
        opened.image(1, 32)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_coordinate_that_is_not_finite_is_refused_when_read(tiny_records, monkeypatch, value):
    opened = records.Records(tiny_records)
    read = type(opened._skeletons).read

    def damaged(self, row):
        example = read(self, row)
        example["skeleton"] = example["skeleton"].copy()
        example["skeleton"][5, -1, 3, 2] = value
        return example

    monkeypatch.setattr(type(opened._skeletons), "read", damaged)
    with pytest.raises(
        records.RecordsError, match=r"NaN or infinite values in 1 of \d+ frames; prepare again"
    ) as caught:
        opened.skeleton(2)
    assert opened.index["name"][2] in str(caught.value)
