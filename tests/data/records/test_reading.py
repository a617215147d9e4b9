"""Reading records: joins by name, protocols, layouts of their own, and what earlier programs wrote."""

import concurrent.futures
import json
import pickle
import shutil

import numpy as np
import pytest

from mmcl_jax.data import records
from tests.helpers.made_up_records import OWN_INFO, OWN_LAYOUT, TEXT_SET, edit_info, make_clip, make_info


def test_skeletons_come_back_as_written(prepared):
    opened = records.Records(prepared)
    assert opened.info == make_info()
    assert (opened.max_frames, opened.max_bodies, opened.num_joints, opened.num_channels) == (14, 2, 20, 3)
    assert opened.index["name"].tolist() == [f"clip{number:02d}" for number in range(12)]
    for row in range(12):
        clip = make_clip(row)
        skeleton = opened.skeleton(row)
        assert skeleton.dtype == np.float32
        np.testing.assert_array_equal(skeleton, clip.skeleton.transpose(1, 0, 2, 3))
        for field in ("label", "subject", "camera", "setup", "replication"):
            assert opened.index[field][row] == getattr(clip, field)
        assert opened.index["num_frames"][row] == len(clip.skeleton)
        assert opened.index["num_bodies"][row] == clip.skeleton.shape[1]


def test_images_are_joined_by_name_and_resized_by_the_shorter_side(prepared):
    opened = records.Records(prepared)
    picture = opened.image(3, 96)
    assert picture.shape == (96, 192, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_allclose(picture.reshape(-1, 3).mean(axis=0), (250, 10, 10), atol=4)
    with pytest.raises(records.RecordsError, match=r"clip04 is not in it; 6 of 12 .*clip00, clip02"):
        opened.image(4, 96)


def test_texts_are_joined_by_name(prepared):
    opened = records.Records(prepared)
    assert opened.text_sets == (TEXT_SET,)
    assert opened.text_width(TEXT_SET) == 3
    assert opened.text(4, TEXT_SET).tolist() == [4.0, 5.0, 6.0]
    with pytest.raises(records.RecordsError, match=r"clip05 is not in it"):
        opened.text(5, TEXT_SET)
    with pytest.raises(records.RecordsError, match=r"no text set 'blip/x/y'; known: \['blip/holding/token_ids'\]"):
        opened.text(4, "blip/x/y")


def test_clips_without(prepared):
    opened = records.Records(prepared)
    assert opened.clips_without([0, 1, 2], "images") == ["clip00", "clip02"]
    assert opened.clips_without([0, 1, 2], TEXT_SET) == ["clip01"]


def test_skeletons_are_read_without_images_and_text(damaged):
    shutil.rmtree(damaged / "images")
    shutil.rmtree(damaged / "text")
    opened = records.Records(damaged)
    assert not opened.has_images
    assert opened.text_sets == ()
    assert opened.skeleton(3).shape == (2, 6, 20, 3)
    assert opened.clips_without([1], "images") == ["clip01"]
    with pytest.raises(records.RecordsError, match="no images"):
        opened.image(1, 32)


def test_threads_and_pickles_read_the_same(prepared):
    opened = pickle.loads(pickle.dumps(records.Records(prepared)))
    rows = list(range(1, 12, 2)) * 20
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        skeletons = list(pool.map(opened.skeleton, rows))
        pictures = list(pool.map(lambda row: opened.image(row, 16), rows))
    for row, skeleton, picture in zip(rows, skeletons, pictures, strict=True):
        np.testing.assert_array_equal(skeleton, make_clip(row).skeleton.transpose(1, 0, 2, 3))
        assert picture.shape == (16, 32, 3)


def test_protocol_parts(prepared):
    opened = records.Records(prepared)
    subjects = opened.index["subject"]  # 1 and 3 of 1, 2, 3, 4 train
    train, test = opened.select("xsub", "train"), opened.select("xsub", "test")
    assert train.dtype == np.int64
    assert set(subjects[train]) == {1, 3}
    assert set(subjects[test]) == {2, 4}
    assert sorted([*train, *test]) == list(range(12))
    assert not len(opened.select("xsub", "validation"))
    assert set(subjects[opened.select("xsub", "train", (3,))]) == {1}
    assert set(subjects[opened.select("xsub", "validation", (3,))]) == {3}
    np.testing.assert_array_equal(opened.select("xsub", "test", (3,)), test)


def test_folds_divide_clips_and_leave_some_out(tmp_path):
    protocols = {"first": records.Protocol("fold", (0,), test=(1,)), "second": records.Protocol("fold", (1, 2))}
    clips = [make_clip(number, fold=number % 3) for number in range(6)]
    records.write_records(tmp_path / "out", make_info(protocols=protocols), clips)
    opened = records.Records(tmp_path / "out")
    assert opened.index["fold"].tolist() == [0, 1, 2, 0, 1, 2]
    assert [opened.select("first", part).tolist() for part in ("train", "test")] == [[0, 3], [1, 4]]
    assert [opened.select("second", part).tolist() for part in ("train", "test")] == [[1, 2, 4, 5], [0, 3]]
    with pytest.raises(ValueError, match=r"clips of fold \[1\] would both train and test"):
        records.Protocol("fold", (0, 1), test=(1, 2))


def test_records_of_before_there_were_folds(damaged):
    with np.load(damaged / "index.npz") as stored:
        columns = {key: stored[key] for key in stored if key != "fold"}
    np.savez(damaged / "index.npz", **columns)
    opened = records.Records(damaged)
    assert opened.index["fold"].tolist() == [0] * len(opened)


def test_every_protocol_names_an_index_field():
    for protocols in records.PROTOCOLS.values():
        for protocol in protocols.values():
            assert protocol.field in records.INDEX_FIELDS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("xview", "train"), r"protocol 'xview' is not one of \['xsub'\]"),
        (("xsub", "valid"), r"part 'valid' is not one of"),
        (("xsub", "train", (2, 3)), r"\[2\] are not among the training subjects \[1, 3\]"),
        (("xsub", "train", (1, 3)), r"no clip in part 'train'"),
    ],
)
def test_select_refuses(prepared, arguments, message):
    with pytest.raises(records.RecordsError, match=message):
        records.Records(prepared).select(*arguments)


def test_records_that_an_earlier_program_wrote(damaged):
    edit_info(damaged, lambda info: (info.pop("channels"), info.pop("protocols")))
    path = damaged / "info.json"
    stored = json.loads(path.read_text())
    del stored["skeletons_sha256"]
    path.write_text(json.dumps(stored))
    opened = records.Records(damaged)
    assert opened.info == make_info()
    assert opened.info.channels == ("x", "y", "z")
    assert opened.info.num_coordinates == 3
    assert opened.fingerprint() == "c360d14ba533b7df"  # as it always was: a run on these records resumes


def test_a_dataset_brings_its_layout_channels_and_protocols(own_dataset):
    opened = records.Records(own_dataset)
    assert opened.info == make_info(**OWN_INFO)
    assert opened.info.skeleton_layout == OWN_LAYOUT
    assert (opened.num_joints, opened.num_channels, opened.info.num_coordinates) == (3, 3, 2)
    assert opened.fingerprint() == records.Records(own_dataset).fingerprint()
    assert set(opened.index["camera"][opened.select("xview", "train")]) == {2, 3}
    assert set(opened.index["camera"][opened.select("xview", "test")]) == {1}
    with pytest.raises(records.RecordsError, match=r"protocol 'xsub' is not one of \['xview'\]"):
        opened.select("xsub", "train")


@pytest.mark.parametrize(
    "edit",
    [
        lambda info: info["layout"].update(bones=[[0, 2], [1, 2]]),
        lambda info: info.update(channels=["x", "y", "z"]),
    ],
)
def test_another_layout_or_other_channels_are_other_records(own_dataset, tmp_path, edit):
    folder = shutil.copytree(own_dataset, tmp_path / "own")
    edit_info(folder, edit)
    assert records.Records(folder).fingerprint() != records.Records(own_dataset).fingerprint()


def test_the_frame_rate_is_stored_where_it_is_known():
    known, unknown = make_info(frame_rate=12.5), make_info()
    assert records.DatasetInfo.from_json(known.to_json()) == known
    assert "frame_rate" not in unknown.to_json()  # as earlier versions wrote and read it
    assert records.DatasetInfo.from_json(unknown.to_json()).frame_rate == 0
    with pytest.raises(records.RecordsError, match="frame rate 'fast'"):
        records.DatasetInfo.from_json({**known.to_json(), "frame_rate": "fast"})
