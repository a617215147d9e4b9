"""Processes that read batches: the same batches in the same order; their set-up, their end and their errors."""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import pathlib
import shutil
import signal
import sys
import time
from collections import namedtuple

import jax
import numpy as np
import pytest

from mmcl_jax import batches as run_batches
from mmcl_jax import task as tasks
from mmcl_jax.data import worker_processes
from mmcl_jax.data.input_pipeline import Fields, ReadOptions, train_batches, train_order
from mmcl_jax.data.records import Records, RecordsError
from mmcl_jax.evaluate import Evaluator
from mmcl_jax.runtime.sharding import data_mesh
from tests.helpers import runs

pytestmark = pytest.mark.slow
TEXT_SET = "stand_in/holding/token_ids"
ROWS = np.arange(3, 27)
TRAINING = {"seed": 3, "batch_size": 10, "repeats": 2}


@pytest.fixture(autouse=True)
def nothing_left():
    """No process outlives a test."""
    yield
    assert not multiprocessing.active_children()


@pytest.fixture(scope="module")
def records(tiny_records):
    return Records(tiny_records)


def _assert_same(actual, expected):
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert {name: values.dtype for name, values in one.items()} == {
            name: values.dtype for name, values in other.items()
        }
        runs.assert_same_arrays(one, other)


@pytest.mark.parametrize(("mosaics", "workers"), [(True, 2), (False, 1)])
def test_training_batches_from_the_middle_of_an_epoch_on(records, mosaics, workers):
    mmcl = Fields(image=functools.partial(records.image, size=24), text=TEXT_SET, storage="float16")
    fields = mmcl if mosaics else Fields()
    batches = functools.partial(train_batches, records, ROWS, fields, start_step=2, end_step=9, **TRAINING)
    _assert_same(list(batches(options=ReadOptions(workers=workers))), list(batches()))  # an epoch has four


def _tell(number: int) -> dict[str, np.ndarray]:
    """Describes a worker."""
    from jax._src import xla_bridge

    ignored = [signal.getsignal(number) is signal.SIG_IGN for number in (signal.SIGINT, signal.SIGTERM)]
    return {
        "number": np.array([number]),
        "process": np.array([os.getpid()]),
        "uses_a_device": np.array([xla_bridge.backends_are_initialized()]),
        "torch": np.array(["torch" in sys.modules]),
        "ignored": np.array(ignored),
    }


def test_workers_use_no_device_and_no_torch_and_leave_signals_to_the_run():
    jax.devices()
    told = list(worker_processes.read(_tell, 3, 2))
    assert [batch["number"].item() for batch in told] == [0, 1, 2]
    assert len({batch["process"].item() for batch in told} - {os.getpid()}) == 2
    for batch in told:
        assert not batch["uses_a_device"] and not batch["torch"] and batch["ignored"].all()
        assert type(batch["number"]) is np.ndarray


def _die(number: int) -> dict[str, np.ndarray]:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"number": np.array([number])}


def test_a_worker_that_dies_is_an_error():
    batches = worker_processes.read(_die, 9, 1)
    with pytest.raises(ChildProcessError, match=r"worker process .* died, exit code -9.*--config\.data\.workers"):
        for batch in batches:
            assert batch["number"].item() < 3


def test_a_damaged_record_is_the_error_that_it_is_without_workers(tiny_records, tmp_path):
    damaged = shutil.copytree(tiny_records, tmp_path / "damaged")
    config = runs.tiny_config(damaged)
    rows = Records(damaged).select(config.data.protocol, "train")
    places, _ = train_order(len(rows), seed=config.seed, batch_size=config.batch_size, repeats=config.data.repeats)(1)
    with np.load(damaged / "index.npz") as stored:
        columns = dict(stored)
    columns["name"][rows[places[3]]] = "another"
    np.savez(damaged / "index.npz", **columns)
    task = tasks.build_training_task(
        runs.tiny_config(damaged, loss__contrastive_weight=0.0, loss__refinement_weight=0.0)
    )
    messages = []
    for workers in (0, 1):
        data = dataclasses.replace(task.config.data, workers=workers)
        config = dataclasses.replace(task.config, data=data)
        batches = run_batches.train_batches(dataclasses.replace(task, config=config), (0, runs.STEPS))
        next(batches)
        with pytest.raises(RecordsError, match="the index says another; prepare again") as raised:
            next(batches)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_evaluations_share_their_workers_until_closed(tiny_records):
    config = runs.tiny_config(tiny_records, eval_batch_size=5)
    passes, children = [], []
    for workers in (0, 1):
        config.data.workers = workers
        with contextlib.closing(Evaluator(config, data_mesh())) as evaluator:
            for _ in range(2):
                passes.append([batch for batch, _resident in evaluator._batches("test")])
                children.append({child.pid for child in multiprocessing.active_children()})
    assert children[:2] == [set(), set()] and children[2] == children[3] and len(children[3]) == 1
    assert len(passes[0]) == 3
    for other in passes[1:]:
        _assert_same(other, passes[0])


def _hold(pipe) -> None:
    batches = worker_processes.read(_tell, 10, 1)
    pipe.send(next(batches)["process"].item())
    time.sleep(runs.PATIENCE)


def test_workers_end_with_a_run_that_is_killed():
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    run = context.Process(target=_hold, args=(theirs,))
    run.start()
    worker = pathlib.Path("/proc", str(ours.recv()), "stat")
    assert worker.exists()
    run.kill()
    run.join()
    deadline = time.monotonic() + runs.PATIENCE
    while worker.exists() and worker.read_text().rpartition(")")[2].split()[0] != "Z":  # a zombie waits only for init
        assert time.monotonic() < deadline
        time.sleep(0.05)


Usage = namedtuple("Usage", "total used free")


def test_workers_need_room(monkeypatch):
    check = functools.partial(worker_processes.check_room, 10, 10**6)  # batches of 10 MB
    check(2, 140, 1)  # five of each worker, one copied, three on their way
    with pytest.raises(
        ValueError, match=r"data\.host_memory_mb 139 .* data\.workers 2 .* 10 clips of 1000 KB; give it 140"
    ):
        check(2, 139, 1)
    with pytest.raises(ValueError, match="3 a dispatch; give it 200"):
        check(2, 199, 3)
    check(2, None, 1)
    monkeypatch.setattr(worker_processes.shutil, "disk_usage", lambda _path: Usage(0, 0, 64 * 10**6))
    check(1, None, 1)
    with pytest.raises(ValueError, match=r"/dev/shm, which has 64 MB free of the 90 needed; .*--shm-size"):
        check(2, None, 1)


def test_memory_bounds_workers_too(records):
    with pytest.raises(ValueError, match=r"data\.host_memory_mb 1 is too little for data\.workers 2"):
        options = ReadOptions(workers=2, host_memory_mb=1)
        train_batches(records, ROWS, Fields(), options, start_step=0, end_step=2, **TRAINING)


def test_a_negative_number_is_an_error(tiny_records):
    for build in (tasks.build_training_task, functools.partial(tasks.build_skeleton_task, train=False)):
        with pytest.raises(ValueError, match=r"data\.workers -1 is negative"):
            build(runs.tiny_config(tiny_records, data__workers=-1))
