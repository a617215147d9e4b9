"""The script for a day with a GPU: its rehearsal on a CPU, whole; and its arguments."""

import json
import os
import subprocess
import sys
import tarfile

import pytest

from experiments.scores import read_scores
from tests.helpers.runs import ROOT

SCRIPT = ROOT / "experiments" / "gpu_day.sh"


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    """Exit status, and what it printed."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHON": sys.executable, **environment}
    ended = subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, text=True)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.long
def test_the_rehearsal_runs_every_part_and_leaves_figures(tmp_path):
    pytest.importorskip("torch")
    shallow = {"MAIN": "tests.helpers.shallow", "BENCHMARK": "tests.helpers.shallow_benchmark"}
    status, printed = run("--rehearsal", f"--out={tmp_path}", **shallow)
    assert status == 0, printed
    files = {path.name for path in tmp_path.iterdir()}
    parts = {"check", "train", "infer", "nw_ucla", "preparation", "compiled", "streams"}
    assert {f"{part}.log" for part in parts} <= files
    for name, least in (("train", 2), ("infer", 3), ("streams", 2)):
        tables = json.loads((tmp_path / f"{name}.json").read_text())["tables"]
        timed = [timing for table in tables for timing in table.get("timings", []) if timing["seconds"]]
        assert len(timed) >= least, name
        assert "\nratio " in (tmp_path / f"{name}.log").read_text()
    with tarfile.open(tmp_path / "nw_ucla.tgz") as archive:
        archive.extractall(tmp_path / "there", filter="data")
    assert len(read_scores(tmp_path / "there" / "seed0" / "bone_motion" / "scores_test.npz").names) == 20
    with tarfile.open(tmp_path / "seed0-joint.tgz") as archive:
        names = archive.getnames()
    assert any("/skeleton/" in name for name in names) and not any("/training" in name for name in names)
    assert "nw_ucla: CTR-GCN's for NW-UCLA" in (tmp_path / "streams-seed0.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--out=DIR is missing"),
        (("--out=DIR", "trian"), "unknown argument trian"),
    ],
)
def test_arguments_that_it_does_not_know_are_refused(arguments, message):
    status, printed = run(*arguments)
    assert status == 2 and message in printed


def test_the_help_lists_every_part_with_its_limit():
    status, printed = run("--help")
    assert status == 0
    limits = {part: int(seconds) for part, seconds in (word.split(":") for word in printed.split() if _is_part(word))}
    assert list(limits) == ["check", "train", "infer", "nw_ucla", "preparation", "streams", "compiled"]
    code = SCRIPT.read_text()
    assert all(f"[{part}]={seconds}" in code for part, seconds in limits.items())


def _is_part(word: str) -> bool:
    part, _, seconds = word.partition(":")
    return part.isidentifier() and seconds.isdigit()


def test_what_comes_after_the_whole_time_is_not_run(tmp_path):
    status, printed = run(f"--out={tmp_path}", "--total=0", "infer")
    assert status == 1
    assert "not run, no time left: " in printed and "FAILED or stopped: infer" in printed


def test_a_part_that_fails_is_reported_and_the_next_one_runs(tmp_path):
    status, printed = run("--rehearsal", f"--out={tmp_path}", "infer", "compiled", PYTHON="false")
    assert status == 1
    assert "FAILED or stopped: infer" in printed and "not rehearsed" in printed
