"""The schedule by hand, and SGD against PyTorch's rule written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmcl_jax.optim import adamw, cosine_schedule, sgd, stepwise_schedule


def by_epoch(schedule, epochs: int, steps_per_epoch: int) -> list[float]:
    """Returns each epoch's learning rate, having checked that it is constant within the epoch."""
    rates = np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(epochs * steps_per_epoch)))
    rates = rates.reshape(epochs, steps_per_epoch)
    np.testing.assert_array_equal(rates, rates[:, :1].repeat(steps_per_epoch, axis=1))
    return rates[:, 0].tolist()


def test_paper_schedule():
    schedule = stepwise_schedule(0.1, warmup_epochs=5, drop_epochs=(90, 100), drop_factor=0.1, steps_per_epoch=3)
    expected = [0.02, 0.04, 0.06, 0.08] + [0.1] * 86 + [0.01] * 10 + [0.001] * 10
    assert by_epoch(schedule, 110, 3) == pytest.approx(expected, rel=1e-6)


def test_nine_epochs_of_nw_ucla():
    schedule = stepwise_schedule(0.1, warmup_epochs=2, drop_epochs=(6, 8), drop_factor=0.1, steps_per_epoch=318)
    expected = [0.05, 0.1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001]
    assert by_epoch(schedule, 9, 318) == pytest.approx(expected, rel=1e-6)


def test_neither_warmup_nor_drops():
    schedule = stepwise_schedule(0.3, warmup_epochs=0, drop_epochs=(), drop_factor=0.1, steps_per_epoch=2)
    assert by_epoch(schedule, 3, 2) == pytest.approx([0.3] * 3, rel=1e-6)


def test_a_cosine_after_the_warmup():
    schedule = cosine_schedule(0.2, warmup_epochs=2, num_epochs=6, steps_per_epoch=2)
    rates = np.asarray(jax.vmap(schedule)(jnp.arange(14)))
    expected = [0.1, 0.1, 0.2, 0.2] + [0.1 * (1 + np.cos(np.pi * step / 8)) for step in range(8)] + [0, 0]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-7)


def test_adamw_decays_by_itself():
    """The gradient of every parameter has the same size of step, and the decay is not part of it."""
    optimizer = adamw(lambda step: 0.1, weight_decay=0.01)
    params = jnp.array([1.0, -2.0])
    updates, _ = optimizer.update(jnp.array([3.0, 1e-3]), optimizer.init(params), params)
    np.testing.assert_allclose(updates, [-0.1 - 0.1 * 0.01, -0.1 + 0.1 * 0.01 * 2], rtol=1e-4)


def pytorch_sgd(parameter, gradient, rates, momentum: float, weight_decay: float):
    """`torch.optim.SGD(nesterov=True)`: yields the parameter after each step of `gradient(parameter)`."""
    buffer = None
    for rate in rates:
        d = gradient(parameter) + weight_decay * parameter
        buffer = d.copy() if buffer is None else momentum * buffer + d
        parameter = parameter - rate * (d + momentum * buffer)
        yield parameter


def test_sgd_is_pytorchs():
    rng = np.random.default_rng(0)
    start = {"kernel": rng.normal(size=(3, 4)), "scale": rng.normal(size=4)}  # no parameter escapes the decay
    target = {"kernel": rng.normal(size=(3, 4)), "scale": rng.normal(size=4)}
    # Four steps of two epochs each at 0.05, 0.1, 0.1, 0.01: the rate changes while the momentum runs on.
    schedule = stepwise_schedule(0.1, warmup_epochs=2, drop_epochs=(3,), drop_factor=0.1, steps_per_epoch=2)
    rates = [0.05, 0.05, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]
    expected = {
        name: list(pytorch_sgd(start[name], lambda p, t=target[name]: p**3 - t, rates, 0.9, 4e-2)) for name in start
    }

    optimiser = sgd(schedule, momentum=0.9, weight_decay=4e-2)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), start)
    state = optimiser.init(params)
    for step in range(len(rates)):
        gradients = jax.tree.map(lambda p, t: p**3 - t, params, target)
        updates, state = optimiser.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for name, value in params.items():
            np.testing.assert_allclose(value, expected[name][step], rtol=1e-5, atol=1e-6)


def test_decay_alone_shrinks_every_parameter():
    optimiser = sgd(optax.constant_schedule(0.5), momentum=0.0, weight_decay=0.1)
    params = {"bias": jnp.ones(2), "alpha": jnp.ones(1)}
    updates, _ = optimiser.update(jax.tree.map(jnp.zeros_like, params), optimiser.init(params), params)
    assert all((leaf == -0.05).all() for leaf in jax.tree.leaves(updates))
