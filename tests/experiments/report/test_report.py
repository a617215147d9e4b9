"""The page of a run: numbers against hand calculation, text that stays text, runs that are damaged or do not fit."""

import json

import numpy as np
import pytest

from experiments import scores
from experiments.report import __main__ as report
from experiments.report import content, page
from experiments.report.matrices import _refinement, _topologies
from experiments.report.runs import ReportError, read_runs
from experiments.scores import ScoresError
from mmcl_jax.data import records
from mmcl_jax.metrics import cross_entropies
from mmcl_jax.run_log import WorkdirError
from mmcl_jax.viewers import html_page
from tests.helpers import runs as tiny
from tests.helpers import score_files
from tests.viewers.test_html_page import Elements

HOSTILE = "</script><script>alert(1)</script>"
METRICS = (
    "epoch,step,learning_rate,train_loss,train_top1,test_loss,test_top1\n1,4,0.1,2,0.25,,\n2,8,0.1,1,0.5,1.5,0.75\n"
)


def make_run(folder, *, scored=True, records="", metrics=METRICS, **changes):
    folder.mkdir()
    config = {"num_epochs": 2, "seed": 3, "data": {"records": str(records), "stream": "joint"}, "model": {}}
    (folder / "config.json").write_text(json.dumps(config))
    if metrics is not None:
        (folder / "metrics.csv").write_text(metrics)
    if scored:
        score_files.write(folder / "scores_test.npz", **changes)
    return folder


def data_of(*folders, clips=5, moved=None):
    return page.page_data(read_runs(list(folders)), clips, moved)


def test_confusions_and_gains_are_those_counted_by_hand(tmp_path):
    # throw_1 (true class 2) is taken for walk by the first, and known by the second, which takes sit_1 for throw.
    better = np.array([[2.0, 1, 0], [0, 1, 2], [0, 0, 2]], np.float32)
    data = data_of(make_run(tmp_path / "a"), make_run(tmp_path / "b", scores=better))
    first, second = (run["confusion"] for run in data["runs"])
    assert first["cells"] == [[0, 0, 1], [1, 1, 1], [2, 0, 1]]
    assert first["pairs"] == [[2, 0, 1]]
    assert second["pairs"] == [[1, 2, 1]]
    assert first["counts"] == [1, 1, 1]
    assert first["top1"] == pytest.approx(2 / 3)
    assert data["gains"] == [[[2, 1, 0.0, 100.0, 100.0], [0, 1, 100.0, 100.0, 0.0], [1, 1, 100.0, 0.0, -100.0]]]


def test_the_hardest_clips_come_first_with_their_likeliest_classes(tmp_path):
    file = scores.read_together([make_run(tmp_path / "a")])[0]
    # log(sum of exp) - score of the true class, by hand
    expected = [
        np.log(np.exp([2, 1, 0]).sum()) - 2,
        np.log(np.exp([1, 2, 0]).sum()) - 2,
        np.log(np.exp([3, 0, 2]).sum()) - 2,
    ]
    np.testing.assert_allclose(cross_entropies(file.scores, file.labels), expected, rtol=1e-12)
    hardest = content.hardest([file], 2)
    assert [clip["name"] for clip in hardest] == ["throw_1", "walk_1"]
    assert [label for label, _ in hardest[0]["runs"][0]["top5"]] == [0, 2, 1]
    assert hardest[0]["runs"][0]["top5"][0][1] == round(float(np.exp(3) / np.exp([3, 0, 2]).sum()), 4)


def test_hardness_is_the_mean_over_runs(tmp_path):
    other = np.array([[0.0, 9, 0], [1, 2, 0], [0, 0, 9]], np.float32)
    files = scores.read_together([make_run(tmp_path / "a"), make_run(tmp_path / "b", scores=other)])
    assert [clip["name"] for clip in content.hardest(files, 3)] == ["walk_1", "throw_1", "sit_1"]


def test_names_stay_text(tmp_path):
    data = data_of(make_run(tmp_path / "a", class_names=np.array(["walk", HOSTILE, "throw"])))
    elements = Elements(page.make_page(data))
    assert json.loads(elements.text("script")[0]) == json.loads(json.dumps(data))
    assert len(elements.text("script")) == 6
    assert "alert" not in "".join(elements.text("script")[1:])
    (policy,) = (attributes["content"] for _, attributes in elements.tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none';")


def test_what_an_unfinished_run_lacks_is_said(tmp_path):
    unfinished = METRICS.rsplit("2,8", 1)[0]
    data = data_of(make_run(tmp_path / "a", scored=False, metrics=unfinished), make_run(tmp_path / "b", metrics=None))
    first, second = (" ".join(run["missing"]) for run in data["runs"])
    assert "scores_test.npz: not evaluated" in first
    assert "1 of 2 epochs" in first
    assert "no learned matrices" in first
    assert "no epoch has been logged" in second
    assert data["scored"] == [1]
    assert data["runs"][0]["curves"] == [[1, 2, None, 0.25, None, 0.1]]
    page.make_page(data)


def test_figures_are_the_last_epoch_s(tmp_path):
    best_first = METRICS.replace("2,0.25,,", "2,0.25,1,0.99")
    assert data_of(make_run(tmp_path / "a", metrics=best_first))["runs"][0]["last"]["test_top1"] == 0.75


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"names": np.array(["walk_1", "sit_1", "sit_9"])}, "b/scores_test.npz: not the clips of .*a/scores_test.npz"),
        ({"class_names": np.array(["walk", "sit", "wave"])}, "b/scores_test.npz: class 'wave' is 'throw'"),
        ({"labels": np.array([0, 1, 1])}, "b/scores_test.npz: labels of 1 clips"),
    ],
)
def test_runs_that_do_not_fit_are_refused(tmp_path, changes, said):
    with pytest.raises(ScoresError, match=said):
        read_runs([make_run(tmp_path / "a"), make_run(tmp_path / "b", **changes)])


def test_damaged_runs_are_refused(tmp_path):
    with pytest.raises(ReportError, match=r"config.json: no such file"):
        read_runs([tmp_path])
    with pytest.raises(ReportError, match=r"metrics.csv: damaged .*resume"):
        read_runs([make_run(tmp_path / "a", metrics="epoch,step\n1,two\n")])
    broken = make_run(tmp_path / "b")
    (broken / "config.json").write_text("{")
    with pytest.raises(WorkdirError, match=r"config.json: unreadable"):
        read_runs([broken])
    with pytest.raises(ReportError, match="named twice"):
        read_runs([tmp_path / "a", tmp_path / "a"])


def test_runs_are_called_by_what_tells_them_apart(tmp_path):
    folders = [tmp_path / name for name in ("a/joint/0", "b/joint/0", "b/joint/1")]
    for folder in folders:
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_run(folder)
    assert [run.name for run in read_runs(folders)] == ["a/joint/0", "b/joint/0", "1"]


def test_what_is_no_run_is_told_apart(tmp_path):
    with pytest.raises(ReportError, match=r"gone: no such folder; name the --workdir"):
        read_runs([tmp_path / "gone"])
    run = make_run(tmp_path / "a")
    with pytest.raises(ReportError, match=r"scores_test.npz: not a folder"):
        read_runs([run / "scores_test.npz"])
    with pytest.raises(ReportError, match=rf"name one or more of the runs in it: {run}"):
        read_runs([tmp_path])


def test_a_line_that_was_cut_off_is_left_out_and_said(tmp_path):
    run = make_run(tmp_path / "a", metrics=METRICS[: METRICS.rindex("5\n")])  # 0.75 became 0.7
    data = data_of(run)["runs"][0]
    assert data["curves"] == [[1, 2, None, 0.25, None, 0.1]]
    assert "metrics.csv: the last line is incomplete" in " ".join(data["missing"])


def test_scores_of_another_step_than_the_last_epoch_s_are_said(tmp_path):
    matching, older = make_run(tmp_path / "a", step=np.array(8)), make_run(tmp_path / "b", step=np.array(7))
    first, second = (" ".join(run["missing"]) for run in data_of(matching, older)["runs"])
    assert "of step" not in first
    assert "scores_test.npz: scores of step 7, but the last epoch in metrics.csv ended at step 8" in second


@pytest.mark.parametrize("part", [None, 5, [1], {"records": 5, "base_channels": "many"}])
def test_a_config_of_another_kind_costs_nothing_else(tmp_path, part):
    run = make_run(tmp_path / "a")
    (run / "config.json").write_text(json.dumps({"data": part, "model": part, "num_epochs": float("nan")}))
    data = data_of(run)
    page.make_page(data)
    assert "names no records" in data["records_problem"]
    assert len(data["hardest"]) == 3


def test_clips_come_from_the_records_where_they_are(tmp_path):
    tiny.write_tiny_records(tmp_path / "records")
    with np.load(tmp_path / "records" / "index.npz") as index:
        names = index["name"][:2]
    arrays = {"names": np.array([*names, "gone"])}
    run = make_run(tmp_path / "a", records=tmp_path / "moved", **arrays)
    data = data_of(run)
    assert "moved" in data["records_problem"]
    assert len(data["hardest"]) == 3  # their scores are shown all the same
    assert not any("skeleton" in clip for clip in data["hardest"])
    data = data_of(run, moved=tmp_path / "records")
    assert data["records_problem"] is None
    assert ["skeleton" in clip for clip in data["hardest"]] == [clip["name"] != "gone" for clip in data["hardest"]]
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "clips": "others"}))
    data = data_of(run, moved=tmp_path / "records")
    assert "not the clips that a was trained on; set --records to the right ones" in data["records_problem"]


def test_matrices_are_shown_beside_what_they_began_as():
    began = np.arange(18.0).reshape(2, 3, 3)
    flat = {("blocks_0", "topology", "PA"): began + 1, ("blocks_0", "topology", "alpha"): np.array([0.25])}
    shown = _topologies(flat, [("blocks_0", "topology", "PA")], began)
    assert shown["slices"] == ["subset 1", "subset 2"]
    assert shown["initial"] == began.tolist()
    assert shown["blocks"] == [{"name": "block 1", "alpha": 0.25, "learned": (began + 1).tolist()}]
    assert _refinement({"matrices": np.array([[1.0, 2.0]])}) == [{"name": "term 1", "diagonal": [1.0, 2.0]}]


def test_a_page_of_500_clips_and_120_classes_is_small(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 120, 500)
    made = {
        "names": np.array([f"clip_{number:03}" for number in range(500)]),
        "scores": rng.normal(size=(500, 120)).astype(np.float32),
        "labels": labels,
        "class_names": np.array([f"class {number}" for number in range(120)]),
    }
    data = data_of(make_run(tmp_path / "a", **made), clips=500)
    assert len(page.make_page(data).encode()) < 1_000_000
    assert sum(count for *_, count in data["runs"][0]["confusion"]["cells"]) == 500


def test_skeletons_lose_frames_until_they_fit(tmp_path):
    tiny.write_tiny_records(tmp_path / "records")
    opened = records.Records(tmp_path / "records")

    def size(room):
        clips = [{"name": name} for name in opened.index["name"].tolist()]
        content.add_skeletons(clips, opened, room)
        return len(json.dumps([clip["skeleton"] for clip in clips]))

    whole = size(10_000_000)
    assert size(whole * 3 // 4) < whole * 3 // 4


def test_a_page_that_is_too_large_says_what_makes_it_smaller(tmp_path, monkeypatch):
    data = data_of(make_run(tmp_path / "a"), clips=3)
    each = len(json.dumps(data["hardest"][0], separators=(",", ":")))
    size = len(page.make_page(data).encode())
    assert not any("MB" in note for note in page.notes(data, size))
    monkeypatch.setattr(page, "MOST_BYTES", size - each // 2)
    assert "--clips 2 would keep it smaller" in page.notes(data, size)[-1]
    monkeypatch.setattr(page, "MOST_BYTES", size - 4 * each)
    assert "its matrices are too large already" in page.notes(data, size)[-1]
    assert "name fewer runs" in page.notes({**data, "runs": 2 * data["runs"]}, size)[-1]


def test_the_command_replaces_its_own_page_and_nothing_else(tmp_path):
    run, out = make_run(tmp_path / "a"), tmp_path / "report.html"
    for _ in range(2):
        report.main([str(run), "--out", str(out)])
    assert out.read_text().count(html_page.SCRIPT.read_text()) == 1
    out.write_text("mine")
    with pytest.raises(SystemExit, match="not a page of this command"):
        report.main([str(run), "--out", str(out)])
    assert out.read_text() == "mine"
