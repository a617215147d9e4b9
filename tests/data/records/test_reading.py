"""Reading records: joins by name, protocols, and every way in which a folder can be wrong."""

import concurrent.futures
import io
import json
import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from mmcl_jax.data import records
from mmcl_jax.data.layouts import Layout
from mmcl_jax.data.records import checks
from mmcl_jax.runtime import arrays

TEXT_SET = "blip/holding/token_ids"


def jpeg(width=48, height=24, colour=(250, 10, 10)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(stream, "JPEG")
    return stream.getvalue()


def make_clip(number: int, **changes) -> records.Clip:
    """Clip `number`: of 3 + number frames; every third has two bodies, odd numbers an image, even ones a text."""
    rng = np.random.default_rng(number)
    fields = {
        "name": f"clip{number:02d}",
        "label": number % 3,
        "subject": number % 4 + 1,
        "camera": number % 3 + 1,
        "setup": 1,
        "replication": number,
        "skeleton": rng.normal(size=(3 + number, 2 if number % 3 == 0 else 1, 20, 3)).astype(np.float32),
        "image": jpeg() if number % 2 else None,
        "texts": {} if number % 2 else {TEXT_SET: np.arange(3, dtype=np.float32) + number},
    }
    return records.Clip(**{**fields, **changes})


def make_info(**changes) -> records.DatasetInfo:
    fields = {
        "dataset": "utd_mhad",
        "layout": "utd_mhad",
        "units": "metres",
        "class_names": ("a", "b", "c"),
        "image_source": "drawn",
        "preprocessing": "made up for a test",
    }
    return records.DatasetInfo(**{**fields, **changes})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    out = tmp_path_factory.mktemp("records") / "made_up"
    records.write_records(out, make_info(), (make_clip(number) for number in range(12)), total=12)
    return out


@pytest.fixture
def damaged(prepared, tmp_path):
    """A copy to damage."""
    return shutil.copytree(prepared, tmp_path / "damaged")


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


def edit_info(folder, edit):
    """Changes the `info` part of info.json by calling `edit` on it."""
    stored = json.loads((folder / "info.json").read_text())
    edit(stored["info"])
    (folder / "info.json").write_text(json.dumps(stored))


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


OWN_LAYOUT = Layout.from_names("hand, elbow, shoulder", "hand < elbow, elbow < shoulder", centre="shoulder")
OWN_INFO = {
    "dataset": "my_dataset",
    "layout": OWN_LAYOUT,
    "channels": ("x", "y", "confidence"),
    "protocols": {"xview": records.Protocol("camera", (2, 3))},
}


@pytest.fixture(scope="module")
def own_dataset(tmp_path_factory):
    """Records that bring layout, channels and protocol with them."""
    out = tmp_path_factory.mktemp("records") / "own"
    clips = (make_clip(number, skeleton=make_clip(number).skeleton[:, :, :3]) for number in range(12))
    records.write_records(out, make_info(**OWN_INFO), clips)
    return out


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


def test_the_frame_rate_is_stored_where_it_is_known():
    known, unknown = make_info(frame_rate=12.5), make_info()
    assert records.DatasetInfo.from_json(known.to_json()) == known
    assert "frame_rate" not in unknown.to_json()  # as earlier versions wrote and read it
    assert records.DatasetInfo.from_json(unknown.to_json()).frame_rate == 0
    with pytest.raises(records.RecordsError, match="frame rate 'fast'"):
        records.DatasetInfo.from_json({**known.to_json(), "frame_rate": "fast"})
