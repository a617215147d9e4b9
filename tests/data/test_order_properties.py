"""The order of training and of evaluation, for any sizes, any number of processes and any step of resuming."""

import collections
from unittest import mock

import jax
import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from mmcl_jax.data.input_pipeline import clip_order, eval_order, steps_per_epoch, train_order

seeds = st.integers(0, 2**31 - 1)
sizes = st.tuples(st.integers(1, 60), st.integers(1, 4))  # clips, and how often each comes in an epoch


def of_process(make, index: int = 0, count: int = 1):
    """The order that a function makes in process `index` of `count`."""
    with mock.patch.object(jax, "process_count", lambda: count), mock.patch.object(jax, "process_index", lambda: index):
        return make()


@st.composite
def trainings(draw) -> dict:
    """Arguments of `train_order` that make at least one batch of an epoch."""
    clips, repeats = draw(sizes)
    batch_size = draw(st.integers(1, clips * repeats))
    return {"num_clips": clips, "repeats": repeats, "batch_size": batch_size, "seed": draw(seeds)}


def order_of(training: dict, **process):
    return of_process(lambda: train_order(training["num_clips"], **_others(training)), **process)


def _others(training: dict) -> dict:
    return {name: value for name, value in training.items() if name != "num_clips"}


@given(sizes, seeds, st.integers(0, 50))
def test_an_epoch_is_every_clip_as_often_as_asked(size, seed, epoch):
    clips, repeats = size
    order = clip_order(clips, repeats, seed, epoch)
    assert collections.Counter(order.tolist()) == dict.fromkeys(range(clips), repeats)


@given(trainings(), st.integers(0, 3))
def test_no_batch_of_an_epoch_has_a_clip_more_often_than_asked(training, epoch):
    at = order_of(training)
    steps = steps_per_epoch(training["num_clips"], training["repeats"], training["batch_size"])
    seen = collections.Counter()
    for step in range(epoch * steps, (epoch + 1) * steps):
        places, positions = at(step)
        assert len(places) == len(positions) == training["batch_size"]
        seen.update(places.tolist())
    assert max(seen.values()) <= training["repeats"]
    dropped = training["num_clips"] * training["repeats"] - steps * training["batch_size"]
    assert sum(training["repeats"] - seen[clip] for clip in range(training["num_clips"])) == dropped
    assert 0 <= dropped < training["batch_size"]


@given(trainings(), st.integers(1, 4), st.integers(0, 40))
def test_slices_of_processes_are_the_batch_of_one(training, processes, step):
    assume(training["batch_size"] % processes == 0)
    whole = order_of(training)(step)
    slices = [order_of(training, index=index, count=processes)(step) for index in range(processes)]
    for part, expected in zip(zip(*slices, strict=True), whole, strict=True):
        np.testing.assert_array_equal(np.concatenate(part), expected)


@given(trainings(), st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_a_resumed_run_takes_the_same_batches(training, steps):
    straight = {step: order_of(training)(step) for step in range(61)}
    resumed = order_of(training)
    for step in steps:  # in any order, from any step
        for ours, expected in zip(resumed(step), straight[step], strict=True):
            np.testing.assert_array_equal(ours, expected)


@given(trainings(), st.integers(0, 200))
def test_positions_number_the_whole_training(training, step):
    _, positions = order_of(training)(step)
    first = step * training["batch_size"]
    np.testing.assert_array_equal(positions, np.arange(first, first + training["batch_size"]))


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 4))
def test_evaluation_covers_every_clip_once_and_in_order(clips, per_process, processes):
    batch_size = per_process * processes
    at = [of_process(lambda: eval_order(clips, batch_size), index, processes) for index in range(processes)]
    batches = [[part(step) for part in at] for step in range(-(-clips // batch_size))]
    places, positions, mask = (
        np.concatenate([part[field] for batch in batches for part in batch]) for field in range(3)
    )
    np.testing.assert_array_equal(places[mask > 0], np.arange(clips))
    np.testing.assert_array_equal(positions, np.arange(len(positions)))
    assert mask.sum() == clips and not places[mask == 0].any()
