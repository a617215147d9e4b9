"""How many bodies programs compute: enough for every batch, few programs, the same on every start."""

import numpy as np
import pytest

from mmcl_jax.data.capacities import BodyCounts, Capacities, bodies_to_compute, choose_sizes
from mmcl_jax.data.input_pipeline import train_order


def counts(clips=4000, two=0.2, **changes) -> BodyCounts:
    bodies = 1 + (np.random.default_rng(0).random(clips) < two)
    return BodyCounts(bodies, **{"most": 2, "seed": 3, "batch_size": 16, "repeats": 1, "groups": 1, **changes})


@pytest.mark.parametrize(("groups", "devices"), [(1, 1), (2, 2), (4, 2), (1, 2), (2, 4)])
def test_every_batch_fits_the_program_that_it_takes(groups, devices):
    given = counts(groups=groups, devices=devices)
    capacities = Capacities(given)
    order = train_order(len(given.bodies), seed=3, batch_size=16, repeats=1)
    taken = set()
    for step in range(2 * given.steps_per_epoch):
        bodies = given.bodies[order(step)[0]].reshape(groups, -1)
        size = capacities.at(step)
        assert size is None or (bodies.sum(axis=1) + 1).max() <= size < given.full
        assert size is None or size % devices == 0 or groups % devices == 0
        taken.add(size)
    assert taken <= {*capacities.sizes, None} and len(capacities.sizes) <= 3
    assert (capacities.at(7, 3) or given.full) == max(capacities.at(step) or given.full for step in (7, 8, 9))


def test_little_is_computed_in_vain():
    given = counts(clips=40_000)
    capacities = Capacities(given)
    taken = np.array([capacities.at(step) for step in range(1000)])
    needed = given.needed(0)[:1000]
    assert needed.mean() < 0.65 * given.full
    assert taken.mean() < 1.08 * needed.mean()


def test_absent_bodies_are_one_for_each_number():
    assert bodies_to_compute(np.array([[1, 1, 1], [2, 1, 0]]), 2).tolist() == [4, 5]
    assert bodies_to_compute(np.array([3, 1]), 3) == 4 + 2


@pytest.mark.parametrize("two", [0.95, 1.0])
def test_where_few_are_absent_all_are_computed(two):
    capacities = Capacities(counts(two=two))
    assert capacities.sizes == () and capacities.at(0) is None


def test_more_programs_only_for_long_runs():
    needed = np.repeat([18, 20, 24, 28], [10, 60, 20, 10])
    assert choose_sizes(needed, 32, steps=100) == (28,)
    assert len(choose_sizes(needed, 32, steps=5000)) == 2
    assert len(choose_sizes(needed, 32, steps=100_000)) == 3
    # The plain program is one of them, where it is the best one for the rest.
    assert choose_sizes(np.repeat([18, 32], [99, 1]), 32, steps=100_000) == (18,)
