"""The notebooks run, cell by cell, and say what they are meant to show."""

import json
import pathlib

import matplotlib
import pytest

NOTEBOOKS = pathlib.Path(__file__).parents[1] / "notebooks"


def run(name: str) -> dict:
    """Runs the code cells of a notebook in one namespace, which is returned."""
    matplotlib.use("agg")
    names: dict = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{name}:cell {number}", "exec"), names)
    return names


def test_the_model_of_the_package_sees_a_squat(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("recognize.ipynb")["model"].path == "any_camera"
    said = capsys.readouterr().out
    assert said.count("degrees: squat") == 7
    assert "frozen: nothing     squat  98." in said


@pytest.mark.long
def test_a_trained_model_knows_new_clips(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("train_and_use.ipynb")
    said = capsys.readouterr().out
    assert "stand  -> stand" in said and "wave   -> wave" in said and "clap   -> clap" in said
    assert "25 joints with 3 channels, expected 17 joints" in said
