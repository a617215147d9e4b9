"""Several streams of one config: trained, found finished, fused; by the command as a user types it."""

import csv
import dataclasses
import shutil

import numpy as np
import pytest

from experiments import ensemble, streams
from experiments.scores import read_scores, read_together, write_scores
from tests.helpers import runs


def tiny_overrides(records) -> list[str]:
    """Overrides that make a config as small as that of the tests' finished run."""
    return [f"--config.{key}={value}" for key, value in {**runs.TINY, "data.records": str(records)}.items()]


def test_a_stream_is_the_main_command_with_another_stream(tmp_path):
    run = streams.stream_run("configs/nw_ucla.py:joint,short", "bone_motion", tmp_path, [("seed", "2")])
    config = run.read_config()
    assert run.config == "configs/nw_ucla.py:bone_motion,short"
    assert (config.data.stream, config.num_epochs, config.seed, config.model.graph) == ("bone_motion", 9, 2, "natural")
    run = streams.stream_run("configs/ntu120.py", "hd_bone", tmp_path)
    config = run.read_config()
    assert (config.data.stream, config.data.protocol, config.model.graph) == ("bone", "ntu120_xsub", "hierarchical")


@pytest.mark.parametrize("given", ["joint,joint", "joint,bones", ""])
def test_streams_that_are_none_are_refused(tmp_path, given, capsys):
    with pytest.raises(SystemExit, match="2"):
        streams.main(["--config=configs/demo.py", f"--workdir={tmp_path}", f"--streams={given}"])
    assert "is repeated or not a stream" in capsys.readouterr().err


def test_nothing_starts_where_the_config_does_not_fit(tmp_path):
    arguments = ["--config=configs/demo.py:joint,skeleton_only", f"--workdir={tmp_path / 'runs'}"]
    with pytest.raises(SystemExit, match="no such config key"):
        streams.main([*arguments, "--config.seeed=1"])
    with pytest.raises(SystemExit, match="'--seed=1' is not an option"):
        streams.main([*arguments, "--seed=1"])
    with pytest.raises(SystemExit, match="the stream 'jiont' is not one of joint, bone"):
        streams.main(["--config=configs/demo.py:jiont", arguments[1]])
    assert not (tmp_path / "runs").exists()


@pytest.mark.long
def test_streams_are_trained_fused_and_not_trained_again(
    finished_run, tiny_records, compiled, tmp_path, monkeypatch, capfd
):
    """Joints are finished already; joints from HD-Graph are trained, a program that was compiled for the former."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(compiled))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    folder, config = tmp_path / "runs", "configs/demo.py:joint"
    shutil.copytree(finished_run, folder / "joint")
    written = (folder / "joint" / "scores_test.npz").stat().st_mtime_ns
    arguments = [f"--config={config}", f"--workdir={folder}", *tiny_overrides(tiny_records)]
    arguments.append("--streams=joint,hd_joint")
    streams.main(arguments)
    assert "joint: finished" in capfd.readouterr().out
    assert (folder / "joint" / "scores_test.npz").stat().st_mtime_ns == written
    for stream in ("joint", "hd_joint"):
        assert read_scores(folder / stream).stream == stream
        with (folder / stream / "metrics.csv").open(newline="") as file:
            assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    files = read_together([folder / "joint", folder / "hd_joint"])
    assert np.abs(files[0].scores - files[1].scores).max() > 0.01
    fused = read_scores(folder / "scores_ensemble.npz")
    np.testing.assert_allclose(fused.scores, files[0].scores + files[1].scores, rtol=1e-5, atol=1e-5)
    page = (folder / "streams.md").read_text()
    top1, *_ = ensemble.accuracies(fused.scores, files[0])
    assert f"| equal | 1, 1 | no | {top1} |" in page and "fitted" not in page
    assert page.startswith(f"# Streams of `{config}`, ")

    for stream in ("joint", "hd_joint"):  # as a validation split leaves them
        file = read_scores(folder / stream)
        names = np.array([f"validation_{name}" for name in file.names])
        write_scores(folder / stream / "scores_validation.npz", dataclasses.replace(file, names=names))
    streams.main(arguments)
    assert "hd_joint: finished" in capfd.readouterr().out
    assert "fitted by coordinate search on 12 other clips" in (folder / "streams.md").read_text()
    with pytest.raises(SystemExit, match=r"made by another config: .*seed: 0 in the workdir, 5 now"):
        streams.main([*arguments, "--config.seed=5"])


def test_published_weights_are_for_their_dataset_alone(tiny_records, tmp_path):
    run = streams.stream_run("configs/demo.py", "joint", tmp_path, [("data.records", str(tiny_records))])
    assert streams.published_weights(run, ensemble.PRESETS["nw_ucla"].streams) is None
