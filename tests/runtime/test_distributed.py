"""Two processes as one run: the losses of one process; killed, stopped and resumed; a failure in one ends both."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from mmcl_jax.runtime import distributed
from mmcl_jax.steps import Step
from tests.helpers import free_losses, interrupted, runs

STEPS = 6  # of each epoch: a batch of 16 of 24 clips, each four times


def _command(records, workdir, **changes):
    """A run on only skeletons."""
    given = {"batch_size": 16, "eval_batch_size": 16, "checkpoint_every_steps": 2, "eval_every_epochs": 2}
    skeletons_alone = {"loss__contrastive_weight": 0, "loss__refinement_weight": 0}
    program = "tests.helpers.shallow"
    return runs.command(records, workdir, program=program, **{**given, **skeletons_alone, **changes})


@pytest.fixture
def started():
    """A list of processes, none of which outlives the test."""
    processes: list[subprocess.Popen] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def _ends(processes, folder) -> tuple[list[int], list[str]]:
    """Exit statuses and what was printed."""
    statuses = [process.wait(timeout=runs.PATIENCE) for process in processes]
    return statuses, [(folder / f"log{index}").read_text() for index in range(2)]


def _run(command, cache, folder, started) -> list[str]:
    started[:] = runs.start_two([command, command], cache, folder)
    statuses, texts = _ends(started, folder)
    assert statuses == [0, 0], texts
    return texts


@pytest.mark.hosts
@pytest.mark.parametrize("case", free_losses.CASES)
def test_twenty_steps_have_the_losses_of_one_process(case, tiny_records, compiled, tmp_path, started):
    command = [sys.executable, "-m", "tests.helpers.free_losses", str(tiny_records), "20", case]
    address = runs.free_address()
    for index in range(2):
        more = [address, str(index), "2"]
        started.append(runs.start([*command, *more], compiled, tmp_path / f"log{index}", devices=2))
    started.append(runs.start(command, compiled, tmp_path / "alone"))
    statuses = [process.wait(timeout=runs.PATIENCE) for process in started]
    texts = [(tmp_path / name).read_text() for name in ("alone", "log0", "log1")]
    assert statuses == [0, 0, 0], texts
    one, two, other = (json.loads(text.splitlines()[-1]) for text in texts)
    assert two == other
    difference = np.abs(np.array(two) / one - 1)
    print(np.array2string(difference, precision=1))
    assert len(difference) == 20 and len(set(one)) == 20
    assert difference[0] <= 1e-6
    assert difference.max() <= 1e-4, difference


@pytest.mark.hosts
def test_a_run_whose_processes_are_killed_and_stopped_ends_as_one_left_alone(tiny_records, compiled, tmp_path, started):
    quiet, hard = tmp_path / "quiet", tmp_path / "hard"
    for folder in (quiet, hard):
        folder.mkdir()
    texts = _run(_command(tiny_records, quiet / "run"), compiled, quiet, started)
    assert "absent bodies are computed once, with the same result: 28 bodies of 32 in a batch" in texts[0]

    workdir = hard / "run"
    command = _command(tiny_records, workdir)
    # One of the two is killed: what a lost host looks like to the other.
    started[:] = runs.start_two([command, interrupted.training(command, "SIGKILL", 5)], compiled, hard)
    statuses, texts = _ends(started, hard)
    assert statuses[0] not in (0, None), texts
    assert "start all processes again" in texts[0] or "another task died" in texts[0], texts[0]

    reached = runs.saved_steps(workdir)[-1]
    assert reached in (2, 4), texts
    started[:] = runs.start_two([command, interrupted.training(command, "SIGTERM", reached + 1)], compiled, hard)
    statuses, texts = _ends(started, hard)
    assert statuses == [0, 0], texts
    stopped = runs.saved_steps(workdir)[-1]
    assert f"stopped by signal; saved at step {stopped}" in texts[0]
    assert stopped < 2 * STEPS

    texts = _run(command, compiled, hard, started)
    assert f"resuming at step {stopped} of {2 * STEPS}" in texts[0]
    runs.assert_same_arrays(runs.read_checkpoint(workdir, 2 * STEPS), runs.read_checkpoint(quiet / "run", 2 * STEPS))
    runs.assert_same_arrays(runs.read_scores(workdir), runs.read_scores(quiet / "run"))
    assert runs.read_rows(workdir) == runs.read_rows(quiet / "run")
    starts = json.loads((workdir / "version.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, reached, stopped]  # written by one process
    assert "epoch 2" not in texts[1] and "top-1" not in texts[1]


@pytest.mark.hosts
def test_two_processes_train_alike_on_streamed_and_on_resident_clips(tiny_records, compiled, tmp_path, started):
    for name, changes in (("streamed", {}), ("resident", {"data__device_resident": True})):
        (tmp_path / name).mkdir()
        _run(_command(tiny_records, tmp_path / name / "run", **changes), compiled, tmp_path / name, started)
    streamed, resident = (tmp_path / name / "run" for name in ("streamed", "resident"))
    runs.assert_same_arrays(runs.read_checkpoint(resident, 2 * STEPS), runs.read_checkpoint(streamed, 2 * STEPS))
    runs.assert_same_arrays(runs.read_scores(resident), runs.read_scores(streamed))


@pytest.mark.hosts
@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"learning_rate": 0.05}, ["config and clips: processes [1] differ from process 0"] * 2),
        ({"data__records": "nowhere"}, ["process 1 of this run failed: RecordsError: nowhere: no such folder"]),
    ],
)
def test_what_fails_in_one_process_ends_both(changes, messages, tiny_records, compiled, tmp_path, started):
    right = _command(tiny_records, tmp_path / "run")
    started[:] = runs.start_two([right, [*right, *runs.overrides(changes)]], compiled, tmp_path)
    statuses, texts = _ends(started, tmp_path)
    assert statuses == [1, 1], texts
    for text, message in zip(texts, messages, strict=False):
        assert f"error: {message}" in text, text
        assert "Traceback" not in text, text


@pytest.mark.hosts
def test_a_batch_that_the_devices_of_all_processes_do_not_divide(tiny_records, compiled, tmp_path, started):
    command = _command(tiny_records, tmp_path / "run", batch_size=18)
    started[:] = runs.start_two([command, command], compiled, tmp_path)
    statuses, texts = _ends(started, tmp_path)
    assert statuses == [1, 1], texts
    assert all("batch_size=18 is not divisible by 4 devices; the nearest sizes are 16 or 20" in text for text in texts)


def test_a_full_memory_of_one_process_is_its_own_message_and_no_proxy_is_asked(
    tiny_records, compiled, tmp_path, started, monkeypatch
):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # where nobody answers
    command = runs.command(tiny_records, tmp_path / "run", program="tests.helpers.memory_full")
    started[:] = runs.start_two([command, command], compiled, tmp_path)
    statuses, texts = _ends(started, tmp_path)
    assert statuses == [1, 1]
    # Which of the two is the first to tell the other is a matter of chance.
    assert f"error: {tmp_path / 'run'}: the memory does not suffice (RESOURCE_EXHAUSTED: " in "".join(texts), texts
    assert "another process of the run failed" not in "".join(texts)


@pytest.mark.slow
def test_a_coordinator_without_the_rest_is_an_error_that_says_what_to_give(tiny_records, compiled, tmp_path):
    command = [*_command(tiny_records, tmp_path / "run"), f"--coordinator_address={runs.free_address()}"]
    status, text = runs.run(command, compiled, tmp_path / "log")
    assert status == 1
    assert "Traceback" not in text
    assert "error: the processes of this run did not find each other (Number of processes must be defined.)" in text


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, True),  # JAX looks, and finds nothing
        ({"SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "8"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),  # a pod, of a notebook perhaps
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "TPU_WORKER_HOSTNAMES": "a,b"}, True),
    ],
)
def test_where_other_processes_are_looked_for(environment, expected, monkeypatch):
    for name in ("SLURM_NTASKS", "KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert distributed._in_cluster() is expected


def test_a_process_alone_joins_nobody():
    distributed.join(None, None, 1)
    distributed.check_same("anything", "value")
    step = Step(jax.jit(lambda key, x: x + key), np.float32(1))
    assert distributed.compile_together(step, np.float32(2))(np.float32(3)) == 4
    with pytest.raises(ZeroDivisionError), distributed.shared_fate():
        raise ZeroDivisionError
