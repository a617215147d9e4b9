"""Runs as processes of their own: their command, their progress, stopping and failing."""

import dataclasses
import os
import shutil
import signal
import threading
import time

import pytest

from experiments.launch import LaunchError, Run, Stopped, read_config, split_overrides
from mmcl_jax.run_log import EARLY_STOP, WorkdirError
from tests.helpers import runs


def test_the_config_is_read_as_the_main_command_reads_it(tmp_path):
    config = read_config("configs/nw_ucla.py:bone,short", [("seed", "3"), ("drop_epochs", "(2,4)")])
    assert (config.data.stream, config.num_epochs, config.seed, config.drop_epochs) == ("bone", 9, 3, (2, 4))
    run = Run("configs/nw_ucla.py:bone,short", tmp_path, (("seed", "3"), ("seed", "4")))
    assert run.read_config().seed == 4
    command = f"python -m mmcl_jax.main --config=configs/nw_ucla.py:bone,short --workdir={tmp_path} --config.seed=4"
    assert str(run) == command


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("configs/none.py", [], "^configs/none.py: no such file"),
        ("configs/nw_ucla.py:joint,shrt", [], "the schedule 'shrt' is not 'short'"),
        ("configs/nw_ucla.py", [("sede", "1")], "no such config key: .*sede"),
        ("configs/nw_ucla.py", [("data.windows", "1")], "no such config key: .*windows"),
        ("configs/nw_ucla.py", [("seed", "one")], "--config.seed=one"),
    ],
)
def test_configs_that_cannot_be_read_are_refused(config, overrides, message):
    with pytest.raises(LaunchError, match=message):
        read_config(config, overrides)


def test_what_is_no_override_is_refused():
    assert split_overrides(["--config.seed=1", "--config.data.text=a=b"]) == (("seed", "1"), ("data.text", "a=b"))
    for wrong in ("--seed=1", "--config.seed", "1", "--cofig.seed=1"):
        with pytest.raises(LaunchError, match=f"'{wrong}' is not an option"):
            split_overrides([wrong])


def test_a_finished_run_is_known_by_its_last_epoch_and_scores(finished_run, tiny_records, tmp_path):
    overrides = {**runs.TINY, "data.records": str(tiny_records)}
    pairs = tuple((key, str(value)) for key, value in overrides.items())
    run = Run("configs/demo.py", finished_run, pairs)
    assert run.is_finished() and run.epochs_done() == 2
    assert not Run("configs/demo.py", tmp_path / "none", pairs).is_finished()
    longer = Run("configs/demo.py", finished_run, (*pairs, ("num_epochs", "3")))
    assert not longer.is_finished() and longer.epochs_done() == 2
    with pytest.raises(WorkdirError, match="made by another config: seed: 0 in the workdir, 1 now"):
        Run("configs/demo.py", finished_run, (*pairs, ("seed", "1"))).is_finished()

    copied = Run("configs/demo.py", tmp_path / "copied", pairs)
    shutil.copytree(finished_run, copied.workdir)
    (copied.workdir / EARLY_STOP).touch()
    assert dataclasses.replace(longer, workdir=copied.workdir).is_finished()
    (copied.workdir / EARLY_STOP).unlink()
    metrics = (copied.workdir / "metrics.csv").read_text().splitlines(keepends=True)
    (copied.workdir / "metrics.csv").write_text("".join(metrics[:-1]))  # killed in the second epoch
    assert not copied.is_finished() and copied.epochs_done() == 1
    (copied.workdir / "metrics.csv").write_text("".join(metrics))
    (copied.workdir / "scores_test.npz").unlink()
    assert not copied.is_finished() and copied.epochs_done() == 2
    (copied.workdir / "metrics.csv").write_text("epoch\nlast\n")
    with pytest.raises(LaunchError, match=r"metrics\.csv: columns \['epoch'\]; expected .*; restore it"):
        copied.epochs_done()


_SAVES_WHEN_ASKED = """
import pathlib, signal, sys, time
proof = pathlib.Path(sys.argv[1])
def save(number, frame):
    (proof / "saved").write_text(str(number))
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
(proof / "ready").touch()
time.sleep(3600)
"""


def _interrupt_when(ready):
    """Ctrl-C, once the file exists."""
    while not ready.exists():
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_to_stop_reaches_the_run_once(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "arguments", ["-c", _SAVES_WHEN_ASKED, str(tmp_path)])

    thread = threading.Thread(target=_interrupt_when, args=(tmp_path / "ready",))
    thread.start()
    with pytest.raises(Stopped, match="stopped and saved; start the same command again"):
        Run("configs/demo.py", tmp_path / "run").execute()
    thread.join()
    assert (tmp_path / "saved").read_text() == str(int(signal.SIGTERM))


def test_a_run_that_is_stopped_before_it_listens_has_not_failed(tmp_path, monkeypatch):
    """Else the next run of a sweep would start after a signal to stop."""
    script = f"import pathlib, time; pathlib.Path({str(tmp_path / 'ready')!r}).touch(); time.sleep(3600)"
    monkeypatch.setattr(Run, "arguments", ["-c", script])
    thread = threading.Thread(target=_interrupt_when, args=(tmp_path / "ready",))
    thread.start()
    with pytest.raises(Stopped, match="stopped; start the same command again"):
        Run("configs/demo.py", tmp_path / "run").execute()
    thread.join()


def test_a_run_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "arguments", ["-c", "raise SystemExit(3)"])
    with pytest.raises(LaunchError, match=f"{tmp_path}: the run ended with status 3"):
        Run("configs/demo.py", tmp_path).execute()
