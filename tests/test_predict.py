"""The command: clips, records, poses and folders of them in; lines, files and clear errors out."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest

from mmcl_jax import bundle, predict
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.data.records import Clip, DatasetInfo, write_records
from tests.helpers import documents
from tests.recognition import people

pytestmark = pytest.mark.usefixtures("shallow")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A model, and a folder of inputs for it: a clip, poses, records."""
    folder = tmp_path_factory.mktemp("inputs")
    random = np.random.default_rng(0)
    clip = random.uniform(1, 400, (20, 17, 3)).astype(np.float32)
    clip[..., 2] = 1
    np.save(folder / "clip.npy", clip)
    info = DatasetInfo("own", "coco", "pixels", people.CLASSES, channels=("x", "y", "confidence"))
    clips = [Clip(f"c{i}", i, 1, 1, 1, 1, skeleton=clip[:, None] + i) for i in range(2)]
    write_records(folder / "records", info, iter(clips))
    return folder


@pytest.fixture
def model(tmp_path):
    """A bundle of a tiny model with random weights."""
    made = people.tiny_model(frame_rate=10.0)
    variables = {kind: {"backbone": tree} for kind, tree in made.variables.items()}
    bundle.write_bundle(tmp_path / "model", made.description, variables, bundle.Provenance())
    return tmp_path / "model"


def test_a_folder_of_a_clip_and_records(inputs, model, tmp_path, capsys):
    out, table = tmp_path / "events.json", tmp_path / "events.csv"
    predict.main([f"--model={model}", str(inputs), f"--json={out}", f"--csv={table}", "--top=2"])
    events = [json.loads(line) for line in out.read_text().splitlines()]
    assert [event["input"] for event in events] == [
        f"{inputs}/clip.npy",
        f"{inputs}/records/c0",
        f"{inputs}/records/c1",
    ]
    for event in events:
        assert (event["person"], event["start"], event["end"], event["whole"]) == (0, 0.0, 2.0, True)
        assert len(event["top"]) == 2 and event["top"][0][0] in people.CLASSES
    assert events[0]["top"] == events[1]["top"]
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 3 and events[0]["top"][0][0] in lines[0]
    assert all(f"{path}: written" in printed.err for path in (out, table))
    assert printed.err.count(f"{model}: compiling the model for ") == 1
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert [rows[0]["rank"], rows[0]["action"]] == ["1", events[0]["top"][0][0]]


def test_one_bad_input_of_several_is_named_and_the_others_are_done(inputs, model, tmp_path, capsys):
    shutil.copy(inputs / "clip.npy", tmp_path / "good.npy")
    bad = np.load(inputs / "clip.npy")
    bad[3, 4] = np.nan
    np.save(tmp_path / "bad.npy", bad)
    with pytest.raises(SystemExit) as ended:
        predict.main([f"--model={model}", str(tmp_path / "bad.npy"), str(tmp_path / "good.npy"), "--json=-", "--quiet"])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert [json.loads(line)["input"] for line in printed.out.splitlines()] == [str(tmp_path / "good.npy")]
    assert f"{tmp_path}/bad.npy: NaN or infinite values in 1 of 20 frames" in printed.err
    assert "1 of 2 inputs could not be classified" in printed.err


def test_a_high_threshold_makes_every_action_unknown(inputs, model, capsys):
    predict.main([f"--model={model}", str(inputs / "clip.npy"), "--threshold=1", "--json=-", "--quiet"])
    printed = capsys.readouterr()
    event = json.loads(printed.out)
    assert printed.err == ""
    assert event["top"][0][0] is None and event["top"][1][0] in people.CLASSES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give inputs or --camera=0"),
        (["a.mp4", "--camera=0"], "one of the two"),
        (["nowhere.mp4"], "nowhere.mp4: no such file or folder"),
        (["README.md"], "README.md: neither a video"),
        (["CHANGELOG.md", "--fps=-1"], "--fps=-1: expected frames a second"),
        (["CHANGELOG.md", "--out=c.avi"], "expected a name that ends in .mp4"),
        (["a.mp4", "--json=no/folder/x.json"], "the folder no/folder does not exist"),
        (["a.mp4", "--window=0"], "--window=0: expected seconds"),
    ],
)
def test_what_does_not_fit_is_refused(model, arguments, message, monkeypatch):
    from tests.helpers.runs import ROOT

    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match=message):
        predict.main([f"--model={model}", *arguments])


def test_outputs_that_would_overwrite_or_mix_inputs_are_refused_before_anything_is_written(inputs, model, tmp_path):
    clip = shutil.copy(inputs / "clip.npy", tmp_path / "clip.npy")
    before = clip.read_bytes()
    with pytest.raises(SystemExit, match=r"is an input, which it would overwrite"):
        predict.main([f"--model={model}", str(clip), f"--json={clip}"])
    assert clip.read_bytes() == before
    kept = tmp_path / "events.json"
    kept.write_text("earlier")
    for arguments in (["nowhere.mp4"], [str(clip), "--html=page.html"], [str(inputs), f"--html={tmp_path / 'p.html'}"]):
        with pytest.raises(SystemExit, match=r"no such file|shows a video or poses|holds one input, but there are 2"):
            predict.main([f"--model={model}", *arguments, f"--json={kept}"])
    assert kept.read_text() == "earlier"


def test_records_of_another_layout_are_mapped_and_of_another_kind_refused(model, tmp_path, capsys):
    joints, confidence, _ = people.poses((0, 19)).dense()
    clip = np.concatenate([joints, confidence[..., None]], -1)
    order = np.arange(16, -1, -1)
    layout = dataclasses.replace(
        LAYOUTS["coco"],
        joints=LAYOUTS["coco"].joints[::-1],
        bones=tuple((16 - joint, 16 - parent) for joint, parent in LAYOUTS["coco"].bones),
        centre=16 - LAYOUTS["coco"].centre,
    )
    channels = ("x", "y", "confidence")
    for name, info, values in (
        ("coco", DatasetInfo("own", "coco", "pixels", people.CLASSES, channels=channels), clip),
        ("back", DatasetInfo("own", layout, "pixels", people.CLASSES, channels=channels), clip[:, :, order]),
        ("flat", DatasetInfo("own", "coco", "pixels", people.CLASSES, channels=channels[:2]), clip[..., :2]),
    ):
        write_records(tmp_path / name, info, iter([Clip("c", 0, 1, 1, 1, 1, skeleton=values)]))
    capsys.readouterr()
    for name in ("coco", "back"):
        predict.main([f"--model={model}", str(tmp_path / name), "--json=-"])
    one, other = (json.loads(line)["top"] for line in capsys.readouterr().out.splitlines())
    assert one == other
    with pytest.raises(SystemExit, match=r"joints of x, y in pixels, the model takes x, y, confidence"):
        predict.main([f"--model={model}", str(tmp_path / "flat")])


def test_a_model_that_is_none(inputs, tmp_path):
    with pytest.raises(SystemExit, match=r"neither model\.json nor config\.json"):
        predict.main([f"--model={tmp_path}", str(inputs / "clip.npy")])


def test_poses_from_a_file_and_the_lines_of_the_page(model, tmp_path, monkeypatch, capsys):
    joints, confidence, _ = people.poses((0, 39)).dense()
    np.savez(tmp_path / "poses.npz", keypoint=np.concatenate([joints, confidence[..., None]], -1)[:, 0])
    arguments = [f"--model={model}", str(tmp_path / "poses.npz"), "--layout=coco", "--window=2", "--json=-", "--quiet"]
    predict.main([*arguments, f"--html={tmp_path / 'page.html'}", "--coordinates=pixels", "--fps=10", "--size=640x480"])
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["whole"] for event in events] == [False] * 4 + [True]
    assert (events[0]["start"], events[0]["end"], events[-1]["end"]) == (0.0, 2.0, 4.0)
    assert (tmp_path / "page.html").exists()
    monkeypatch.chdir(tmp_path)
    exec(documents.code_blocks()["watch_poses.py"], {})
    assert len(capsys.readouterr().out.splitlines()) >= 2
