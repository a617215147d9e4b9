"""Accuracy on videos from JSON lines and labels, and the calibration of 'nothing that I know'."""

import json

import numpy as np
import pytest

from experiments import calibrate, video_accuracy


def line(name: str, *actions, whole: bool = True, end: float = 3.0) -> str:
    top = [[action, 0.5] for action in actions]
    return json.dumps({"input": name, "person": 1, "start": 0.0, "end": end, "whole": whole, "top": top})


def test_the_report_counts_answers_refusals_and_splits(tmp_path, capsys):
    predictions, labels = tmp_path / "p.jsonl", tmp_path / "l.csv"
    predictions.write_text(
        "\n".join(
            [
                line("v/a/1.mp4", "walk", "jog", "wave"),
                line("v/a/1.mp4", "jog", whole=False, end=99.0),  # a window does not count
                line("v/a/1.mp4", "wave", end=1.0),  # a person who was there for a shorter time
                line("v/a/2.mp4", "jog", "walk", "wave"),
                line("v/a/3.mp4", None, "walk", "wave"),
                line("v/b/1.mp4", None, "walk"),
                line("v/b/2.mp4", "wave", "walk"),
                line("v/c/1.mp4", "stand up", "walk"),
            ]
        )
    )
    labels.write_text(
        "clip,action,split\na/1.mp4,walk,one\na/2.mp4,walk,one\na/3.mp4,walk,one\nb/1.mp4,,one\nb/2.mp4,,one\n"
        "c/1.mp4,sit down|stand up,two\na/9.mp4,walk,two\n"
    )
    video_accuracy.main([str(predictions), "--labels", str(labels), "--split", "one"])
    text = capsys.readouterr().out
    assert "3 clips of known actions" in text
    assert "| every answer | 66.7 | 66.7 | 100.0 | 100.0 |" in text
    assert "is wrong | 33.3 | 33.3 | 66.7 | 66.7 |" in text
    assert "2 clips of unknown actions: 50.0 % refused" in text
    assert "| walk | 3 | 2 | 3 | walk 1, jog 1, nothing that I know 1 |" in text
    video_accuracy.main([str(predictions), "--labels", str(labels), "--split", "two"])
    text = capsys.readouterr().out
    assert "| every answer | 50.0 | 50.0 | 50.0 | 50.0 |" in text  # nobody was found in a/9.mp4


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        (
            line("a.mp4", "walk") + "\n{",
            "clip,action,split\na.mp4,walk,\n",
            "p.jsonl, line 2: not a JSON line of mmcl_jax",
        ),
        ('{"whole":' + "[" * 100_000, "clip,action,split\na.mp4,walk,\n", "line 1: .*nested too deeply"),
        (line("a.mp4", "walk", end=float("nan")), "clip,action,split\na.mp4,walk,\n", "a length of nan seconds"),
        (line("a.mp4"), "clip,action,split\na.mp4,walk,\n", "no actions, or names that are no texts"),
        (line("b.mp4", "walk"), "clip,action,split\na.mp4,walk,\n", "no prediction for a.mp4"),
        (line("a.mp4", "walk"), "clip,action\na.mp4,walk\n", "expected a header with clip, action, split"),
        (
            line("a.mp4", "walk"),
            "clip,action,split\na.mp4,walk, slowly,one\n",
            "l.csv, line 2: more cells than the 3 columns",
        ),
        (
            line("x/a.mp4", "walk") + "\n" + line("y/a.mp4", "wave"),
            "clip,action,split\na.mp4,wave,\n",
            "a.mp4 may be x/a.mp4 or y/a.mp4; write more",
        ),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, predictions, labels, message):
    (tmp_path / "p.jsonl").write_text(predictions)
    (tmp_path / "l.csv").write_text(labels)
    with pytest.raises(SystemExit, match=message):
        video_accuracy.main([str(tmp_path / "p.jsonl"), "--labels", str(tmp_path / "l.csv")])


def test_a_line_separator_in_the_name_of_an_action_ends_no_line(tmp_path):
    (tmp_path / "p.jsonl").write_text(
        '{"input": "a.mp4", "start": 0, "end": 1, "whole": true, "top": [["a\u2028b", 1]]}\n\n'
    )
    (tmp_path / "l.csv").write_text("clip,action,split\na.mp4,a\u2028b,\n")
    ((label, answer),) = video_accuracy.match(
        video_accuracy.read_labels(tmp_path / "l.csv"), video_accuracy.read_answers(tmp_path / "p.jsonl")
    )
    assert label.actions == answer.actions == ("a\u2028b",)


def test_a_calibration_finds_the_temperature_and_costs_what_it_is_told():
    random = np.random.default_rng(0)
    true = random.normal(scale=2.0, size=(4000, 5))
    chances = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    labels = np.array([random.choice(5, p=row) for row in chances])
    found = calibrate.calibrate(3 * true, labels, cost=0.1)  # three times too sure
    assert found.temperature == pytest.approx(3, rel=0.1)
    assert found.refused == pytest.approx(0.1, abs=0.002)
    assert found.top1_of_accepted > found.top1 + 0.02
