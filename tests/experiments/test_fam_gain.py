"""The comparison of FAM's arms: their runs, and the table, by hand. And the linear probe of image features."""

import pathlib
import shutil

import numpy as np
import pytest

from experiments import fam_gain, image_probe
from experiments.launch import LaunchError
from mmcl_jax.data import records
from mmcl_jax.data.records import Records
from tests.helpers.made_up_records import edit_info


def run(arm, config="configs/demo.py", place=("xview", 3), overrides=()):
    return fam_gain.arm_run(config, pathlib.Path("work"), arm, place, overrides, "resnet34", "r.pth")


def test_missing_weights_are_said_before_the_first_run(tmp_path):
    options = ["--config=demo:joint", f"--workdir={tmp_path}/runs", "--arms=skeleton,frozen", "--encoder=resnet34"]
    with pytest.raises(SystemExit, match="no package has weights of 'resnet34'"):
        fam_gain.main(options)
    assert not list(tmp_path.iterdir())


def test_the_arms_differ_in_what_they_are_about():
    configs = {arm: run(arm).read_config() for arm in fam_gain.ARMS}
    fam = {arm: config.loss.contrastive_weight > 0 for arm, config in configs.items()}
    frm = {arm: config.loss.refinement_weight > 0 for arm, config in configs.items()}
    assert [arm for arm, on in fam.items() if not on] == ["skeleton", "frm"]
    assert [arm for arm, on in frm.items() if on] == ["frm", "both"]
    models = {arm: config.model for arm, config in configs.items()}
    assert [arm for arm, model in models.items() if model.image_encoder_frozen] == ["frozen", "shuffled"]
    assert [arm for arm, config in configs.items() if config.data.shuffled_images] == ["shuffled"]
    weights = {arm: (model.image_encoder, model.image_encoder_weights) for arm, model in models.items()}
    assert weights["trained"] == weights["frozen"] == ("resnet34", "r.pth") and weights["random"] == ("resnet34", "")
    assert weights["both"] == ("small_cnn", "")
    assert {(config.data.protocol, config.seed) for config in configs.values()} == {("xview", 3)}
    assert run("both").workdir == pathlib.Path("work/xview/seed_3/both")


def test_an_arm_that_the_config_switches_off_is_refused():
    with pytest.raises(LaunchError, match=r"the arm both needs loss\.refinement_weight above 0"):
        run("both", "configs/videos.py", ("split", 0))
    assert run("frozen", "configs/videos.py:split,joint", ("split", 0)).read_config().loss.refinement_weight == 0


def test_table_by_hand():
    accuracies = {
        "skeleton": {("a", 0): 80.0, ("b", 0): 90.0, ("a", 1): 70.0},
        "frozen": {("a", 0): 82.0, ("b", 0): 90.0, ("a", 1): 76.0, ("b", 1): 99.0},  # the last has no partner
        "random": {("a", 0): 79.0},
        "trained": {},
    }
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in fam_gain.table(accuracies).splitlines()]
    assert [row[0] for row in rows[2:]] == ["skeleton", "frozen", "random"]
    assert rows[2][1:] == ["3", "80.0", "10.6", "-", "-"]  # means over the protocols: 85 and 70
    # Differences 2, 0, 6: mean 2.67, deviation 3.06, t(2) = 4.303.
    assert rows[3][1:] == ["4", "86.8", "1.1", "+2.7 ± 7.6", "2, 1, 0"]
    assert rows[4][1:] == ["1", "79.0", "-", "-1.0", "0, 0, 1"]


def test_a_linear_probe_finds_what_the_features_say_and_nothing_else():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    said = np.concatenate([np.eye(3)[labels] * 2 + rng.normal(0, 0.3, (90, 3)), rng.normal(0, 9, (90, 5))], axis=1)
    said[:, 7] = 4.0  # a constant feature
    train, test = np.arange(60), np.arange(60, 90)
    assert image_probe.probe(said, labels, train, test, 0.1) > 0.9
    assert image_probe.probe(said[:, 3:], labels, train, test, 0.1) < 0.65
    weights, biases = image_probe.fit(np.zeros((4, 1)), np.array([0, 0, 0, 1]), 2, 0.1)
    np.testing.assert_allclose(weights, 0, atol=1e-6)
    assert biases[0] - biases[1] == pytest.approx(np.log(3), abs=1e-3)


def test_the_probe_takes_every_protocol_but_those_of_a_validation_part(tiny_records, tmp_path, capsys):
    shutil.copytree(tiny_records, tmp_path / "divided")

    def divide(info: dict) -> None:
        by_subject = {"field": "subject", "train": [1], "num_classes": None}
        info["protocols"] = {
            "fold_1": {**by_subject, "test": [2]},
            "fold_1_validation": {**by_subject, "test": [4]},
            "cross_validation": {**by_subject, "test": [4]},  # somebody's own, of which no other is a part
        }

    edit_info(tmp_path / "divided", divide)
    image_probe.main([f"--records={tmp_path / 'divided'}", "--encoder=small_cnn", "--weights="])
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    known = [name for name in Records(tmp_path / "divided").protocols if name != "fold_1_validation"]
    assert [line[0] for line in lines[2:]] == [*known, "all test clips"]
    assert {"fold_1", "cross_validation"} <= set(known)
    assert sum(int(line[2]) for line in lines[2:-1]) == int(lines[-1][2])
    assert all(0 <= float(line[3]) <= 100 for line in lines[2:])


def test_clips_without_images_cannot_be_probed(tiny_records, tmp_path):
    """Neither records without one, nor a protocol whose test clips have none."""
    known = Records(tiny_records)
    rows = np.flatnonzero(known.index["subject"] != 4)
    clips = [
        records.Clip(
            str(known.index["name"][row]),
            int(known.index["label"][row]),
            *(int(known.index[field][row]) for field in ("subject", "camera", "setup", "replication")),
            known.skeleton(row).transpose(1, 0, 2, 3),
        )
        for row in range(len(known))
    ]
    for folder, pictured in (("none", ()), ("some", rows)):
        for row in pictured:
            clips[row].image = known.image_file(row)
        records.write_records(tmp_path / folder, known.info, clips, total=len(clips))
    with pytest.raises(SystemExit, match="none: no clip has an image"):
        image_probe.main([f"--records={tmp_path / 'none'}", "--encoder=small_cnn", "--weights="])
    with pytest.raises(SystemExit, match="24 clips with an image train and 0 test"):
        image_probe.main([f"--records={tmp_path / 'some'}", "--encoder=small_cnn", "--weights=", "--protocols=xsub"])


def test_seeds_that_are_no_numbers_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="--seeds=0,one: expected different whole numbers"):
        fam_gain.main(["--config=configs/demo.py", f"--workdir={tmp_path}", "--seeds=0,one"])
