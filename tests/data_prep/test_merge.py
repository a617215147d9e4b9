"""Joined records: classes, joints, frame rates and subjects; and the variations of clips."""

import dataclasses

import numpy as np
import pytest

from data_prep import merge
from data_prep.preparation import variations
from mmcl_jax.data import records
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.runtime.errors import PreparationError

BODY13 = LAYOUTS["body13"]
JOINT = {name: number for number, name in enumerate(BODY13.joints)}
_HEIGHTS = {"nose": 1.6, "shoulder": 1.4, "elbow": 1.1, "wrist": 0.85, "hip": 0.9, "knee": 0.45, "ankle": 0.0}


def standing(frames: int) -> np.ndarray:
    """Someone who faces the sensor, `[1, T, 13, 3]`: the left side at smaller x, y up, z away."""
    pose = [
        (0.2 * ((name[0] == "r") - (name[0] == "l")), next(h for key, h in _HEIGHTS.items() if key in name), 3.0)
        for name in BODY13.joints
    ]
    return np.tile(np.array(pose, np.float32), (1, frames, 1, 1))


def walking(frames: int = 20) -> np.ndarray:
    """On the spot: the knees go up in turn."""
    clip = standing(frames)
    for side, phase in (("left", 0.0), ("right", np.pi)):
        clip[0, :, JOINT[f"{side} knee"], 1] += 0.2 * np.maximum(np.sin(np.arange(frames) + phase), 0)
    return clip


@pytest.fixture(scope="module")
def two_records(tmp_path_factory):
    """Records 'nw_ucla' with walk and drop, and 'utd_mhad' with wave and walk on the spot; each with two subjects."""
    found = []
    for dataset, classes in (("nw_ucla", ("walk around", "drop")), ("utd_mhad", ("wave", "walk"))):
        root = tmp_path_factory.mktemp("merged") / dataset
        layout = LAYOUTS[dataset]
        clips = []
        for label, subject in ((0, 1), (0, 2), (1, 1), (1, 2)):
            body = walking(21)
            skeleton = np.zeros((21, 1, layout.num_joints, 3), np.float32)
            for joint, name in enumerate(layout.joints):
                skeleton[:, 0, joint] = body[0, :, JOINT.get(name, JOINT["nose"])]
            clips.append(records.Clip(f"a{label}_s{subject}", label, subject, 1, 1, 1, skeleton))
        info = records.DatasetInfo(dataset, dataset, "metres", classes)
        records.write_records(root, info, clips)
        found.append(str(root))
    return found


TABLE = "dataset,class,joined\nnw_ucla,walk around,walk\n,drop,\n,wave,wave\nutd_mhad,walk,walk\n"


def test_joined_records(two_records, tmp_path, capsys):
    table, out = tmp_path / "classes.csv", tmp_path / "out"
    table.write_text(TABLE)
    merge.main(
        [
            "--records", *two_records, "--out", str(out), "--layout", "body13", "--classes", str(table),
            "--rates", "10", "30", "--rate", "15", "--travel", "walk:0.9,0.9", "--restyle", "wave:1",
            "--at_least", "5", "--test_subjects", "nw_ucla:2", "utd_mhad:2",
        ]
    )  # fmt: skip
    assert "utd_mhad: subject 1 is subject 3" in capsys.readouterr().out
    joined = records.Records(out)
    assert joined.info.class_names == ("walk", "wave")
    assert (joined.info.layout, joined.info.frame_rate) == ("body13", 15)
    names = joined.index["name"].tolist()
    by_name = {name: row for row, name in enumerate(names)}
    frames = {name: int(joined.index["num_frames"][row]) for name, row in by_name.items()}
    assert frames["nw_ucla_a0_s1"] == 31  # 2 s
    assert frames["utd_mhad_a1_s1"] == 11  # 0.67 s
    assert not any("a1_s1" in name and name.startswith("nw_ucla") for name in names)  # left out
    subjects = {name: int(joined.index["subject"][row]) for name, row in by_name.items()}
    assert (subjects["nw_ucla_a0_s2"], subjects["utd_mhad_a0_s2"]) == (2, 4)
    train, test = joined.protocol("xsub").masks(joined.index)
    assert set(joined.index["subject"][test].tolist()) == {2, 4}
    assert np.bincount(joined.index["label"][train]).tolist() == [5, 5]
    assert "utd_mhad_a0_s1_restyled1" in names
    assert "utd_mhad_a0_s2_restyled1" not in names
    spot, moved = (joined.skeleton(by_name[f"utd_mhad_a1_s1{end}"])[0] for end in ("", "_travelling1"))
    way = (moved - spot)[-1].mean(axis=0)
    assert 0.2 < np.linalg.norm(way) < 11 * 0.9 / 15 + 1e-3
    assert way[2] < -0.1  # ahead: towards the sensor
    np.testing.assert_allclose(moved - spot, np.broadcast_to((moved - spot)[:, :1], moved.shape), atol=1e-5)


def test_classes_of_the_same_name_become_one(two_records, tmp_path):
    merge.merge(two_records, str(tmp_path / "out"))
    joined = records.Records(tmp_path / "out")
    assert joined.info.class_names == ("walk around", "drop", "wave", "walk")
    assert (joined.info.layout, joined.info.frame_rate) == ("nw_ucla", 0)


def test_unknown_subjects_are_nobody_of_the_other_records(two_records, tmp_path):
    """Otherwise they would test with the last subject of the records before."""
    opened = records.Records(two_records[1])
    unknown = [
        records.Clip(str(name), int(label), 0, 1, 1, 1, opened.skeleton(row).transpose(1, 0, 2, 3))
        for row, (name, label) in enumerate(zip(opened.index["name"], opened.index["label"], strict=True))
    ]
    records.write_records(tmp_path / "unknown", opened.info, unknown)
    roots = [two_records[0], str(tmp_path / "unknown"), str(tmp_path / "unknown")]
    assert merge.first_subjects([records.Records(root) for root in roots]) == [0, 3, 4]
    merge.merge(roots[:2], str(tmp_path / "out"), tested=["nw_ucla:2"])
    joined = records.Records(tmp_path / "out")
    assert np.unique(joined.index["subject"]).tolist() == [1, 2, 3]
    _, test = joined.protocol("xsub").masks(joined.index)
    assert all(name.startswith("nw_ucla_") for name in joined.index["name"][test])


def test_records_that_say_their_frame_rate(two_records, tmp_path):
    """A second of each, at 20 and 40 frames: not joined as they are, and as many frames each at a common rate."""
    opened = records.Records(two_records[0])
    roots = [str(tmp_path / str(rate)) for rate in (20, 40)]
    for root, rate in zip(roots, (20, 40), strict=True):
        skeleton = np.zeros((rate + 1, 1, opened.info.skeleton_layout.num_joints, 3), np.float32)
        skeleton[..., 1] = 1
        info = dataclasses.replace(opened.info, frame_rate=rate)
        records.write_records(root, info, [records.Clip(f"a{rate}", 0, 1, 1, 1, 1, skeleton)])
    with pytest.raises(PreparationError, match=r"different frame rates \(.*20, .*40\); --rate joins them at one"):
        merge.merge(roots, str(tmp_path / "none"))
    merge.merge(roots, str(tmp_path / "both"), rate=10)
    joined = records.Records(tmp_path / "both")
    assert (joined.info.frame_rate, joined.index["num_frames"].tolist()) == (10, [11, 11])
    merge.merge(roots[:1], str(tmp_path / "same"))
    assert records.Records(tmp_path / "same").info.frame_rate == 20
    with pytest.raises(PreparationError, match=r"nw_ucla does not say its frame rate; --rates needs one for each"):
        merge.merge([roots[0], two_records[0]], str(tmp_path / "none"), rate=10)


@pytest.mark.parametrize(
    ("table", "more", "message"),
    [
        ("class,joined\n", [], "header"),
        (TABLE + ",jump, high,\n", [], "line 6: more cells than the 3 columns"),
        (TABLE.replace(",drop,\n", ""), [], "'drop' .* has no row"),
        (TABLE + ",jump,\n", [], "jump.* none of the records has"),
        (TABLE, ["--travel", "run:1,2"], "--travel 'run:1,2' is not CLASS"),
        (
            TABLE,
            ["--rates", "10", "30", "--rate", "15", "--travel", "walk:0,inf"],
            "--travel 'walk:0,inf' is not CLASS",
        ),
        (TABLE, ["--restyle", "walk:x"], "--restyle 'walk:x'"),
        (TABLE, ["--rates", "10", "--rate", "15"], "one number for each of 2"),
        (TABLE, ["--test_subjects", "ntu:1"], "none of the records is of the dataset 'ntu'"),
        (TABLE, ["--test_subjects", "nw_ucla:9"], r"nw_ucla has the subjects \[1, 2\]"),
        (TABLE, ["--layout", "body14"], "'body14' is not one of"),
    ],
)
def test_what_does_not_fit_is_refused(two_records, tmp_path, table, more, message):
    path = tmp_path / "classes.csv"
    path.write_text(table)
    with pytest.raises(SystemExit, match=message):
        merge.main(["--records", *two_records, "--out", str(tmp_path / "out"), "--classes", str(path), *more])
    assert not (tmp_path / "out").exists()


def test_who_travels_already_is_left_as_it_is():
    clip = walking()
    clip[..., 0] += np.linspace(0, 2, 20)[:, None]
    assert variations.travelling(clip, BODY13, 0.1, 0.0) is None
    turned = variations.travelling(walking(), BODY13, 0.1, np.pi)
    assert turned is not None
    assert (turned - walking())[0, -1, 0, 2] > 0.1  # backwards


def test_another_style_keeps_the_legs_and_leans_forward_where_the_hips_are_low():
    clip = standing(21)
    low = 0.5 * np.sin(np.linspace(0, np.pi, 21))  # down and up
    legs = [JOINT[f"{side} {name}"] for side in ("left", "right") for name in ("knee", "ankle")]
    upper = [joint for joint in range(13) if joint not in legs]
    clip[0, :, upper, 1] -= low
    lean, wrists = [], []
    for seed in range(12):
        changed = variations.restyled(clip, BODY13, np.random.default_rng(seed))
        np.testing.assert_allclose(changed[:, :, [*legs, JOINT["left hip"]]], clip[:, :, [*legs, JOINT["left hip"]]])
        np.testing.assert_allclose(changed[0, 0, JOINT["nose"]], clip[0, 0, JOINT["nose"]], atol=1e-5)
        ahead = clip[0, 10, JOINT["nose"], 2] - changed[0, 10, JOINT["nose"], 2]  # towards the sensor
        trunk = np.linalg.norm(changed[0, 10, JOINT["nose"]] - changed[0, 10, JOINT["left hip"]])
        assert trunk == pytest.approx(np.linalg.norm(clip[0, 10, JOINT["nose"]] - clip[0, 10, JOINT["left hip"]]), 1e-3)
        lean.append(ahead)
        wrists.append(changed[0, 0, JOINT["left wrist"]])
    assert min(lean) > -1e-5
    assert max(lean) > 0.2
    assert np.std(wrists, axis=0).max() > 0.1
