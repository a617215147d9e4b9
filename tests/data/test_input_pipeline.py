"""Batches: a pure function of seed and step, every clip as often as it should be, evaluation once and in order."""

import collections
import functools

import numpy as np
import pytest
from PIL import Image

from mmcl_jax.data import input_pipeline
from mmcl_jax.data.input_pipeline import (
    Fields,
    ReadOptions,
    clip_order,
    eval_batches,
    read_ahead,
    steps_per_epoch,
    train_batches,
)
from mmcl_jax.data.records import Records

TEXT_SET = "stand_in/holding/token_ids"
ROWS = np.arange(3, 27)


@pytest.fixture(scope="module")
def records(tiny_records):
    return Records(tiny_records)


def _batches(records, start, end, *, seed=0, threads=2, prefetch=8, repeats=1, batch_size=10):
    fields = Fields(image=lambda row: np.array([row, 2 * row], np.float32), text=TEXT_SET)
    return list(
        train_batches(
            records,
            ROWS,
            fields,
            ReadOptions(threads=threads, prefetch=prefetch),
            seed=seed,
            batch_size=batch_size,
            repeats=repeats,
            start_step=start,
            end_step=end,
        )
    )


def _assert_same(actual, expected):
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_batch_is_the_same_wherever_the_run_began(records):
    everything = _batches(records, 0, 7)
    for start in (1, 2, 5):
        _assert_same(_batches(records, start, 7), everything[start:])


def test_a_batch_does_not_depend_on_threads_or_prefetching(records):
    expected = _batches(records, 0, 4, threads=1, prefetch=1)
    _assert_same(_batches(records, 0, 4, threads=7, prefetch=64), expected)


def test_another_seed_another_order(records):
    assert not np.array_equal(_batches(records, 0, 1)[0]["label"], _batches(records, 0, 1, seed=1)[0]["label"])


def test_positions_number_the_clips_of_the_whole_training(records):
    positions = np.concatenate([batch["position"] for batch in _batches(records, 3, 6)])
    assert positions.dtype == np.uint32
    np.testing.assert_array_equal(positions, np.arange(30, 60))


@pytest.mark.parametrize("repeats", [1, 3])
def test_every_clip_comes_as_often_as_asked_less_the_dropped_tail(records, repeats):
    steps = steps_per_epoch(len(ROWS), repeats, 10)
    assert steps == len(ROWS) * repeats // 10
    for epoch in range(2):
        batches = _batches(records, epoch * steps, (epoch + 1) * steps, repeats=repeats)
        counts = collections.Counter(int(row) for batch in batches for row in batch["image"][:, 0])
        assert sum(counts.values()) == steps * 10
        assert set(counts) <= set(ROWS.tolist())
        assert max(counts.values()) <= repeats
        missing = sum(repeats - counts[row] for row in ROWS.tolist())
        assert missing == len(ROWS) * repeats - steps * 10


def test_an_epoch_is_a_permutation_and_epochs_differ():
    first, second = clip_order(24, 2, 0, 0), clip_order(24, 2, 0, 1)
    np.testing.assert_array_equal(np.sort(first), np.repeat(np.arange(24), 2))
    np.testing.assert_array_equal(np.sort(second), np.repeat(np.arange(24), 2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, clip_order(24, 2, 0, 0))


def test_contents_are_those_of_the_clip(records):
    batch = _batches(records, 0, 1)[0]
    assert batch["skeleton"].shape == (10, records.max_bodies, records.max_frames, 25, 3)
    for i, row in enumerate(batch["image"][:, 0].astype(int)):
        bodies, frames = batch["bodies"][i], batch["frames"][i]
        np.testing.assert_array_equal(batch["skeleton"][i, :bodies, :frames], records.skeleton(row))
        assert not batch["skeleton"][i, bodies:].any()
        assert not batch["skeleton"][i, :, frames:].any()
        assert batch["label"][i] == records.index["label"][row]
        np.testing.assert_array_equal(batch["text"][i], records.text(row, TEXT_SET))


def test_processes_read_slices_that_make_up_the_global_batch(records, monkeypatch):
    expected = _batches(records, 2, 4)
    monkeypatch.setattr(input_pipeline.jax, "process_count", lambda: 2)
    halves = []
    for index in range(2):
        monkeypatch.setattr(input_pipeline.jax, "process_index", lambda index=index: index)
        halves.append(_batches(records, 2, 4))
    joined = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*halves, strict=True)]
    _assert_same(joined, expected)


def test_a_run_on_skeletons_decodes_no_image(records, monkeypatch):
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda file: (opened.append(file), real(file))[1])
    batches = functools.partial(train_batches, seed=0, batch_size=8, repeats=1, start_step=0, end_step=3)
    (*_,) = batches(records, ROWS, Fields(text=TEXT_SET))
    (*_,) = eval_batches(records, ROWS, batch_size=8)
    assert not opened
    (*_,) = batches(records, ROWS, Fields(image=functools.partial(records.image, size=8)))
    assert len(opened) == 24


def test_a_run_on_skeletons_opens_no_other_dataset(tiny_records):
    records = Records(tiny_records)
    (*_,) = eval_batches(records, ROWS, batch_size=8)
    assert not records._joined
    assert set(records._skeletons.read(0)) == {"name", "skeleton"}


def test_what_is_read_ahead_fits_the_memory():
    def load(_number):
        return {"skeleton": np.zeros(250_000, np.float32)}  # 1 MB

    assert read_ahead(load, 100, 10, 64, None) == 64
    assert read_ahead(load, 100, 10, 4, None) == 10  # a batch at least
    assert read_ahead(load, 100, 10, 64, 1000) == 64
    assert read_ahead(load, 100, 10, 64, 50) == 20  # beside three batches
    assert read_ahead(load, 100, 10, 64, 31) == 1
    with pytest.raises(ValueError, match=r"data\.host_memory_mb 30 is too little .* 10 clips .*; give it 31 or more"):
        read_ahead(load, 100, 10, 64, 30)


def test_a_batch_does_not_depend_on_the_memory(records):
    shared = {"seed": 0, "batch_size": 8, "repeats": 1, "start_step": 0, "end_step": 3}
    expected = list(train_batches(records, ROWS, Fields(), **shared))
    size = sum(value.nbytes for value in expected[0].values()) / 8
    little = int(-(-25 * size // 10**6))
    _assert_same(list(train_batches(records, ROWS, Fields(), ReadOptions(host_memory_mb=little), **shared)), expected)


@pytest.mark.parametrize("batch_size", [1, 8, 10, 24, 64])
def test_evaluation_covers_every_row_once_and_in_order(records, batch_size):
    fields = Fields(image=lambda row: np.array([row], np.float32))
    batches = list(eval_batches(records, ROWS, fields, batch_size=batch_size))
    assert all(len(batch["label"]) == batch_size for batch in batches)
    mask = np.concatenate([batch["mask"] for batch in batches])
    rows = np.concatenate([batch["image"][:, 0] for batch in batches]).astype(int)
    np.testing.assert_array_equal(rows[mask > 0], ROWS)
    np.testing.assert_array_equal(mask, np.arange(len(mask)) < len(ROWS))


def test_nothing_left_to_train_is_no_batch(records):
    assert _batches(records, 4, 4) == []


def test_a_batch_larger_than_an_epoch_is_an_error():
    with pytest.raises(ValueError, match=r"batch_size 49 is more than the 48 clips"):
        steps_per_epoch(24, 2, 49)
