"""The command when its input is bad: a message that says what to do, status 1, no traceback, nothing lost."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from tests.helpers import runs

pytestmark = pytest.mark.slow


def _fails(arguments, compiled, tmp_path, devices=1) -> str:
    """Runs a command that must fail well; returns the error line and those after it."""
    status, text = runs.run(arguments, compiled, tmp_path / "log", devices)
    assert status == 1, text
    assert "Traceback" not in text
    assert "\nerror: " in "\n" + text, text
    return text[("\n" + text).index("\nerror: ") :]


# A flag that parsing refuses, or one for each kind of error that reaches `main`; test_task has the others.
@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.loss.contrastive_wait=0.1", 'Did you mean "contrastive_weight"'),
        ("--config.batch_size=many", "'many'"),
        ("--config=configs/demo.py:joint,skeletons", "the variant 'skeletons' is not 'skeleton_only'"),
        ("--config=configs/demos.py", "configs/demos.py"),
        ("--mode=test", "--mode=test"),
        ("--config.model.backbone=gcn", "model.backbone 'gcn' is not one of ctrgcn"),
        ("--config.data.records=nowhere", "nowhere: no such folder; prepare it"),
        ("--config.data.records=", "--config.data.records is empty; name the folder"),
        ("--config.data.validation_subjects=(4,)", "validation subjects [4] are not among the training subjects"),
    ],
)
def test_bad_flags(flag, message, tiny_records, compiled, tmp_path):
    workdir = tmp_path / "run"
    assert message in _fails(runs.command(tiny_records, workdir, flag), compiled, tmp_path)
    assert not workdir.exists()


@pytest.mark.parametrize(("given", "missing"), [("--workdir=run", "--config"), ("--config=demo", "--workdir")])
def test_a_missing_flag_is_named_with_an_example(given, missing, compiled, tmp_path):
    error = _fails([sys.executable, "-m", "mmcl_jax.main", given], compiled, tmp_path)
    assert error.strip() == (
        f"error: {missing} is missing; for example: python -m mmcl_jax.main --config=demo:joint --workdir=workdir/demo"
    )


def test_a_folder_without_a_run_cannot_be_evaluated(compiled, tmp_path):
    error = _fails([sys.executable, "-m", "mmcl_jax.main", "--workdir=nowhere", "--mode=eval"], compiled, tmp_path)
    assert error.startswith("error: --workdir=nowhere: no run's config.json in this folder; name the workdir of a run")


def test_the_traceback_of_an_error_is_there_for_who_asks(tmp_path, compiled):
    command = runs.command(tmp_path / "nowhere", tmp_path / "run", "--verbosity=1")
    status, text = runs.run(command, compiled, tmp_path / "log")
    assert status == 1
    assert "Traceback" in text and "nowhere: no such folder" in text.splitlines()[-1]


def test_an_internal_error_keeps_its_traceback(tiny_records, compiled, tmp_path):
    command = runs.command(tiny_records, tmp_path / "run", program="tests.helpers.internal_error")
    status, text = runs.run(command, compiled, tmp_path / "log")
    assert status == 1
    assert "Traceback" in text and "tests/helpers/internal_error.py" in text
    assert text.splitlines()[-1].startswith("ValueError: cannot reshape array")
    assert "\nerror: " not in text


def test_a_memory_that_is_full_is_explained(tiny_records, compiled, tmp_path):
    command = runs.command(tiny_records, tmp_path / "run", program="tests.helpers.memory_full", batch_size=12)
    status, text = runs.run(command, compiled, tmp_path / "log")
    assert status == 1 and "Traceback" not in text
    assert re.search(
        r"\nerror: .*/run: the memory does not suffice \(RESOURCE_EXHAUSTED: .* bytes\)\. Train on fewer", text
    )
    assert "--config.batch_size, now 12)" in text.splitlines()[-1]


def test_a_batch_that_the_devices_do_not_divide(tiny_records, compiled, tmp_path):
    command = runs.command(tiny_records, tmp_path / "run", batch_size=12)
    error = _fails(command, compiled, tmp_path, devices=8)
    assert "batch_size=12 is not divisible by 8 devices; the nearest sizes are 8 or 16" in error


def test_records_of_another_version(tiny_records, compiled, tmp_path):
    records = tmp_path / "records"
    shutil.copytree(tiny_records, records)
    info = json.loads((records / "info.json").read_text())
    (records / "info.json").write_text(json.dumps({**info, "records_version": "0.9.0"}))
    error = _fails(runs.command(records, tmp_path / "run"), compiled, tmp_path)
    assert "records version '0.9.0', this program reads '1.0.0'; prepare again" in error


def test_the_workdir_of_another_config(finished_run, tiny_records, compiled, tmp_path):
    command = runs.command(tiny_records, finished_run, learning_rate=0.01)
    assert "learning_rate: 0.1 in the workdir, 0.01 now" in _fails(command, compiled, tmp_path)
    command = runs.command(tiny_records, finished_run, mode="eval", data__stream="bone", learning_rate=0.01)
    error = _fails(command, compiled, tmp_path)
    assert "data.stream: 'joint' in the workdir, 'bone' now" in error
    assert "learning_rate" not in error  # scores do not depend on it
    assert runs.saved_steps(finished_run) == [runs.STEPS_PER_EPOCH, runs.STEPS]


def test_evaluation_of_a_run_without_checkpoint(tiny_records, compiled, tmp_path):
    error = _fails(runs.command(tiny_records, tmp_path / "run", mode="eval"), compiled, tmp_path)
    assert "no checkpoints; train first" in error


@pytest.fixture
def small_disk(tmp_path):
    """A function of a size that mounts, or resizes, a file system in memory; returns its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def resize(size: int):
        options = f"size={size}" + (",remount" if mounted else "")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
        mounted.append(size)
        return folder

    yield resize
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_loses_nothing(small_disk, finished_run, tiny_records, compiled, tmp_path):
    checkpoint = finished_run / "checkpoints" / str(runs.STEPS)
    size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    workdir = small_disk(int(1.7 * size)) / "run"
    command = runs.command(tiny_records, workdir, checkpoint_every_steps=3)
    status, text = runs.run(command, compiled, tmp_path / "log")
    assert status == 1, text
    # Orbax's threads may print their own troubles at the same time. Any write may meet the full disk first.
    error = text[text.rindex(f"error: {workdir}") :]
    assert re.search(r"[Tt]he disk is full.* then start again", error, re.DOTALL), text
    assert "last complete checkpoint" in error
    assert runs.saved_steps(workdir) == [3]

    small_disk(20 * size)
    status, text = runs.run(command, compiled, tmp_path / "log")
    assert status == 0, text
    assert f"resuming at step 3 of {runs.STEPS}" in text
    runs.assert_same_arrays(runs.read_checkpoint(workdir, runs.STEPS), runs.read_checkpoint(finished_run, runs.STEPS))
