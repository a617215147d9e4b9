"""Worker processes stop in the middle of an item, and leave nothing half written."""

import functools
import os
import pathlib
import time

import pytest

from data_prep.formats import worker_processes
from mmcl_jax.runtime.files import whole_file


def make(folder: pathlib.Path, number: int) -> int:
    """Writes a file: the first at once, the others slowly, and waiting in one piece."""
    with whole_file(folder / f"{number}") as unfinished:
        unfinished.touch()
        if number:
            time.sleep(3)
    return number


def test_stopping_interrupts_the_items_and_removes_what_they_have_begun(tmp_path):
    results = worker_processes.map_in_order(functools.partial(make, tmp_path), [0] + [1, 2, 3, 4] * 10, workers=2)
    done = [next(results)]
    while len(list(tmp_path.glob(".*"))) < 2:  # both workers are at work
        time.sleep(0.01)
    results.close()
    assert done == [0] and [path.name for path in tmp_path.iterdir()] == ["0"]


def end_or_wait(number: int) -> None:
    time.sleep(0.2)
    if number:
        os._exit(1)
    time.sleep(600)


def test_a_dead_worker_is_an_error_and_not_a_wait():
    """As well while the others are at work."""
    with pytest.raises(Exception, match="terminated abruptly"):
        list(worker_processes.map_in_order(end_or_wait, [0, 1, 1], workers=2))
