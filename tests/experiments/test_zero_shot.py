"""Zero-shot: other records reach a model as its own would, and label maps that do not fit are refused."""

import dataclasses
import json

import numpy as np
import pytest

from data_prep import ntu, nw_ucla, synthetic, utd_mhad
from data_prep.formats import ntu_clips
from experiments import zero_shot
from experiments.scores import read_scores
from mmcl_jax import checkpoints
from mmcl_jax.config import Config
from mmcl_jax.data import records
from mmcl_jax.data.layouts import LAYOUTS, joint_mapping, map_joints
from mmcl_jax.data.records import Records
from mmcl_jax.torch_weights import import_checkpoint
from tests.helpers.torch_files import random_state_dict, save

MOVED = np.array([1.0, -0.5, 3.0], np.float32)


def _rows(text: str, first: str) -> list[list[str]]:
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return [cells for cells in lines if cells and cells[0].startswith(first)]


@pytest.fixture(scope="module")
def moved_records(tmp_path_factory):
    """The test clips of the tiny records, as another dataset that has its origin elsewhere, and one more class."""
    folder = tmp_path_factory.mktemp("moved") / "records"
    names = ("stand still", *(f"to {name}" for name in synthetic._INFO.class_names))
    info = dataclasses.replace(synthetic._INFO, dataset="other", class_names=names)
    fields = [synthetic.ClipFields(action, subject=4, camera=2, replication=1) for action in range(1, len(names))]
    clips = [synthetic.make_clip(0, clip_fields) for clip_fields in fields]
    clips = [dataclasses.replace(clip, label=clip.label + 1, skeleton=clip.skeleton + MOVED) for clip in clips]
    extra = dataclasses.replace(clips[0], name="stand_still", label=0)
    records.write_records(folder, info, iter([*clips, extra]), total=len(clips) + 1)
    return folder


@pytest.fixture
def identity(tmp_path):
    """A label map from the moved records to the model's classes."""
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({f"to {name}": name for name in synthetic._INFO.class_names}))
    return path


@pytest.mark.long
def test_the_same_clips_elsewhere_have_the_same_scores(finished_run, moved_records, identity, tmp_path, capsys):
    arguments = [f"--workdir={finished_run}", f"--target={moved_records}", f"--labels={identity}"]
    zero_shot.main([*arguments, "--text=none", f"--out={tmp_path / 'alone.npz'}"])
    text = capsys.readouterr().out
    alone, expected = read_scores(tmp_path / "alone.npz"), read_scores(finished_run)
    assert alone.names.tolist() == expected.names.tolist()  # the clip of the unmapped class took no part
    np.testing.assert_allclose(alone.scores, expected.scores, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(alone.labels, expected.labels)
    assert alone.class_names == expected.class_names
    right = 100 * (alone.scores.argmax(axis=1) == alone.labels).mean()
    assert _rows(text, "skeleton only")[0][1] == f"{right:.2f}"
    assert _rows(text, "chance")[0][1:] == ["8.33", "41.67", "8.33", "41.67"]
    assert len(_rows(text, "to ")) == 12

    zero_shot.main([*arguments, f"--out={tmp_path / 'refined.npz'}"])
    text = capsys.readouterr().out
    refined = read_scores(tmp_path / "refined.npz").scores
    expected = _refine_by_hand(alone.scores, finished_run, Records(moved_records))
    np.testing.assert_allclose(refined, expected, rtol=1e-4, atol=1e-4)
    assert _rows(text, "refined by stand_in/holding/token_ids")
    assert np.abs(refined - alone.scores).max() > 1e-4


def _refine_by_hand(scores, workdir, target):
    """Eq. 8 in numpy; the text standardized by the training clips of the source, as the demo's config has it."""
    source = Records(json.loads((workdir / "config.json").read_text())["data"]["records"])
    text_set = "stand_in/holding/token_ids"
    training = np.array([source.text(row, text_set) for row in source.select("xsub", "train")])
    text = np.array([target.text(row, text_set) for row in range(12)])
    deviation = training.std(axis=0)
    text = (text - training.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    frm = checkpoints.read_variables(workdir)[1]["params"]["refinement"]
    hidden = np.maximum(text @ frm["phi_hidden"]["kernel"] + frm["phi_hidden"]["bias"], 0)
    weights = np.exp(hidden @ frm["phi_output"]["kernel"] + frm["phi_output"]["bias"])
    weights /= weights.sum(axis=1, keepdims=True)
    return weights @ frm["matrices"] * scores


@pytest.fixture(scope="module")
def kinect_v1(tmp_path_factory):
    """Two clips each of the paper's six actions of UTD-MHAD and one of another, of synthetic people of 20 joints."""
    folder = tmp_path_factory.mktemp("utd") / "records"
    mapping = joint_mapping(LAYOUTS["ntu"], LAYOUTS["utd_mhad"])
    clips = []
    for label in (2, 2, 5, 5, 6, 6, 23, 23, 24, 24, 26, 26, 0):
        clip = synthetic.make_clip(1, synthetic.ClipFields(len(clips) % 12 + 1, 1, 1, 1))
        skeleton = map_joints(clip.skeleton[:, :1], mapping, 3).astype(np.float32) + MOVED
        texts = {"blip/holding/token_ids": clip.texts[synthetic.TEXT_SET]}
        name = f"a{label + 1}_t{len(clips)}"
        clips.append(dataclasses.replace(clip, name=name, label=label, skeleton=skeleton, texts=texts, image=None))
    records.write_records(folder, utd_mhad.dataset_info(depth=False, folder=None), iter(clips), total=len(clips))
    return folder


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A narrow MMCL model of NTU RGB+D 120 with random weights, imported from PyTorch's names."""
    folder = tmp_path_factory.mktemp("imported")
    state_dict = random_state_dict("mmcl", num_classes=120, bodies=2)
    import_checkpoint(save(state_dict, folder / "mmcl.npz"), folder / "run")
    return folder / "run"


_NTU = ["--config=configs/ntu120.py:xsub,joint", "--config.model.base_channels=4", "--config.data.window=16"]


@pytest.mark.slow
def test_imported_weights_need_no_records_of_their_own(imported, kinect_v1, tmp_path, capsys):
    """20 joints become 25, six actions classes of 120, and the text refines, as in table 10."""
    out = tmp_path / "scores.npz"
    zero_shot.main([f"--workdir={imported}", f"--target={kinect_v1}", *_NTU, f"--out={out}"])
    text = capsys.readouterr().out
    assert "on 12 clips" in text and "ntu -> utd_mhad" in text
    assert _rows(text, "chance")[0][1:] == ["0.83", "4.17", "16.67", "83.33"]
    assert len(_rows(text, "refined by blip/holding/token_ids")) == 1
    found = read_scores(out)
    assert found.scores.shape == (12, 120)
    assert found.labels.tolist() == [22, 22, 95, 95, 62, 62, 8, 8, 7, 7, 79, 79]  # A023, A096, A063, A009, A008, A080


def _mapped(target, source_info, bodies=2, **more):
    source = zero_shot.Source(source_info, source_info.class_names, bodies, None)
    labels = zero_shot.find_labels(source_info.dataset, target.info.dataset)
    return zero_shot.MappedRecords(target, source, more.pop("labels", labels), **more)


def test_clips_arrive_on_the_joints_of_the_model_with_its_origin(kinect_v1):
    target = Records(kinect_v1)
    mapped = _mapped(target, ntu.dataset_info(None))
    clip = mapped.skeleton(0)
    assert clip.shape[0] == 1 and clip.shape[2:] == (25, 3) and clip.dtype == np.float32
    np.testing.assert_allclose(clip[0, 0, 1], 0, atol=1e-6)  # joint 2
    v1, v2 = LAYOUTS["utd_mhad"], LAYOUTS["ntu"]
    raw = target.skeleton(0)
    bone = clip[:, :, v2.joints.index("left wrist")] - clip[:, :, v2.joints.index("left elbow")]
    expected = raw[:, :, v1.joints.index("left wrist")] - raw[:, :, v1.joints.index("left elbow")]
    np.testing.assert_allclose(bone, expected, atol=1e-5)
    assert mapped.rows.tolist() == list(range(12))


def test_the_maps_are_the_papers_and_go_both_ways():
    numbers = zero_shot.label_numbers(zero_shot.LABELS["ntu", "utd_mhad"], utd_mhad.ACTIONS, ntu_clips.ACTIONS)
    paper = {3: 23, 6: 96, 7: 63, 24: 9, 25: 8, 27: 80}
    assert {action + 1: label + 1 for action, label in numbers.items()} == paper
    numbers = zero_shot.label_numbers(
        zero_shot.find_labels("nw_ucla", "utd_mhad"), utd_mhad.ACTIONS, tuple(nw_ucla.ACTIONS.values())
    )
    in_files = list(nw_ucla.ACTIONS)  # a05 -> a25, a06 -> a24, a11 -> a5, a04 -> a23
    assert {in_files[label]: action + 1 for action, label in numbers.items()} == {5: 25, 6: 24, 11: 5, 4: 23}
    assert zero_shot.find_labels("utd_mhad", "nw_ucla")["walk around"] == "walk"
    with pytest.raises(ValueError, match=r"from sysu to the classes of ntu is known \(only ntu -> utd_mhad.*JSON file"):
        zero_shot.find_labels("ntu", "sysu")


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("wave: hand waving", "not valid JSON"),
        ("", "not valid JSON"),
        ("[1, 2]", "expected {"),
        ("{}", "at least one"),
        ('["wave"]', "expected {"),
        ('{"wave": 22}', "the class of 'wave' is not text"),
        ('{"wave": {"ntu": "hand waving"}}', "the class of 'wave' is not text"),
        ('{"wave": "clapping", "wave": "hand waving"}', "'wave' is repeated"),
    ],
)
def test_label_files_that_are_none_are_refused(tmp_path, contents, message):
    path = tmp_path / "labels.json"
    path.write_text(contents)
    with pytest.raises(ValueError, match=message) as refused:
        zero_shot.read_labels(path)
    assert str(path) in str(refused.value)


def test_a_label_map_of_many_pairs_is_read_and_refused_in_few_words(kinect_v1, tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({f"action {number} {'x' * 1000}": "hand waving" for number in range(20_000)}))
    labels = zero_shot.read_labels(path)
    assert len(labels) == 20_000
    with pytest.raises(ValueError, match=r"and 19,990 more is not an action of the target") as refused:
        _mapped(Records(kinect_v1), ntu.dataset_info(None), labels=labels)
    assert len(str(refused.value)) < 3000


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"waving": "hand waving"}, "'waving' is not an action of the target: swipe left, swipe right"),
        ({"wave": "waving"}, "'waving' is not a class of the model: drink water"),
        ({"squat": "squat down", "jog": "running on the spot"}, "no clip of jog; leave them out"),
    ],
)
def test_label_maps_that_do_not_fit_the_records_are_refused(kinect_v1, labels, message):
    with pytest.raises(ValueError, match=message):
        _mapped(Records(kinect_v1), ntu.dataset_info(None), labels=labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": ("x", "y")}, "the model's joints are x, y, the target's x, y, z"),
        ({"channels": ("x", "y", "z", "confidence")}, "confidence of 1 for every joint"),
        ({"units": "pixels"}, "in pixels, the target's in metres"),
    ],
)
def test_joints_of_another_kind_are_refused(kinect_v1, changes, message):
    with pytest.raises(ValueError, match=message):
        _mapped(Records(kinect_v1), dataclasses.replace(ntu.dataset_info(None), **changes))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], r"neither model\.json nor config\.json.*import the weights again with --config"),
        (["--config.data.window=16"], "without --config"),
        (["--config=configs/ntu120.py:xsub,joint"], "another config: model.base_channels: 4 in the workdir, 64 now"),
        ([*_NTU, "--source=nowhere"], "nowhere: no such folder.* set --source to them"),
        (["--config=configs/nw_ucla.py:joint", "--config.model.base_channels=4"], "a model of 120 classes, 25 joints"),
        ([*_NTU, "--labels=nowhere.json"], r"nowhere\.json"),
        ([*_NTU, "--text=blip/head"], "'blip/head' names 0 of the text sets"),
        ([*_NTU, "--joints=neck"], "'neck' is not of the form"),
        (["--source"], "2"),
    ],
)
def test_what_is_missing_is_named(imported, kinect_v1, more, message):
    with pytest.raises(SystemExit, match=message):
        zero_shot.main([f"--workdir={imported}", f"--target={kinect_v1}", *more])


def test_a_run_without_frm_or_a_target_without_text_says_why(imported, kinect_v1):
    target, rows = Records(kinect_v1), np.arange(12)
    config = Config.of(zero_shot.read_config(_NTU[0].removeprefix("--config=")))
    with pytest.raises(ValueError, match="the checkpoint has no FRM"):
        zero_shot.find_refinement({}, config, None, target, rows, "blip")
    params = {"refinement": {"phi_hidden": {"kernel": np.zeros((7, 4))}}}
    with pytest.raises(ValueError, match="blip/holding/token_ids has 3 numbers per clip, but the FRM takes 7"):
        zero_shot.find_refinement(params, config, None, target, rows, "blip")
