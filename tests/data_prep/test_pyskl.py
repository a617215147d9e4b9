"""pyskl's annotations become the clips they were made of."""

import jax
import numpy as np
import pytest

from configs import ntu60
from data_prep import pyskl
from mmcl_jax.data import records
from mmcl_jax.task import build_training_task
from tests.helpers import ntu_formats
from tests.helpers.ntu_formats import set_aside
from tests.helpers.pyskl_files import dataset, pose, prepare, save


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
    assert "4 bodies of zeros left out" in printed and "1 clip has more than 2 bodies" in printed


def test_a_second_actor_of_zeros_is_padding_where_everybody_has_one(reference, tmp_path):
    whole = ntu_formats.annotations(reference)
    for clip in whole["annotations"]:
        if len(clip["keypoint"]) == 1:
            clip["keypoint"] = np.concatenate([clip["keypoint"], np.zeros_like(clip["keypoint"])])
    opened = prepare(tmp_path, whole)
    for row, original in enumerate(reference.index["name"]):
        assert opened.index["name"][row] == original
        assert opened.index["num_bodies"][row] == reference.skeleton(row).any(axis=(1, 2, 3)).sum()


@pytest.mark.parametrize("scores", [True, False])
def test_who_is_seen_longest_is_used(tmp_path, capsys, scores):
    clip = pose("a", bodies=4, **({} if scores else {"keypoint_score": ...}))
    for passer_by in (0, 1, 3):
        clip["keypoint"][passer_by, 1 + passer_by :] = 0
        if scores:
            clip["keypoint_score"][passer_by, 1 + passer_by :] = 0
    opened = prepare(tmp_path, dataset([clip, pose("b", 1, **({} if scores else {"keypoint_score": ...}))]))
    (tmp_path / "other").mkdir()
    clip["keypoint"] = clip["keypoint"][[2, 3]]
    if scores:
        clip["keypoint_score"] = clip["keypoint_score"][[2, 3]]
    expected = prepare(tmp_path / "other", dataset([clip, pose("b", 1, **({} if scores else {"keypoint_score": ...}))]))
    np.testing.assert_array_equal(opened.skeleton(0), expected.skeleton(0))
    assert "1 clip has more than 2 bodies; the two that are seen longest are used" in capsys.readouterr().out


def test_frames_of_nobody_are_left_out_in_3d(reference, tmp_path, capsys):
    whole = ntu_formats.annotations(reference)
    for clip in whole["annotations"]:
        clip["keypoint"] = np.insert(clip["keypoint"], [0, 3], 0, axis=1)
        clip["total_frames"] += 2
    assert_same_clips(prepare(tmp_path, whole), reference)
    assert f"{2 * len(reference)} frames without a body left out" in capsys.readouterr().out


def test_names_with_folders(reference, tmp_path):
    whole = ntu_formats.annotations(reference)
    for clip in whole["annotations"]:
        clip["filename"] = f"videos/{clip.pop('frame_dir')}"
    whole["split"] = {key: [f"videos/{name}" for name in names] for key, names in whole["split"].items()}
    assert_same_clips(prepare(tmp_path, whole), reference)


@pytest.mark.parametrize(
    ("labels", "note"),
    [((1, 2), "1 of 3 classes have no clip (0)"), ((3, 45), "44 of 46 classes have no clip (0, 1, 2, 4, 5, ...)")],
)
def test_classes_without_a_clip_are_noted(tmp_path, capsys, labels, note):
    prepare(tmp_path, dataset([pose(f"v{label}", label) for label in labels]))
    assert f"NOTE: {note}. Labels count from 0" in capsys.readouterr().out
